"""A model that is known by heart, pictures for it, and servers of it in this process."""

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from signal import SIGTERM
from typing import Any, TypeVar

import httpx
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triscale.data import Preprocess
from triscale.serving import Limits, Served, application
from triscale.serving.guarding import State
from triscale.serving.running import Server, bind
from triscale.serving.tokens import Token

Result = TypeVar("Result")

LOOK = Preprocess((2, 2), 1, (0.0,), (1.0,))
PATIENCE = 60.0  # seconds: a busy machine is no failure


def brightness(x: Tensor) -> Tensor:
    """Logits 0 and eight times the mean: every gray has an answer of its own."""
    mean = x.mean((1, 2, 3))
    return torch.stack([torch.zeros_like(mean), 8 * mean], 1)


def known(logits: Callable[[Tensor], Tensor] = brightness) -> Served:
    return Served("known", ("dark", "bright"), LOOK, logits)


def gray(value: int, kind: str = "PNG") -> bytes:
    """A picture of one gray."""
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file, kind)
    return file.getvalue()


def bright(value: int) -> float:
    """What the known model says of a gray: how likely it is bright."""
    return float(torch.tensor([0.0, 8 * value / 255]).softmax(0)[1])


def said(answer: httpx.Response) -> float:
    """What an answer says of that."""
    assert answer.status_code == 200, answer.text
    return {one["name"]: one["probability"] for one in answer.json()["classes"]}["bright"]


class Gate:
    """The known model, but that it computes only while the gate is open. computed: images so far."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.computed: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        self.computed += [round(float(mean) * 255) for mean in x.mean((1, 2, 3))]
        return brightness(x)


def asking(
    served: Served,
    ask: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Result]],
    *,
    limits: Limits | None = None,
    token: Token | None = None,
    state: State | None = None,
) -> Result:
    """What comes of asking an application, without a network."""

    async def within() -> Result:
        app = application(served, limits or Limits(), token=token, state=state)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            return await ask(client)

    return asyncio.run(within())


HOME = "http://localhost"


@contextmanager
def serving(served: Served, limits: Limits | None = None, token: Token | None = None) -> Iterator[tuple[Server, int]]:
    """A server on a thread, and its port."""
    started = threading.Event()
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = Server(served, limits or Limits(), token=token, started=started.set)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert started.wait(PATIENCE)
            yield server, port
        finally:
            server.handle_exit(SIGTERM, None)
            thread.join(PATIENCE)
    assert not thread.is_alive()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        yield connection


def head(length: int | None = None, *more: str, path: str = "/predict", method: str = "POST") -> bytes:
    """A request's head, by hand."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *more]
    return "\r\n".join([*lines, *([] if length is None else [f"content-length: {length}"]), "", ""]).encode()


def everything(connection: socket.socket) -> bytes:
    """What the other side sends until it hangs up."""
    found = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            found += piece
    return found


def fetch(port: int, value: int) -> float:
    """Another user, asking properly."""
    return said(httpx.post(f"http://127.0.0.1:{port}/predict", content=gray(value), timeout=PATIENCE))


def get(path: str, served: Served | None = None, headers: dict[str, str] | None = None, **how: Any) -> httpx.Response:
    return asking(served or known(), lambda client: client.get(path, headers=headers), **how)


def post(path: str, content: bytes | str, served: Served | None = None, **how: Any) -> httpx.Response:
    headers = how.pop("headers", None)
    return asking(served or known(), lambda client: client.post(path, content=content, headers=headers), **how)


def error(answer: httpx.Response) -> str:
    """The one line of an answer that is none."""
    values = answer.json()
    assert list(values) == ["error"]
    assert values["error"]
    assert "\n" not in values["error"]
    return str(values["error"])
