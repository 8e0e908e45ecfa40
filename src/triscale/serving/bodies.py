"""Bodies of requests as they arrive: never more than may be held, never for longer than may be waited."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from triscale.serving.limits import Limits
from triscale.serving.refusing import GoneError, RefusedError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass(slots=True, eq=False)
class _Reader:
    """One body. ended: why it was told to end, where it was."""

    patience: asyncio.Timeout
    held: int = 0
    complete: bool = False
    ended: bool = False
    content: bytearray = field(default_factory=bytearray)


class Bodies:
    """All bodies that are held at the moment."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._readers: dict[int, _Reader] = {}  # in the order in which they began
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of all of them together."""
        return self._held

    @asynccontextmanager
    async def reading(self, length: str | None, receive: Receive) -> AsyncIterator[bytearray]:
        """A body, whole. length: what the request says of it, if anything.

        Raises `RefusedError`: 413 as soon as it is known to be too large, 408 where it has not arrived in time, 503
        where all bodies together are too much and it has been arriving for longest; `GoneError`.
        """
        if length is not None and length.isdecimal() and int(length) > self._limits.body:
            raise self._too_large()
        reader = _Reader(asyncio.timeout(self._limits.arrival))
        self._readers[id(reader)] = reader
        try:
            await self._read(reader, receive)
            reader.complete = True
            yield reader.content
        finally:
            del self._readers[id(reader)]
            self._held -= reader.held

    async def _read(self, reader: _Reader, receive: Receive) -> None:
        try:
            async with reader.patience:
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    self._take(reader, message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            if reader.ended:
                raise RefusedError(503, "too many requests are being sent at once; ask again", again=1) from None
            raise RefusedError(
                408, f"the body had not arrived after {self._limits.arrival:g} s; send it faster, or a smaller one"
            ) from None

    def _take(self, reader: _Reader, piece: bytes) -> None:
        reader.held += len(piece)
        self._held += len(piece)
        if reader.held > self._limits.body:
            raise self._too_large()
        if self._held > self._limits.bodies:
            self._end_slowest()
        reader.content += piece

    def _end_slowest(self) -> None:
        """Of the bodies that still arrive the first gives way: whoever sends at a usual speed is done before that."""
        for reader in self._readers.values():
            if not (reader.complete or reader.ended or reader.patience.expired()):
                reader.ended = True
                reader.patience.reschedule(asyncio.get_running_loop().time())
                return

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the body is larger than {self._limits.body:,} bytes; send a smaller picture")
