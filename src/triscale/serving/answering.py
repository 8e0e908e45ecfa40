"""One model that answers many at once: pictures are decoded on threads, networks run in batches, all of it bounded."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, from_numpy, stack

from triscale.cores import usable_cores
from triscale.errors import TriscaleError
from triscale.serving.batching import Batcher, FullError, LateError
from triscale.serving.limits import Limits
from triscale.serving.looking import Asked, Seen, TooManyPixelsError, compute_maps, draw, look
from triscale.serving.metrics import Metrics
from triscale.serving.open_inference import Floats, answer, parse, softmax
from triscale.serving.opening import Served
from triscale.serving.refusing import RefusedError

LARGE = 16_000_000  # pixels: larger pictures have threads of their own, so that smaller ones never wait for them

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Desk:
    """Takes pictures and tensors, gives answers; raises `RefusedError` for what it cannot take."""

    def __init__(self, served: Served, limits: Limits, metrics: Metrics) -> None:
        self.served, self._limits = served, limits
        self._threads = ThreadPoolExecutor(usable_cores(), thread_name_prefix="triscale-decode")
        self._large = ThreadPoolExecutor(max(1, usable_cores() // 2), thread_name_prefix="triscale-decode-large")
        self._inside = self._preparing = 0
        self._logits: Batcher[Tensor, Floats] = self._batcher(self._compute, metrics.batch("logits"))
        self._maps: Batcher[Asked, Floats] | None = None
        if served.network is not None and served.maps:
            self._maps = self._batcher(partial(compute_maps, served.network), metrics.batch("maps"))
        metrics.watch("images_inside", "Images accepted and not yet answered.", lambda: self._inside)
        metrics.watch("images_waiting", "Of those, images that wait for the network.", lambda: self._logits.length)

    def check_room(self) -> None:
        """Before anything is read: raises `RefusedError` where no image would be taken now."""
        if self._inside >= self._limits.queue:
            raise self._full(self._logits.pause)

    async def picture(self, content: bytes | bytearray, top: int, wants_map: bool) -> dict[str, Any]:
        """The likeliest classes of a picture with their probabilities, and the likeliest one's map, where it is wanted
        and there can be one."""
        with self._room(1), _in_words():
            deadline = asyncio.get_running_loop().time() + self._limits.deadline
            wants_map = wants_map and self._maps is not None
            seen = await self._seen(content, wants_map, deadline)
            (logits,) = await self._logits([seen.input], deadline)
            found = self._classes(logits, top)
            if self._maps is None or seen.pixels is None:
                return found
            index = int(logits.argmax())
            (values,) = await self._maps([Asked(seen.input, index)], deadline)
            image = await self._on_a_thread(partial(draw, self.served, seen.pixels, values), deadline)
            return {**found, "map": {"class": self.served.classes[index], "image": image}}

    async def tensors(self, content: bytes | bytearray, header: str | None) -> tuple[bytes, int | None]:
        """An answer of the Open Inference Protocol, see `open_inference.answer`."""
        deadline = asyncio.get_running_loop().time() + self._limits.deadline
        with _in_words():
            with self._room(1), self._prepared():
                work = partial(parse, self.served, content, header, self._limits.batch)
                asked = await self._on_a_thread(work, deadline)
            with self._room(len(asked.images)):
                logits = np.stack(await self._logits(list(from_numpy(asked.images)), deadline))
            return await self._on_a_thread(partial(answer, self.served, asked, logits), deadline)

    def close(self) -> None:
        """Once nothing is being answered."""
        for threads in (self._threads, self._large):
            threads.shutdown(wait=True, cancel_futures=True)
        for batcher in self._batchers:
            batcher.close()

    @property
    def _batchers(self) -> list[Batcher[Any, Any]]:
        return [batcher for batcher in (self._logits, self._maps) if batcher is not None]

    def _batcher(
        self, compute: Callable[[Sequence[Item]], Sequence[Answer]], told: Callable[[int, float], None]
    ) -> Batcher[Item, Answer]:
        return Batcher(
            compute,
            batch=self._limits.batch,
            wait=self._limits.wait,
            queue=self._limits.queue,
            coming=lambda: self._preparing > 0,
            told=told,
        )

    def _compute(self, inputs: Sequence[Tensor]) -> list[Floats]:
        return list(self.served.logits(stack(list(inputs))).float().cpu().numpy())

    def _classes(self, logits: Floats, top: int) -> dict[str, Any]:
        if not np.isfinite(logits).all():
            raise TriscaleError(f"{self.served.name}: the network's answer is not finite")
        shares = softmax(logits[None])[0]
        order = np.argsort(-shares, kind="stable")[:top]
        return {
            "model": self.served.name,
            "classes": [{"name": self.served.classes[i], "probability": float(shares[i])} for i in order],
        }

    @contextmanager
    def _room(self, images: int) -> Iterator[None]:
        if self._inside + images > self._limits.queue:
            raise self._full(self._logits.pause)
        self._inside += images
        try:
            yield
        finally:
            self._inside -= images

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """Others may wait for it a little."""
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1
            for batcher in self._batchers:
                batcher.look()

    async def _seen(self, content: bytes | bytearray, keep: bool, deadline: float) -> Seen:
        """A picture as the network sees it."""
        most = self._limits.pixels
        try:
            with self._prepared():
                work = partial(look, self.served, content, min(most, LARGE), keep)
                return await self._on_a_thread(work, deadline)
        except TooManyPixelsError:
            if most <= LARGE:
                raise
        return await self._on_a_thread(partial(look, self.served, content, most, keep), deadline, self._large)

    async def _on_a_thread(
        self, work: Callable[[], Result], deadline: float, threads: ThreadPoolExecutor | None = None
    ) -> Result:
        """Work that has not begun by the deadline never does."""
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.get_running_loop().run_in_executor(threads or self._threads, work)
        except TimeoutError:
            raise LateError from None

    def _full(self, again: int) -> RefusedError:
        return RefusedError(503, f"{self._limits.queue} images are waiting already; ask again", again=again)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except FullError as error:
        raise RefusedError(503, str(error), again=error.again) from None
    except LateError:
        raise RefusedError(504, "there was no answer in time; ask again when there is less to do", again=1) from None
    except MemoryError:
        raise RefusedError(503, "not enough memory for this now; ask again", again=5) from None
