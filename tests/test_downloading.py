"""Downloads against a real server on this machine, which misbehaves on demand."""

import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from triscale.errors import TriscaleError, UserError
from triscale.weights import downloading, parts
from triscale.weights.downloading import cache_directory, download

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.bin"


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


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("never came true")


# What comes


def test_the_content_comes_whole_and_nothing_else_stays(server: Server, place: Path) -> None:
    assert download(server.url, place, sha256=digest(CONTENT), size=len(CONTENT)) == place
    assert place.read_bytes() == CONTENT
    assert names(place) == ["weights.bin"]
    assert server.asked == [Asked(None, None, "triscale", len(CONTENT))]


def test_a_download_is_as_readable_as_any_other_file(server: Server, place: Path) -> None:
    download(server.url, place, sha256=digest(CONTENT))
    (place.parent / "plain").write_text("x")
    assert place.stat().st_mode == (place.parent / "plain").stat().st_mode


@pytest.mark.parametrize("digits", [8, 16, 64])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_the_first_digits_of_a_checksum_are_enough(
    server: Server, place: Path, digits: int, case: Callable[[str], str]
) -> None:
    download(server.url, place, sha256=case(digest(CONTENT)[:digits]))
    assert place.read_bytes() == CONTENT


def test_the_content_is_forced_to_disk_before_it_gets_its_name(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced.append(f"{os.fstat(handle).st_size} {place.exists()}")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    download(server.url, place, sha256=digest(CONTENT))
    assert f"{len(CONTENT)} False" in synced
    assert synced[-1].endswith("True")  # the directory, after the renaming


def test_an_empty_file_is_a_file(server: Server, place: Path) -> None:
    server.manners.content = b""
    download(server.url, place, sha256=digest(b""))
    assert place.read_bytes() == b""
    assert names(place) == ["weights.bin"]


def test_progress_counts_up_to_the_whole(server: Server, place: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(server.url, place, sha256=digest(CONTENT), progress=lambda *step: seen.append(step))
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


@pytest.mark.parametrize("size", [None, 1_000_000])
def test_where_the_server_gives_no_length_progress_counts_against_what_is_known(
    server: Server, place: Path, size: int | None
) -> None:
    server.manners.length = False
    seen: list[tuple[int, int | None]] = []
    download(server.url, place, sha256=digest(CONTENT), size=size, progress=lambda *step: seen.append(step))
    assert place.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), size)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/elsewhere.bin", None])
def test_a_redirect_within_the_web_is_followed(server: Server, place: Path, status: int, location: str | None) -> None:
    server.manners.status, server.manners.times = status, 2
    server.manners.location = location or server.url
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT


# What lies there already


def test_what_is_there_already_needs_no_network(place: Path) -> None:
    place.parent.mkdir()
    place.write_bytes(CONTENT)
    assert download("http://127.0.0.1:1/weights.bin", place, sha256=digest(CONTENT)[:8]) == place
    assert names(place) == ["weights.bin"]


def test_what_lies_there_with_another_checksum_is_replaced(server: Server, place: Path) -> None:
    place.parent.mkdir()
    place.write_bytes(OTHER)
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT


def test_what_lies_there_stays_where_nothing_better_comes(server: Server, place: Path) -> None:
    place.parent.mkdir()
    place.write_bytes(b"mine")
    server.manners.status = 404
    with pytest.raises(TriscaleError, match="404"):
        download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == b"mine"
    assert names(place) == ["weights.bin"]


def test_content_with_another_checksum_is_not_kept(server: Server, place: Path) -> None:
    server.manners.content = OTHER
    with pytest.raises(TriscaleError, match="nothing of it was kept") as raised:
        download(server.url, place, sha256=digest(CONTENT), otherwise=WAY)
    assert digest(OTHER) in str(raised.value)
    assert digest(CONTENT) in str(raised.value)
    assert names(place) == []


# What is interrupted


