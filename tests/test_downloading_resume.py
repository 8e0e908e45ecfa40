"""Downloads that are interrupted: what had come is kept, and gone on with only where it is the same file's."""

import signal
import socket
import sys
from pathlib import Path

import pytest
from waiting import until
from web import CONTENT, DATE, OTHER, Asked, Manners, Server, digest, leave_part, names, part_of, start_process

from triscale.errors import TriscaleError
from triscale.weights.downloading import download


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
    until(lambda: part_of(place).exists() and part_of(place).stat().st_size == 500_000)
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
