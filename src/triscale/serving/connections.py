"""Connections that take forever do not: uvicorn's own protocol has no limit on how slowly a request may come."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from triscale.serving.guarding import LINGERS
from triscale.serving.limits import Limits

FREE_PIECES = 1000  # of a body, of any size
LEAST_PIECE = 64  # bytes on average, beyond: smaller ones cost more than they bring
PROMPT = 0.5  # seconds in which nobody has to give way: what they send may be here and not yet looked at
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]
_READ = 16_384  # bytes that one connection may bring before it is another's turn


class _Connection(h11.Connection):
    """Refuses a body in so many pieces that taking it apart would keep others waiting."""

    _pieces = _bytes = 0

    def next_event(self) -> _Event:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("two lengths, of which a proxy in between may believe the other")
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > FREE_PIECES and self._bytes < LEAST_PIECE * self._pieces:
                raise h11.RemoteProtocolError("the body comes in too small pieces")
        return event


class _Protocol(H11Protocol):
    """One connection. A head has `limits.head` seconds to arrive and an answer as long to be taken."""

    limits: Limits

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Connection(h11.SERVER, config.h11_max_incomplete_event_size or 16_384)
        self.since = self.loop.time()  # when what is awaited from the other side began
        self._end: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def is_owed(self) -> bool:
        """Whether its request has arrived whole, and the answer is under way."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    @property
    def is_closing(self) -> bool:
        """Whether its last bytes are on their way."""
        return bool(self.transport.is_closing())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does it for sockets that say they are TCP's, which those of `socket.create_server` do not. Without it
        # the second half of an answer waits for the first to be acknowledged: 40 ms.
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(transport, "max_size"):
            transport.max_size = _READ
        if len(self.connections) > self.limits.connections and not self._slowest_gives_way():
            transport.write(_plain(503, "Service Unavailable", "too many connections; try again", "retry-after: 1"))
            self._abort_soon(transport.close)
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._check_head()

    def on_response_complete(self) -> None:
        self._await_head(also=LINGERS)  # for uvicorn to close an idle connection properly before that
        super().on_response_complete()
        self._check_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._end, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The other side asks and does not read the answers: it has as long as for a head to go on."""
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(self.limits.head, self.abort)

    def resume_writing(self) -> None:
        """It reads."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        """In the words of every other refusal; where an answer has begun already, by hanging up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(_plain(400, "Bad Request", "this is no HTTP that can be understood"))
            self._abort_soon(self.transport.close)
        else:
            self.transport.abort()

    def abort(self) -> None:
        """Hangs up, whatever is still to be sent."""
        self.transport.abort()

    def _await_head(self, also: float = 0.0) -> None:
        """From now on there is so much time for the answer to be taken and the next head to arrive whole."""
        self.since = self.loop.time()
        if self._end is not None:
            self._end.cancel()
        self._end = self.loop.call_later(self.limits.head + also, self.abort)

    def _check_head(self) -> None:
        """Once a head is here, what follows has limits of its own. A request that arrived whole is not always DONE:
        not the last one of its connection, nor one that offers another protocol."""
        arrived = self.conn.their_state not in (h11.IDLE, h11.ERROR)
        if self._end is not None and arrived and not self.is_closing:
            self._end.cancel()
            self._end = None
            self.since = self.loop.time()

    def _abort_soon(self, first: Callable[[], None]) -> None:
        first()
        if self._end is not None:
            self._end.cancel()
        self._end = self.loop.call_later(LINGERS, self.abort)

    def _slowest_gives_way(self) -> bool:
        """Makes room: of the connections that owe us something, the one that has owed it for longest goes."""
        others = (one for one in self.connections if isinstance(one, _Protocol))
        slow = min((one for one in others if not one.is_owed), key=lambda one: one.since, default=self)
        if slow.since > self.loop.time() - PROMPT:
            return False
        self.connections.discard(slow)
        slow.abort()
        return True


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of connections within these limits."""
    return type("Protocol", (_Protocol,), {"limits": limits})


def _plain(status: int, phrase: str, reason: str, *headers: str) -> bytes:
    body = json.dumps({"error": reason}) + "\n"
    head = (f"HTTP/1.1 {status} {phrase}", "content-type: application/json", f"content-length: {len(body)}", *headers)
    return "\r\n".join((*head, "connection: close", "", body)).encode()