def test_an_interruption_leaves_what_had_come_and_the_next_call_fetches_the_rest(server: Server, place: Path) -> None:
    leave_part(server, place)
    seen: list[tuple[int, int | None]] = []
    download(server.url, place, sha256=digest(CONTENT), progress=lambda *step: seen.append(step))
    assert place.read_bytes() == CONTENT
    assert server.asked == [Asked("bytes=300000-", '"one"', "triscale", len(CONTENT) - 300_000)]
    assert seen[0] == (300_000, len(CONTENT))
    assert names(place) == ["weights.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_process_loses_nothing_that_had_come(server: Server, place: Path) -> None:
    server.manners.hang_after = 500_000
    process = start_process(server, place)
    wait_for(lambda: part_of(place).exists() and part_of(place).stat().st_size == 500_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not place.exists()
    server.manners.hang_after = None
    server.asked.clear()
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [(asked.range, asked.sent) for asked in server.asked] == [("bytes=500000-", len(CONTENT) - 500_000)]


@pytest.mark.parametrize("reset", [False, True])
def test_a_dropped_connection_is_tried_again_from_where_it_ended(server: Server, place: Path, reset: bool) -> None:
    server.manners.drop_after, server.manners.drops, server.manners.reset = 200_000, 2, reset
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert server.asked[-1].range is not None


@pytest.mark.parametrize(("mute", "comes"), [(2, True), (3, False)])
def test_a_connection_without_an_answer_is_tried_again_and_not_for_ever(
    server: Server, place: Path, mute: int, comes: bool
) -> None:
    server.manners.mute = mute
    if comes:
        download(server.url, place, sha256=digest(CONTENT))
        assert place.read_bytes() == CONTENT
    else:
        with pytest.raises(TriscaleError, match="the connection ended before an answer came"):
            download(server.url, place, sha256=digest(CONTENT))
        assert names(place) == []
    assert len(server.asked) == 3


def test_a_connection_that_always_ends_early_says_how_much_arrived_and_what_goes_on(
    server: Server, place: Path
) -> None:
    server.manners.drop_after = 100_000
    with pytest.raises(TriscaleError) as raised:
        download(server.url, place, sha256=digest(CONTENT))
    assert "300 kB of 1.024 MB arrived" in str(raised.value)
    assert "the same command goes on from there" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert names(place) == ["weights.bin.part", "weights.bin.part.json"]
    server.manners.drop_after = None
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert sum(asked.sent for asked in server.asked) == len(CONTENT)


def test_a_part_that_cannot_be_gone_on_with_is_neither_promised_nor_kept(server: Server, place: Path) -> None:
    server.manners.drop_after, server.manners.headers = 100_000, {}
    with pytest.raises(TriscaleError, match="nothing of it was kept"):
        download(server.url, place, sha256=digest(CONTENT))
    assert names(place) == []


def test_a_server_that_falls_silent_is_left_and_what_had_come_is_kept(server: Server, place: Path) -> None:
    server.manners.hang_after = 100_000
    with pytest.raises(
        TriscaleError, match=r"nothing came for 200 ms: 100 kB of 1\.024 MB arrived.*100 kB of it are kept"
    ):
        download(server.url, place, sha256=digest(CONTENT), timeout=0.2)
    server.manners.hang_after = None
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_server_that_never_answers_is_left(place: Path, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(TriscaleError, match="no network: timed out"):
            download(url, place, sha256=digest(CONTENT), timeout=0.1)


@pytest.mark.parametrize("headers", [{"ETag": '"two"'}, {"ETag": 'W/"one"', "Last-Modified": DATE}, {}])
@pytest.mark.parametrize("if_ranges", [True, False])
def test_a_file_that_changed_in_between_is_never_glued_together(
    server: Server, place: Path, headers: dict[str, str], if_ranges: bool
) -> None:
    leave_part(server, place)
    server.manners = Manners(OTHER + b"longer", headers, if_ranges=if_ranges)
    download(server.url, place, sha256=digest(OTHER + b"longer"))
    assert place.read_bytes() == OTHER + b"longer"
    assert names(place) == ["weights.bin"]


def test_a_file_of_the_same_length_with_another_etag_starts_again(server: Server, place: Path) -> None:
    leave_part(server, place)
    server.manners = Manners(OTHER, {"ETag": '"two"'}, if_ranges=False)
    download(server.url, place, sha256=digest(OTHER))
    assert place.read_bytes() == OTHER
    assert [asked.range is None for asked in server.asked] == [False, True]


def test_the_note_of_an_old_part_never_stands_beside_new_content(server: Server, place: Path) -> None:
    leave_part(server, place)
    server.manners = Manners(OTHER, {}, drop_after=100_000)
    with pytest.raises(TriscaleError, match="nothing of it was kept"):
        download(server.url, place, sha256=digest(OTHER))
    assert names(place) == []


def test_a_rest_of_a_whole_of_unknown_length_is_fetched_to_its_end(server: Server, place: Path) -> None:
    server.manners.length = False
    leave_part(server, place)
    server.manners.length, server.manners.range_total = True, False
    server.manners.drop_after, server.manners.drops = 100_000, 1
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == ["bytes=300000-", "bytes=400000-"]


def test_without_an_etag_the_date_of_the_last_change_holds_the_parts_together(server: Server, place: Path) -> None:
    server.manners.headers = {"ETag": 'W/"weak"', "Last-Modified": DATE}
    leave_part(server, place)
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [(asked.range, asked.if_range) for asked in server.asked] == [("bytes=300000-", DATE)]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_where_nothing_names_the_content_a_download_starts_again(
    server: Server, place: Path, headers: dict[str, str]
) -> None:
    server.manners.headers = headers
    server.manners.drop_after, server.manners.drops = 100_000, 1
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == [None, None]


def test_a_server_that_knows_no_ranges_starts_again(server: Server, place: Path) -> None:
    leave_part(server, place)
    server.manners.ranges = False
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.sent for asked in server.asked] == [len(CONTENT)]


def test_a_range_that_was_not_asked_for_starts_again(server: Server, place: Path) -> None:
    leave_part(server, place)
    server.manners.range_start = 1000
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert server.asked[-1].range is None


def test_a_server_that_gives_less_than_the_rest_is_asked_again(server: Server, place: Path) -> None:
    leave_part(server, place)
    server.manners.range_most = 400_000
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.sent for asked in server.asked] == [400_000, 324_000]


def test_a_part_that_is_longer_than_the_file_starts_again(server: Server, place: Path) -> None:
    leave_part(server, place)
    with part_of(place).open("ab") as file:
        file.write(bytes(len(CONTENT)))
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.range is None for asked in server.asked] == [False, True]


