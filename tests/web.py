"""A server on this machine that misbehaves on demand, and what tests of downloads do with it."""

import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from triscale.weights.downloading import download

CONTENT = bytes(range(256)) * 4000  # 1.024 MB
OTHER = CONTENT[::-1]
DATE = "Mon, 01 Jan 2024 00:00:00 GMT"
WAY = "fetch it on another machine"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Asked:
    """One request, and how many bytes of content answered it."""

    range: str | None
    if_range: str | None
    agent: str | None
    sent: int = 0


@dataclass
class Manners:
    """How the server answers; the defaults are those of a good one."""

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    status: int = 200
    times: int = 1_000_000  # how often that status is the answer
    location: str | None = None
    length: bool = True
    ranges: bool = True
    if_ranges: bool = True
    range_start: int | None = None  # where a 206 begins, whatever was asked
    range_total: bool = True  # whether a 206 says how long the whole is
    range_most: int | None = None  # bytes a 206 gives at most
    mute: int = 0  # how many requests are hung up on without an answer
    drop_after: int | None = None
    drops: int = 1_000_000  # how often; the rest is answered well
    reset: bool = False
    hang_after: int | None = None
    pause: float = 0.0  # seconds after every 64 kB
    endless: bool = False


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.manners = Manners()
        self.asked: list[Asked] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.bin"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that leave are what these tests are about


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        manners = self.server.manners
        asked = Asked(*(self.headers.get(name) for name in ("Range", "If-Range", "User-Agent")))
        self.server.asked.append(asked)
        if manners.mute > 0:
            manners.mute -= 1
            return None
        if manners.status != 200 and manners.times > 0:
            manners.times -= 1
            return self._refuse(manners)
        start = self._start(manners)
        if start is not None and start >= len(manners.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(manners.content)}")
            return self.end_headers()
        body = self._head(manners, start)
        return self._send(manners, body, asked)

    def _refuse(self, manners: Manners) -> None:
        self.send_response(manners.status)
        if manners.location is not None:
            self.send_header("Location", manners.location)
        self.end_headers()
        while manners.endless:
            self.wfile.write(b"x" * 65536)

    def _start(self, manners: Manners) -> int | None:
        asked = re.fullmatch("bytes=([0-9]+)-", self.headers.get("Range", ""))
        known = self.headers.get("If-Range") in (None, *manners.headers.values()) or not manners.if_ranges
        if asked is None or not manners.ranges or not known:
            return None
        return int(asked[1]) if manners.range_start is None else manners.range_start

    def _head(self, manners: Manners, start: int | None) -> bytes:
        body = manners.content[start or 0 :]
        if start is None:
            self.send_response(200)
        else:
            body = body[: manners.range_most]
            self.send_response(206)
            total = len(manners.content) if manners.range_total else "*"
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
        for name, value in manners.headers.items():
            self.send_header(name, value)
        if manners.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def _send(self, manners: Manners, body: bytes, asked: Asked) -> None:
        stop = manners.hang_after
        if manners.drop_after is not None and manners.drops > 0:
            manners.drops -= 1
            stop = manners.drop_after
        body = body[:stop]
        for first in range(0, len(body), 65536):
            self.wfile.write(body[first : first + 65536])
            asked.sent += len(body[first : first + 65536])
            if manners.pause:
                time.sleep(manners.pause)
        while manners.endless:
            self.wfile.write(b"x" * 65536)
        if manners.hang_after is not None:
            self.server.over.wait(20)
        if manners.reset and stop is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir()) if place.parent.exists() else []


def part_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.part")


def leave_part(server: Server, place: Path, size: int = 300_000) -> None:
    """What an interrupted download leaves: the first `size` bytes, and the note beside them."""

    def interrupted(done: int, total: int | None) -> None:
        if done >= size:
            raise KeyboardInterrupt

    server.manners.hang_after = size
    with pytest.raises(KeyboardInterrupt):
        download(server.url, place, sha256=digest(server.manners.content), progress=interrupted)
    server.manners.hang_after = None
    assert part_of(place).read_bytes() == server.manners.content[:size]
    server.asked.clear()


def start_process(server: Server, place: Path, before: str = "") -> subprocess.Popen[str]:
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from triscale.errors import TriscaleError; from triscale.weights.downloading import download\n"
        f"{before}\n"
        "try: download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])\n"
        "except TriscaleError as error: print(error); sys.exit(7)\n"
    )
    source = str(Path(__file__).parent.parent / "src")
    return subprocess.Popen(
        [sys.executable, "-c", script, server.url, str(place), digest(CONTENT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"},
    )
