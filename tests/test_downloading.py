"""Downloads from a real server on this machine: what comes, what lies there already, two at once, where it is kept."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from web import CONTENT, OTHER, WAY, Asked, Server, digest, names, part_of, start_process

from triscale.errors import TriscaleError, UserError
from triscale.weights import downloading, parts
from triscale.weights.downloading import cache_directory, download

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
