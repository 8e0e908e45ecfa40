"""Carries a plan out: images in, logits out."""

import ctypes
import os
import time
import weakref
from threading import get_ident
from types import TracebackType
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt

from triscale.cores import usable_cores
from triscale.engines.native.library import available, library, number_of
from triscale.engines.native.plan import Plan, count_buffers
from triscale.errors import TriscaleError, UserError
from triscale.precision import Precision

MOST = 1024  # threads, and streams
PIECE = 0.25  # seconds that a call of the core takes, about: while it computes, Python handles no signal
CLOSING = 0.001  # seconds between two looks whether calls still run
EACH = 4  # images a thread in a piece, at least
_MESSAGE = 256  # bytes of an error


class Engine:
    """A plan that is ready to run.

    precision: of what is computed in between; images and logits are fp32. threads: of one call, all usable cores if
    None; an engine's result is the same for any number. streams: how many calls compute at the same time, each with
    threads and memory of its own; more callers wait. pin: keeps each of the engine's own threads, all of a call but the
    caller's, on one of the cores this process may use, one after another; the caller's goes where the system lets it.
    An engine may be called from many threads. It belongs to the process that made it. fp16 ends at 65,504, and so does
    bf16 by matrix tiles: an image whose logits are not finite for that is computed again in fp32.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        streams: int = 1,
        pin: bool = False,
    ) -> None:
        threads = min(usable_cores(), MOST) if threads is None else threads
        _check(threads, streams)
        cores = _cores() if pin else None
        native, error = library(), ctypes.create_string_buffer(_MESSAGE)
        layers = plan.layers.copy()  # nobody else can change these
        plan.check(layers)
        number = number_of(precision)
        handle = native.triscale_engine_create(
            layers.ctypes.data, len(layers), count_buffers(layers), plan.blob.ctypes.data, plan.blob.size,
            number, threads, streams, error, _MESSAGE,
        )  # fmt: skip
        if not handle:
            raise TriscaleError(f"{plan.architecture.name}: no engine could be made: {error.value.decode()}")
        self.architecture, self.precision, self.threads, self.streams = plan.architecture, precision, threads, streams
        self.layers, self._process = len(layers), os.getpid()
        self._run, self._profile = native.triscale_engine_run, native.triscale_engine_profile
        self._handle: int | None = handle
        # Of each call its thread. No lock is ever held: a signal's handler that calls or closes what it has interrupted
        # would wait for its own thread. A call is entered before it takes the handle, and closing takes the handle away
        # before it looks for calls, so that one of the two sees the other.
        self._calls = dict[object, int]()
        self._piece = EACH * threads
        self._instead = dict[Precision, Engine]()  # that answers where this precision ends
        self._again = (
            None
            if not available().ends_early(precision)
            else lambda: Engine(plan, threads=threads, streams=streams, pin=pin)
        )
        self._free = weakref.finalize(self, _destroy, native, handle, self._process)
        # At the end of the process threads may still be computing; the system takes the memory.
        self._free.atexit = False
        if cores is not None and native.triscale_engine_pin(handle, cores.ctypes.data, len(cores)):
            self._free()
            raise TriscaleError(f"{plan.architecture.name}: the system keeps threads off cores; leave pin=True out")

    def __call__(self, x: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]:
        """Images (n, channels, height, width), contiguous → logits (n, classes); of none, none.

        Raises `UserError` for another array and for an engine that is closed, `MemoryError` where memory is short.
        """
        images = self._images(x)
        logits = np.empty((images, self.architecture.classes), np.float32)
        call = object()
        try:
            handle, done = self._begin(call), 0
            while done < images:
                done += self._compute(handle, x[done : done + self._piece], logits[done : done + self._piece])
            if self._again is not None:
                self._replace(x, logits, np.flatnonzero(~np.isfinite(logits).all(1)))
        finally:
            self._calls.pop(call, None)  # at once: a signal may end whatever comes first in here
            self._ended()
        return logits

    def _compute(self, handle: int, x: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> int:
        """Logits of so many images; by what they took the next piece is cut. An image's bits depend on no company."""
        began = time.perf_counter()
        if self._run(handle, x.ctypes.data, len(x), logits.ctypes.data):
            raise MemoryError(f"{self.architecture.name}: not enough memory for {len(x)} images")
        fit = PIECE * len(x) / max(1e-9, time.perf_counter() - began)
        each = EACH * self.threads
        self._piece = each * max(1, int(fit / each))
        return len(x)

    def _replace(
        self, x: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], wrong: npt.NDArray[np.int64]
    ) -> None:
        """The logits of those images by those in fp32."""
        if not len(wrong):
            return
        exact = self._instead.get("fp32")
        if exact is None:
            assert self._again is not None
            made = self._again()
            exact = self._instead.setdefault("fp32", made)
            if exact is not made:
                made.close()
        logits[wrong] = exact(x[wrong])

    def timed(self, x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The same logits, and the nanoseconds of each layer, (n, layers), by the clock of the thread that calls.

        Logits that are not finite, because the precision ends early, stay so: nothing is computed again in fp32. One
        image after another, all of a call's threads on each: what several images at once would take is not told.
        Raises as a call does.
        """
        images = self._images(x)
        logits = np.empty((images, self.architecture.classes), np.float32)
        nanoseconds = np.empty((images, self.layers), np.int64)
        call = object()
        try:
            handle = self._begin(call)
            for at in range(images):
                one = slice(at, at + 1)
                self._profile(handle, x[one].ctypes.data, 1, logits[one].ctypes.data, nanoseconds[one].ctypes.data)
        finally:
            self._calls.pop(call, None)
            self._ended()
        return logits, nanoseconds

    def close(self) -> None:
        """Gives threads and memory back, once all calls that have begun are done; a second time does nothing.

        A signal's handler that has interrupted a call cannot wait for it: that call then does it, when it is done.
        """
        if os.getpid() == self._process:  # a fork has copied the calls, and none of their threads
            self._handle = None
            while set(self._calls.values()) - {get_ident()}:
                time.sleep(CLOSING)
            if self._calls:
                return
        self._release()

    def _ended(self) -> None:
        """Does what `close` has left to the last call."""
        if self._handle is None and not self._calls:
            self._release()

    def _release(self) -> None:
        self._free()
        for other in self._instead.values():
            other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _images(self, x: npt.NDArray[np.float32]) -> int:
        """How many, if they are what the network sees."""
        wanted = self.architecture.channels, *self.architecture.resolution
        if not isinstance(x, np.ndarray) or x.dtype != np.float32:
            found = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
            raise UserError(f"images are a numpy array of float32, not {found}")
        if x.shape[1:] != wanted:
            shape = ", ".join(map(str, wanted))
            raise UserError(f"images of {self.architecture.name} are (n, {shape}), not {x.shape}")
        if not (x.flags.c_contiguous and x.flags.aligned):
            raise UserError('images lie in memory with gaps; take np.require(x, requirements=["C", "A"])')
        return len(x)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an engine has threads and memory of its own and cannot be copied; make another of the plan")

    def _begin(self, call: object) -> int:
        if os.getpid() != self._process:
            raise UserError(f"{self.architecture.name}: the engine is another process's; make one in this process")
        self._calls[call] = get_ident()
        handle = self._handle
        if handle is None:
            raise UserError(f"{self.architecture.name}: the engine is closed; make another")
        return handle


def _check(threads: int, streams: int) -> None:
    for name, value in (("threads", threads), ("streams", streams)):
        if type(value) is not int or not 1 <= value <= MOST:
            raise UserError(f"{name} must be a whole number from 1 to {MOST:,}, not {value!r}")


def _cores() -> npt.NDArray[np.int64]:
    """Those this process may run on."""
    if not hasattr(os, "sched_getaffinity"):
        raise UserError("pin=True: threads can be kept on cores under Linux only; leave it out")
    return np.array(sorted(os.sched_getaffinity(0)), np.int64)


def _destroy(native: ctypes.CDLL, handle: int, process: int) -> None:
    # A copy of the process has none of the engine's threads: there is nobody to be told to end.
    if os.getpid() == process:
        native.triscale_engine_destroy(handle)