def test_a_part_that_only_lacked_the_renaming_needs_no_network(server: Server, place: Path) -> None:
    leave_part(server, place)
    part_of(place).write_bytes(CONTENT)
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert server.asked == []


def test_a_part_that_was_spoiled_is_found_out_and_the_next_call_starts_again(server: Server, place: Path) -> None:
    leave_part(server, place)
    part_of(place).write_bytes(bytes(300_000))
    with pytest.raises(TriscaleError, match="nothing of it was kept"):
        download(server.url, place, sha256=digest(CONTENT))
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        "\udcff",
        '{"url": 1}',
        r'{"url": "URL", "validator": "a\r\nb: c", "total": 1}',
        r'{"url": "URL", "validator": "\"one\"", "total": "1"}',
        r'{"url": "http://other", "validator": "\"one\"", "total": 1024000}',
    ],
)
def test_a_part_with_a_damaged_note_starts_again(server: Server, place: Path, note: str) -> None:
    leave_part(server, place)
    text = note.replace("URL", server.url).encode(errors="surrogateescape")
    part_of(place).with_name("weights.bin.part.json").write_bytes(text)
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == [None]
    assert names(place) == ["weights.bin"]


# What never comes


def test_without_a_network_the_error_says_what_to_do(server: Server, place: Path) -> None:
    with pytest.raises(TriscaleError) as raised:
        download("http://127.0.0.1:1/x", place, sha256=digest(CONTENT), name="torchvision/x", otherwise=WAY)
    assert str(raised.value) == f"torchvision/x could not be downloaded (no network: Connection refused); {WAY}"
    assert not isinstance(raised.value, UserError)
    assert names(place) == []


def test_a_host_that_nobody_knows_is_no_network(server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TriscaleError, match=r"\(no network: Name or service not known\); fetch"):
        download("https://nowhere.invalid/x", place, sha256=digest(CONTENT), otherwise=WAY)


def test_a_proxy_that_refuses_is_named(server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.manners.status = 403
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(TriscaleError, match=r"the answer was 403 Forbidden\); fetch"):
        download("http://nowhere.invalid/x", place, sha256=digest(CONTENT), otherwise=WAY)
    assert len(server.asked) == 1


def test_a_proxy_that_refuses_a_tunnel_is_no_network(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    # The server knows no CONNECT.
    with pytest.raises(TriscaleError, match="no network: Tunnel connection failed: 501"):
        download("https://nowhere.invalid/x", place, sha256=digest(CONTENT))


def test_a_connection_that_cannot_be_made_secure_is_told_from_no_network(server: Server, place: Path) -> None:
    with pytest.raises(TriscaleError, match="no secure connection"):
        download(server.url.replace("http:", "https:"), place, sha256=digest(CONTENT))


def test_without_a_network_what_had_come_is_kept_and_said(server: Server, place: Path) -> None:
    leave_part(server, place)
    server.manners.status = 500
    with pytest.raises(
        TriscaleError, match=r"500 Internal Server Error\); 300 kB of it are kept, and the same.*; fetch"
    ):
        download(server.url, place, sha256=digest(CONTENT), otherwise=WAY)
    server.manners.status = 200
    download(server.url, place, sha256=digest(CONTENT))
    assert [asked.range for asked in server.asked] == ["bytes=300000-"] * 2


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (500, "500 Internal"), (204, "204 No Content")])
def test_an_answer_without_the_content_is_named(server: Server, place: Path, status: int, words: str) -> None:
    server.manners.status = status
    with pytest.raises(TriscaleError, match=f"the answer was {words}"):
        download(server.url, place, sha256=digest(CONTENT))
    assert names(place) == []
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:port/x", "http:///x"]
)
def test_a_redirect_out_of_the_web_is_refused(server: Server, place: Path, location: str) -> None:
    server.manners.status, server.manners.location = 302, location
    with pytest.raises(TriscaleError, match=f"302 Found to '{location}', which is not followed"):
        download(server.url, place, sha256=digest(CONTENT))
    assert names(place) == []


