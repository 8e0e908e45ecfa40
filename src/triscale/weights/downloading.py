"""Published weights, fetched when asked: resumed where they stopped, checked, and in place whole or not at all.

Here the web is asked, the answer received, and what arrived checked and renamed; `parts` is what lies there till then.
"""

import hashlib
import http.client
import os
import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from triscale.errors import TriscaleError, UserError
from triscale.runs.files import sync_directory
from triscale.units import format_bytes, format_seconds
from triscale.weights.parts import Order, Origin, Part, Progress, claimed

_CHUNK = 1 << 18
_TRIES = 3
_NOTHING = "nothing of it was kept"


def cache_directory() -> Path:
    """Where downloads are kept: $TRISCALE_CACHE, else $XDG_CACHE_HOME/triscale, else ~/.cache/triscale; not made here.

    Raises `UserError` where no home directory is known.
    """
    own, shared = os.environ.get("TRISCALE_CACHE"), Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if own:
            return Path(own).expanduser()
        # The XDG base directory specification: a relative path there is invalid and ignored.
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "triscale"
    except RuntimeError:
        place = own or "~/.cache/triscale"
        raise UserError(f"{place}: no home directory is known; set TRISCALE_CACHE to a directory") from None


def download(
    url: str,
    place: Path,
    *,
    sha256: str,
    size: int | None = None,
    progress: Progress | None = None,
    name: str | None = None,
    otherwise: str = "",
    timeout: float = 30.0,
) -> Path:
    """Brings what `url` publishes to `place` and returns that; without any network where it is there already.

    `sha256` is the digest in hexadecimal, or its first eight or more digits; what lies at `place` with another digest
    is replaced. `size`, in bytes, may be approximate: more than 1.1 times it and 1 MB (4 GB where it is not given) is
    refused. `progress` is called with the bytes that have arrived and the bytes of the whole, None where nobody knows.
    `timeout` is the longest silence, in seconds. `name` (the URL unless given) begins an error's line; `otherwise`, a
    way without this network, ends it.

    An interrupted download goes on at the next call, and one that another process has begun is waited for. Raises
    `UserError` for a URL or a checksum that cannot be, `TriscaleError` where the content cannot be had: the message
    says what was kept.
    """
    order = Order(url, place, sha256.lower(), size, progress, name or url, otherwise, timeout)
    _check(order)
    if order.is_met_by(place):
        return place
    with claimed(order) as part:
        # Another process may have brought it while this one waited.
        if not order.is_met_by(place):
            if not part.is_whole():
                _fetch(part)
            _settle(part)
    return place


def _check(order: Order) -> None:
    """Raises `UserError` for a URL or a checksum that cannot be."""
    if not _is_web(order.url):
        raise UserError(f"{order.url!r} is not a web address; give one that begins with https:// or http://")
    if not re.fullmatch("[0-9a-f]{8,64}", order.digest):
        raise UserError(f"sha256 {order.digest!r}: give the first 8 to 64 hexadecimal digits of the file's SHA-256")


class _BrokenError(Exception):
    """The connection ended before the file did; the message says how."""


class _UnfitError(Exception):
    """The server has nothing that fits behind the part."""


class _Answer(NamedTuple):
    """Where in the file its content begins, and the whole file's bytes where the server says."""

    response: http.client.HTTPResponse
    start: int
    total: int | None


def _fetch(part: Part) -> None:
    """Leaves the whole content in the part. Raises `TriscaleError`."""
    for left in reversed(range(_TRIES)):
        try:
            answer = _ask(part)
            with answer.response:
                return _receive(part, answer)
        except _BrokenError as broken:
            if not left:
                raise part.order.failure(str(broken), part.kept() or _NOTHING) from None
    return None


def _ask(part: Part) -> _Answer:
    origin = part.origin()
    if origin is not None:
        try:
            return _ask_for_rest(part, origin)
        except _UnfitError:
            part.forget()
    response = _open(part, {})
    if response.status != HTTPStatus.OK:
        response.close()
        raise part.order.failure(_said(response.status), "")
    return _Answer(response, 0, response.length)


