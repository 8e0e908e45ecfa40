"""What stands between the network and the application: who may ask what, and what every answer carries."""

import asyncio
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from triscale.serving.metrics import Metrics
from triscale.serving.refusing import RefusedError
from triscale.serving.tokens import Token

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})  # without a token
ALWAYS = frozenset({"/v2/health/live", "/v2/health/ready", "/metrics"})  # also while draining
LOCAL = "localhost"
LINGERS = 1.0  # seconds in which a sender may notice that it was answered before it was done
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(slots=True)
class State:
    """draining: no request begins any more. begun: requests that are being answered. lost: that were given up, because
    the server ended before their answer."""

    draining: bool = False
    begun: int = 0
    lost: int = 0


class Guard:
    """An application within its limits: refuses what may not be asked, counts, and ends each request properly.

    Where a request is answered before all of it has arrived, the rest is read and thrown away for a second: closing
    at once would throw away the answer on its way. token: None lets everybody ask who reaches this machine by one of
    its own names, which keeps pages of other sites out that have made their own name mean this machine. host:
    one more such name.
    """

    def __init__(self, app: App, *, token: Token | None, metrics: Metrics, state: State, host: str = LOCAL) -> None:
        self._app, self._token, self._metrics, self._state, self._host = app, token, metrics, state, host

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._state)
        started = time.perf_counter()
        self._state.begun += 1
        self._metrics.begin()
        try:
            try:
                self._check(scope["path"], exchange.headers)
            except RefusedError as refused:
                await exchange.refuse(refused)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            self._state.lost += not exchange.answered
            raise
        finally:
            self._state.begun -= 1
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.end(route, exchange.status, time.perf_counter() - started)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._state.draining and path not in ALWAYS:
            raise RefusedError(503, "the server is going down; ask another, or again later", again=5)
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin")
        if self._token is None and not _is_local(host, self._host):
            raise RefusedError(403, f"Host {host[:80]!r}: is not localhost, and others are answered with a token only")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            raise RefusedError(403, "a page of another site asked; only this server's own page may")
        if self._token is not None and path not in OPEN:
            said = headers.get(b"authorization")
            if not self._token.fits(None if said is None else said.decode("latin-1")):
                raise _UnknownError


def _is_local(host: str, also: str) -> bool:
    """Whether it is one of this machine's own names, with a port or without: no other site can have an address."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() in (LOCAL, also.lower()):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


class _UnknownError(RefusedError):
    """No token, or another one."""

    def __init__(self) -> None:
        super().__init__(401, "the token is missing or wrong; send it as Authorization: Bearer TOKEN")

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class _Exchange:
    """One request and its answer, as they pass by."""

    def __init__(self, scope: Message, receive: Receive, send: Send, state: State) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.status = 500  # of an answer that never began
        self.answered = False  # to its last byte
        self._receive, self._send, self._state = receive, send, state
        length = self.headers.get(b"content-length", b"0")
        self._arrived = b"transfer-encoding" not in self.headers and length.strip(b"0") == b""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._arrived = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            last = not self._arrived or self._state.draining
            extra: Iterable[tuple[bytes, bytes]] = (*_HEADERS, (b"connection", b"close")) if last else _HEADERS
            own = {name for name, _ in message["headers"]}
            await self._send(
                {**message, "headers": [*message["headers"], *(one for one in extra if one[0] not in own)]}
            )
        elif message["type"] != "http.response.body" or message.get("more_body", False):
            await self._send(message)
        elif self._arrived:
            await self._send(message)
            self.answered = True
        else:
            await self._send({**message, "more_body": True})
            self.answered = True
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refused: RefusedError) -> None:
        """Answers by itself."""
        body = json.dumps({"error": refused.reason}).encode() + b"\n"
        named = {**refused.headers, "content-type": "application/json", "content-length": str(len(body))}
        headers = [(name.encode(), value.encode()) for name, value in named.items()]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGERS):
                while not self._arrived:
                    await self.receive()
        except TimeoutError:
            pass