def test_a_redirect_in_a_circle_ends(server: Server, place: Path) -> None:
    server.manners.status, server.manners.location = 302, server.url
    with pytest.raises(TriscaleError, match="302 Found"):
        download(server.url, place, sha256=digest(CONTENT))
    assert len(server.asked) < 20


def test_what_is_sent_beyond_a_redirect_or_beyond_the_content_is_not_read(server: Server, place: Path) -> None:
    server.manners.status, server.manners.times, server.manners.location = 302, 1, "/elsewhere.bin"
    server.manners.endless = True
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize("onward", ["http://host/x", "https://host/x"])
def test_a_secure_connection_is_never_given_up_for_an_open_one(onward: str) -> None:
    request, headers = urllib.request.Request("https://host/y"), HTTPMessage()
    follow = downloading._WebRedirects().redirect_request
    if onward.startswith("https"):
        followed = follow(request, BytesIO(), 302, "Found", headers, onward)
        assert followed is not None
        assert followed.full_url == onward
    else:
        with pytest.raises(HTTPError, match="302"):
            follow(request, BytesIO(), 302, "Found", headers, onward)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "data:,x", "weights.bin", "", "http://", "https:///x", "http://host:port/",
     "http://[/", "http://host/a b", "http://host/\n", "http://host/ä", "http://a..b/"],
)  # fmt: skip
def test_only_web_addresses_are_asked(place: Path, url: str) -> None:
    with pytest.raises(UserError, match="not a web address") as raised:
        download(url, place, sha256=digest(CONTENT))
    assert repr(url) in str(raised.value)
    assert not place.parent.exists()


@pytest.mark.parametrize("sha256", ["", "1234567", "0" * 65, "no digest", "0" * 8 + "\n"])
def test_a_checksum_that_checks_nothing_is_refused(place: Path, sha256: str) -> None:
    with pytest.raises(UserError, match="sha256"):
        download("http://127.0.0.1:1/x", place, sha256=sha256)


def test_a_server_that_sends_without_end_does_not_fill_the_disk(server: Server, place: Path) -> None:
    server.manners.endless, server.manners.length = True, False
    most = 0

    def watch(done: int, _: int | None) -> None:
        nonlocal most
        most = done

    with pytest.raises(TriscaleError, match=r"at most 2\.1 MB were expected\); nothing of it was kept"):
        download(server.url, place, sha256=digest(CONTENT), size=1_000_000, progress=watch)
    assert most <= 2_100_000
    assert names(place) == []


def test_a_file_that_announces_too_much_is_not_begun(server: Server, place: Path) -> None:
    server.manners.content = bytes(1_200_000)
    with pytest.raises(TriscaleError, match=r"1\.2 MB or more, where at most 1\.11 MB"):
        download(server.url, place, sha256=digest(CONTENT), size=100_000)
    assert names(place) == []


def test_without_a_size_four_gigabytes_are_the_most(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts._MOST == 4_000_000_000
    monkeypatch.setattr(parts, "_MOST", 1_000_000)
    with pytest.raises(TriscaleError, match="at most 1 MB were expected"):
        download(server.url, place, sha256=digest(CONTENT))


# What the disk refuses


def test_a_disk_that_fills_up_keeps_what_had_come(server: Server, place: Path) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    process = start_process(server, place, limit)
    out, err = process.communicate()
    assert process.returncode == 7, err
    assert f"{place}: could not be written (File too large); 300 kB of it are kept" in out
    assert "TRISCALE_CACHE" in out
    server.asked.clear()
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == ["bytes=300000-"]


def test_a_directory_that_cannot_be_made_is_named_before_anything_is_asked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TriscaleError, match=r"weights\.bin: could not be written \(.*TRISCALE_CACHE"):
        download(server.url, tmp_path / "file" / "cache" / "weights.bin", sha256=digest(CONTENT))
    assert server.asked == []