def _ask_for_rest(part: Part, origin: Origin) -> _Answer:
    """Raises `_UnfitError` where the server has no rest, or one of something else."""
    have = part.bytes()
    response = _open(part, {"Range": f"bytes={have}-", "If-Range": origin.validator})
    if response.status == HTTPStatus.OK:
        return _Answer(response, 0, response.length)
    given = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)", response.headers.get("Content-Range", ""))
    total = int(given[2]) if given and given[2] != "*" else None
    fits = (
        response.status == HTTPStatus.PARTIAL_CONTENT
        and given is not None
        and int(given[1]) == have
        and (total is None or origin.total in (None, total))
        # Some servers know Range, but not If-Range.
        and _validator(response) in (None, origin.validator)
    )
    if not fits:
        response.close()
        raise _UnfitError
    end = None if response.length is None else have + response.length
    return _Answer(response, have, next((known for known in (total, origin.total, end) if known is not None), None))


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What names this very content; a weak ETag may stand for other bytes (RFC 9110, 13.1.5)."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _receive(part: Part, answer: _Answer) -> None:
    """Appends the content to the part. Raises `_BrokenError` where it ends early, `TriscaleError`."""
    order, done, total = part.order, answer.start, answer.total
    if total is not None and total > order.limit:
        raise _too_much(part, total)
    if not done:
        part.begin(_validator(answer.response), total)
    with order.writing():
        # Unbuffered: what has arrived is in the file, however the process ends.
        file = part.path.open("r+b", buffering=0)
    with file:
        file.seek(done)
        order.tell(done, total)
        while total is None or done < total:
            chunk = _read(part, answer, done)
            if not chunk:
                break
            if done + len(chunk) > order.limit:
                raise _too_much(part, done + len(chunk))
            with order.writing(part.kept):
                _write_all(file, chunk)
            done += len(chunk)
            order.tell(done, total)
    if total is not None and done < total:
        raise _BrokenError(_arrived("the connection ended", done, total))


def _read(part: Part, answer: _Answer, done: int) -> bytes:
    total = answer.total
    try:
        # read1 hands over what has come: read would hold it back, and lose it with the connection.
        return answer.response.read1(_CHUNK if total is None else min(_CHUNK, total - done))
    except TimeoutError:
        silence = f"nothing came for {format_seconds(part.order.timeout)}"
        raise part.order.failure(_arrived(silence, done, total), part.kept() or _NOTHING) from None
    except (OSError, http.client.HTTPException):
        raise _BrokenError(_arrived("the connection ended", done, total)) from None


def _write_all(file: IO[bytes], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _arrived(how: str, done: int, total: int | None) -> str:
    return f"{how}: {format_bytes(done)}{'' if total is None else f' of {format_bytes(total)}'} arrived"


def _too_much(part: Part, sent: int) -> TriscaleError:
    part.forget()
    sizes = f"{format_bytes(sent)} or more, where at most {format_bytes(part.order.limit)} were expected"
    return part.order.failure(f"the server sends {sizes}", _NOTHING)


def _settle(part: Part) -> None:
    """Checks the part and renames it into place. Raises `TriscaleError`."""
    order = part.order
    with order.writing(), part.path.open("r+b") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if not found.startswith(order.digest):
        part.forget()
        raise order.failure(f"its SHA-256 is {found}, expected {order.digest}", _NOTHING)
    with order.writing(part.kept):
        part.path.replace(order.place)
        part.forget()
        sync_directory(order.place.parent)


def _open(part: Part, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """The answer to one request, redirects followed. Raises `_UnfitError`, `_BrokenError`, `TriscaleError`."""
    order = part.order
    request = Request(order.url, headers={"User-Agent": "triscale", **headers})
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=order.timeout)
        return response
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            raise _UnfitError from None
        onward = error.headers.get("Location") if 300 <= error.code < 400 else None
        raise order.failure(_said(error.code, onward), part.kept()) from None
    except (ConnectionError, http.client.HTTPException):
        raise _BrokenError("the connection ended before an answer came") from None
    except OSError as error:
        raise order.failure(_unreached(error), part.kept()) from None


def _said(code: int, onward: str | None = None) -> str:
    answer = f"the answer was {code} {http.client.responses.get(code, '')}".rstrip()
    return answer if onward is None else f"{answer} to {onward!r}, which is not followed"


def _unreached(error: OSError) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    return f"{'no secure connection' if isinstance(reason, ssl.SSLError) else 'no network'}: {text}"


def _is_web(url: str) -> bool:
    """Whether it can be asked for: a host, a port that is a number, and printable ASCII."""
    try:
        parts = urlsplit(url)
        sound = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False
    return sound and parts.scheme in ("http", "https") and re.fullmatch("[!-~]+", url) is not None


class _WebRedirects(HTTPRedirectHandler):
    """Follows from web to web, and never from an encrypted connection to an open one."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        # The redirect's own content is read to its end otherwise, however long.
        fp.close()
        if not _is_web(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            raise HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """Made anew, since proxies may have changed; urllib's usual opener would also read files and FTP."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler,
        HTTPHandler,
        HTTPSHandler,
        _WebRedirects,
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
