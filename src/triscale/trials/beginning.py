"""A run of many trials: how it is begun, found again and opened; the same for whatever the trials are for."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

from triscale.data import Data, data_values
from triscale.errors import UserError
from triscale.runs import RunDirectory
from triscale.training import describe
from triscale.trials.ledger import LEDGER, Ledger


def begin_run(
    out: str | Path, images: Data, on_bad: str, frozen: Mapping[str, Any]
) -> tuple[RunDirectory, dict[str, Any]]:
    """A new run before its first trial, and what its run.json holds. on_bad: how the images were read. frozen: what all
    trials share, and what is decided on the way. Raises `UserError` where something lies there."""
    run = RunDirectory.create(out)
    with run.alone():
        if run.begun():
            raise UserError(f"--out {out}: another process began this run meanwhile; name another directory")
        run.write_splits(images.rows())
        settings = {
            "triscale": version("triscale"),
            "versions": describe(),
            "data": data_values(images, on_bad),
            **frozen,
        }
        run.write_settings(settings)
    return run, settings


def begun_by(verb: str, run: RunDirectory) -> dict[str, Any]:
    """run.json of a run that this verb began. Raises `UserError` where another one did, with the command that goes
    on."""
    settings = run.settings()
    by = settings.get("asked", {}).get("verb", "fit")
    if by != verb:
        raise UserError(f"{run.path}: is no {verb}; go on with: triscale {by} --resume --out {quote(str(run.path))}")
    return settings


@contextmanager
def opened(run: RunDirectory, verb: str) -> Iterator[Ledger]:
    """The run's ledger, with the run held alone."""
    with run.alone(), closing(Ledger(run.path / LEDGER, verb)) as ledger:
        yield ledger