def test_a_place_that_is_a_directory_is_named_before_anything_is_asked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TriscaleError, match="could not be read"):
        download(server.url, tmp_path, sha256=digest(CONTENT))
    assert server.asked == []


def test_a_refused_renaming_keeps_what_had_come(server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        # Only the part's renaming: its note is written by renaming too.
        replace = Path.replace
        patched.setattr(Path, "replace", lambda path, to: (refused if path.suffix == ".part" else replace)(path, to))
        with pytest.raises(TriscaleError, match="Permission denied"):
            download(server.url, place, sha256=digest(CONTENT))
    server.asked.clear()
    download(server.url, place, sha256=digest(CONTENT))
    assert place.read_bytes() == CONTENT
    assert server.asked == []


# Two at once


def test_two_processes_that_want_one_file_fetch_it_once(server: Server, place: Path) -> None:
    server.manners.pause = 0.01
    processes = [start_process(server, place) for _ in range(2)]
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert place.read_bytes() == CONTENT
    assert sum(asked.sent for asked in server.asked) == len(CONTENT)
    assert names(place) == ["weights.bin"]


def in_threads(server: Server, place: Path, count: int, content: Callable[[int], bytes]) -> list[BaseException]:
    errors: list[BaseException] = []

    def one(index: int) -> None:
        try:
            download(server.url, place, sha256=digest(content(index)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_who_waits_for_another_goes_on_where_that_one_failed(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_POLL", 0.001)
    server.manners.drop_after, server.manners.drops, server.manners.pause = 100_000, 4, 0.005
    errors = in_threads(server, place, 3, lambda _: CONTENT)
    assert len(errors) == 1
    assert place.read_bytes() == CONTENT
    assert sum(asked.sent for asked in server.asked) == len(CONTENT)


def test_those_that_want_different_content_at_one_place_never_mix_it(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_POLL", 0.001)
    errors = in_threads(server, place, 6, lambda index: (CONTENT, OTHER)[index % 2])
    assert len(errors) == 3
    assert place.read_bytes() == CONTENT
    assert names(place) == ["weights.bin"]


def test_what_another_begins_after_the_renaming_is_left_alone(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "sync_directory", lambda _: part_of(place).write_bytes(b"theirs"))
    download(server.url, place, sha256=digest(CONTENT))
    assert part_of(place).read_bytes() == b"theirs"


def test_who_waits_sees_how_far_the_other_is(server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_POLL", 0.001)
    fcntl = pytest.importorskip("fcntl")
    place.parent.mkdir()
    part_of(place).write_bytes(CONTENT[:1234])
    seen: list[int] = []
    with part_of(place).open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def watch(done: int, _: int | None) -> None:
            if not seen:
                fcntl.flock(other, fcntl.LOCK_UN)
            seen.append(done)

        download(server.url, place, sha256=digest(CONTENT), progress=watch)
    assert seen[0] == 1234
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize("missing", [True, False])
def test_where_files_cannot_be_locked_every_caller_has_a_part_of_its_own(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(37, "No locks available")

    if missing:
        monkeypatch.setattr(parts, "fcntl", None)
    else:
        monkeypatch.setattr(parts.fcntl, "flock", refused)
    server.manners.pause = 0.002
    assert in_threads(server, place, 3, lambda _: CONTENT) == []
    assert place.read_bytes() == CONTENT
    assert names(place) == ["weights.bin"]
    server.manners.drop_after = 100_000
    with pytest.raises(TriscaleError, match="nothing of it was kept"):
        download(server.url, place.with_name("second"), sha256=digest(CONTENT))
    assert names(place) == ["weights.bin"]


# Where it is kept


def test_the_cache_is_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TRISCALE_CACHE", "~/own")
    assert cache_directory() == tmp_path / "own"
    monkeypatch.setenv("TRISCALE_CACHE", "")
    assert cache_directory() == tmp_path / "xdg" / "triscale"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / ".cache" / "triscale"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("TRISCALE_CACHE")
    assert cache_directory() == tmp_path / ".cache" / "triscale"
    assert list(tmp_path.iterdir()) == []


def test_where_no_home_is_known_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TRISCALE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UserError, match="set TRISCALE_CACHE"):
        cache_directory()


def test_downloading_loads_no_torch() -> None:
    script = "import sys, triscale.weights.downloading; sys.exit('torch' in sys.modules)"
    source = Path(downloading.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
