"""What lies beside a download's place while it is incomplete: whose it is, what it came from, whether it is whole.

What has arrived is in ``<name>.part``, and in ``<name>.part.json`` what it is a part of; whoever holds the part's lock
writes them.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from triscale.errors import TriscaleError
from triscale.runs import write_whole
from triscale.units import format_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[int, int | None], None]

_MOST = 4_000_000_000
_POLL = 0.1


@dataclass(frozen=True)
class Order:
    """What is wanted, and how its failures are told."""

    url: str
    place: Path
    digest: str
    size: int | None
    progress: Progress | None
    name: str
    otherwise: str
    timeout: float

    @property
    def limit(self) -> int:
        """In bytes: a server that sends without end must not fill the disk."""
        return _MOST if self.size is None else int(1.1 * self.size) + 1_000_000

    def is_met_by(self, path: Path) -> bool:
        """Whether what lies there has the digest. Raises `TriscaleError` where it cannot be read."""
        try:
            if not path.exists():
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest().startswith(self.digest)
        except OSError as error:
            way = "remove it or name another place"
            raise TriscaleError(f"{path}: could not be read ({error.strerror or error}); {way}") from None

    def tell(self, done: int, total: int | None) -> None:
        """Shows the bytes that have arrived; the expected size stands in for a whole that nobody knows."""
        if self.progress is not None:
            self.progress(done, self.size if total is None else total)

    def failure(self, reason: str, kept: str) -> TriscaleError:
        """The error's one line: what failed and why, what was kept, and the way without this network."""
        parts = (f"{self.name} could not be downloaded ({reason})", kept, self.otherwise)
        return TriscaleError("; ".join(filter(None, parts)))

    @contextmanager
    def writing(self, kept: Callable[[], str] = str) -> Iterator[None]:
        """Around what the disk may refuse, and nothing else: the network's errors are of the same class."""
        try:
            yield
        except OSError as error:
            reason = f"{self.place}: could not be written ({error.strerror or error})"
            way = "make room, or set TRISCALE_CACHE to another directory"
            raise TriscaleError("; ".join(filter(None, (reason, kept(), way)))) from None


@dataclass(frozen=True)
class Origin:
    """What a part was cut from: it is gone on with only while the server says that this is still the same."""

    url: str
    validator: str
    total: int | None


@dataclass(frozen=True)
class Part:
    """What has arrived so far; `lasting` where a later call may find it and go on."""

    order: Order
    path: Path
    lasting: bool

    @property
    def note(self) -> Path:
        """The file that says what this is a part of."""
        return self.path.with_name(f"{self.path.name}.json")

    def bytes(self) -> int:
        """How many have arrived; none where the file is not there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def origin(self) -> Origin | None:
        """None where there is nothing to go on from: a damaged note, too, only means starting again."""
        if not self.lasting or not self.bytes():
            return None
        try:
            note = json.loads(self.note.read_bytes())
            origin = Origin(note["url"], note["validator"], note["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sound = isinstance(origin.validator, str) and re.fullmatch("[ -~]+", origin.validator) is not None
        return origin if sound and origin.url == self.order.url and isinstance(origin.total, int | None) else None

    def begin(self, validator: str | None, total: int | None) -> None:
        """Emptied before its note changes: old bytes must never stand beside the note of a new file."""
        with self.order.writing():
            self.path.write_bytes(b"")
            self.forget()
            if validator is not None and self.lasting:
                write_whole(self.note, json.dumps(asdict(Origin(self.order.url, validator, total))))

    def forget(self) -> None:
        """Without its note nothing goes on from it, and `claimed` removes it."""
        with self.order.writing():
            self.note.unlink(missing_ok=True)

    def is_whole(self) -> bool:
        """Whether all of it arrived, and only the renaming is left to do."""
        origin = self.origin()
        return origin is not None and origin.total in (None, self.bytes()) and self.order.is_met_by(self.path)

    def kept(self) -> str:
        """For an error's line: what a later call goes on from; empty where it begins again."""
        if self.origin() is None:
            return ""
        return f"{format_bytes(self.bytes())} of it are kept, and the same command goes on from there"


@contextmanager
def claimed(order: Order) -> Iterator[Part]:
    """The part, this caller's alone until the end: two that write one file would spoil it.

    The part itself is locked: no lock file stays behind, and a killed process holds nothing. Where files cannot be
    locked (Windows, some network disks) every caller has a part of its own, which ends with the call.
    """
    shared = order.place.with_name(f"{order.place.name}.part")
    own = order.place.with_name(f"{order.place.name}.{os.getpid()}-{threading.get_ident()}.part")
    with order.writing():
        order.place.parent.mkdir(parents=True, exist_ok=True)
    handle = _hold(shared, order)
    part = Part(order, own, lasting=False) if handle is None else Part(order, shared, lasting=True)
    try:
        yield part
    finally:
        with suppress(OSError):
            # After the renaming, a part of this name is somebody else's.
            if part.origin() is None and (handle is None or _lies_at(handle, part.path)):
                part.note.unlink(missing_ok=True)
                part.path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _hold(path: Path, order: Order) -> int | None:
    """The file, opened, made where there is none, and locked; None where files cannot be locked."""
    if fcntl is None:
        return None
    while True:
        with order.writing():
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        held = False
        try:
            if not _lock(handle, order):
                if not os.fstat(handle).st_size:
                    path.unlink(missing_ok=True)
                return None
            # Its last holder may have renamed or removed it: the lock is then on a file that nobody will find.
            held = _lies_at(handle, path)
            if held:
                return handle
        finally:
            if not held:
                os.close(handle)


def _lock(handle: int, order: Order) -> bool:
    """Waits for whoever holds it, and shows how far they are; False where this disk knows no locks."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        except OSError:
            return False
        order.tell(os.fstat(handle).st_size, None)
        time.sleep(_POLL)


def _lies_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
