"""One process that serves: a socket, uvicorn within the limits, and an end at which everybody has an answer."""

import asyncio
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI

from triscale.errors import UserError
from triscale.serving.addresses import application
from triscale.serving.connections import protocol
from triscale.serving.guarding import LOCAL, State
from triscale.serving.limits import Limits
from triscale.serving.opening import Served
from triscale.serving.tokens import Token

SPARE = 64  # files that are open for other things than connections
HEAD = 16_384  # bytes of a request's head


class Ended(NamedTuple):
    """signal: which ended it. unanswered: requests that had begun and got no answer; None where that is not known."""

    signal: int
    unanswered: int | None


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises `UserError`."""
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: is not from 0 to {2**16 - 1}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port}: cannot be listened at ({why}); name another, or --port 0"
        ) from None


def serve(
    served: Served,
    limits: Limits,
    listening: socket.socket,
    *,
    token: Token | None = None,
    host: str = LOCAL,
    started: Callable[[], None] = lambda: None,
) -> Ended:
    """Answers until SIGINT or SIGTERM, and then until all requests that had begun are answered.

    Meanwhile, for at most arrival + deadline seconds, others are told to go elsewhere (503). A second signal ends it at
    once. host: see `application`. started: is called when requests are answered.
    """
    server = Server(served, limits, token=token, host=host, started=started)
    server.run([listening])
    return Ended(server.signal, server.unanswered)


class Server(uvicorn.Server):
    """uvicorn's within the limits, but that at its end it goes on listening until all are answered, to say no to
    others."""

    def __init__(
        self,
        served: Served,
        limits: Limits,
        *,
        token: Token | None = None,
        host: str = LOCAL,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        limits = replace(limits, connections=min(limits.connections, _most_connections()))
        self._state = State()
        super().__init__(_config(application(served, limits, token=token, state=self._state, host=host), limits))
        self.signal = 0
        self._patience, self._announce, self._until = limits.arrival + limits.deadline, started, 0.0

    @property
    def unanswered(self) -> int:
        """Requests that had begun and were given up, once it has ended."""
        return self._state.lost

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says so once it is done."""
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, a second one is it."""
        if self._state.draining:
            self.should_exit = self.force_exit = True
        self.signal = self.signal or sig
        self._state.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether it is over."""
        over = await super().on_tick(counter)
        if self._state.draining and not self._until:
            self._until = asyncio.get_running_loop().time() + self._patience
            return False  # whoever connected before the signal still gets their answer
        done = self._state.begun == 0 or asyncio.get_running_loop().time() > self._until
        return over or (self._state.draining and done)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, without raising them again: whoever called decides what they mean."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _config(app: FastAPI, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",  # reads as little at a time as the protocol says
        http=protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=2 * limits.connections,  # the protocol's own limit comes first, and says more
        timeout_keep_alive=max(1, round(limits.head)),
        h11_max_incomplete_event_size=HEAD,
        timeout_graceful_shutdown=max(1, round(limits.deadline)),
    )


def _most_connections() -> int:
    """As many as this process may have files open, but for some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else max(1, soft - SPARE)
