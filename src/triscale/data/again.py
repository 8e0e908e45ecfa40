"""What a run keeps of its images, and finding the same ones again."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from triscale.data.pictures import Data
from triscale.data.reading import read
from triscale.errors import UserError

NEEDED = {"path", "on_bad", "fingerprint", "counts"}


def data_values(data: Data, on_bad: str) -> dict[str, Any]:
    """Plain values for run.json, from which `read_again` finds the same images."""
    return {
        "path": str(data.path.resolve()),
        "kind": data.kind,
        "on_bad": on_bad,
        "fingerprint": data.fingerprint,
        "test_fingerprint": data.test_fingerprint(),
        "classes": list(data.classes),
        "size": list(data.size),
        "uniform": data.uniform,
        "channels": data.channels,
        "counts": data.counts(),
        "skipped": [asdict(bad) for bad in data.skipped],
        "leaks": data.leaks,
        "duplicates": data.duplicates,
    }


def read_again(
    kept: object,
    source: str,
    *,
    seed: int,
    place: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    again: str | None = None,
) -> Data:
    """The images of a run. kept: what `data_values` gave. place: where they are, if they have moved. again: the command
    that names another place, for who named none.

    Raises `UserError` naming `source` where nothing is kept, and naming the place where others lie there now.
    """
    if not isinstance(kept, Mapping) or not kept.keys() >= NEEDED:
        raise UserError(f"{source}: does not say which images it was made from; begin another run")
    where = place or kept["path"]
    if place is None and again is not None:
        check_still_there(where, again)
    images = read(where, seed=seed, on_bad=kept["on_bad"], progress=progress)
    if images.fingerprint != kept["fingerprint"]:
        now = sum(map(len, images.splits().values()))
        before = sum(sum(table.values()) for table in kept["counts"].values())
        raise UserError(
            f"{where}: these are not the images that the run was begun with ({now:,} now, {before:,} then, or others "
            "of the same number); put them back as they were, name where they are, or begin another run"
        )
    return images


def check_still_there(where: str | Path, again: str) -> None:
    """Raises `UserError` with the command that names another place, where nothing lies there any more."""
    with suppress(OSError):  # of what may not be looked at `read` says why
        if not Path(where).exists():
            raise UserError(f"data: '{where}' does not exist any more; put it back, or name where it is now: {again}")


def check_apart(data: Path, out: Path) -> None:
    """A run inside the images' folder would be taken for one more class the next time. Raises `UserError`."""
    if data.is_dir() and data.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out}: lies inside the images' folder {data}; name a directory outside it")
