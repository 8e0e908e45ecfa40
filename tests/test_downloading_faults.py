"""Downloads that cannot succeed: what never comes, what is refused, what the disk refuses."""

import socket
import urllib.request
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from web import CONTENT, WAY, Server, digest, leave_part, names, start_process

from triscale.errors import TriscaleError, UserError
from triscale.weights import downloading, parts
from triscale.weights.downloading import download

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
