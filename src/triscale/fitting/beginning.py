"""What lies in a run before it trains: the frozen plan, and which image went where."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from triscale.data import Data
from triscale.errors import UserError
from triscale.fitting.plan import Plan
from triscale.fitting.ready import Ready
from triscale.runs import RunDirectory
from triscale.training import describe


def write_beginning(
    run: RunDirectory, ready: Ready, plan: Plan, *, on_bad: str, before: Mapping[str, str], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The run's beginning; run.json last, so that where it is, all is. Gives back what it holds.

    before: what the weights had learned from, by name. asked: what the run was called with, to be compared when it is
    called again to go on.
    """
    run.write_splits(_splits(ready.images, before))
    if plan.weights is not None:
        run.checkpoints.mkdir(exist_ok=True)
        ready.model.save(run.start)
    run.write_settings(_settings(ready.images, plan, on_bad) | {"asked": dict(asked)})
    return run.settings()


def _splits(data: Data, before: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Which image went where, and what the weights had learned from before."""
    for split, pictures in data.splits().items():
        for name, digest in zip(pictures.names, pictures.digests, strict=True):
            yield name, split, digest.hex()
    for name, known in before.items():
        yield name, "before", known


def _settings(data: Data, plan: Plan, on_bad: str) -> dict[str, Any]:
    return {
        "triscale": version("triscale"),
        "versions": describe(),
        "data": {
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
        },
        "plan": plan.to_dict(),
    }


def check_apart(data: Path, out: Path) -> None:
    """A run inside the images' folder would be taken for one more class the next time. Raises `UserError`."""
    if data.is_dir() and data.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out}: lies inside the images' folder {data}; name a directory outside it")
