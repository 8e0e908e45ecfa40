"""A run is one directory: copy it and it works elsewhere."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from triscale.errors import UserError, no_text
from triscale.runs.files import write_whole

try:
    import fcntl
except ImportError:  # Windows: two processes on one run are then the user's affair
    fcntl = None  # type: ignore[assignment]

SETTINGS = "run.json"
ALL_STAGES = "whole.json"  # of a run of all stages, which keeps that of its last one in a folder
LAST_STAGE = "fit"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.csv"
SCRATCH = "predictions-from-scratch.csv"
START = "start.safetensors"
LOCK = ".lock"
SPLITS = "splits.csv"
REPORT = "report.html"
CARD = "MODEL.md"
# What searches, studies and runs of all stages write too, in modules that import this one.
_STAGES = (
    ALL_STAGES,
    "search.json",
    "space.json",
    "network.json",
    "study.json",
    "baseline.json",
    "coefficients.json",
    "coefficients-fastest.json",
)
_WHOLE = (SETTINGS, METRICS, TIMINGS, MODEL, START, PREDICTIONS, SCRATCH, SPLITS, REPORT, CARD, *_STAGES)
_TORN = re.compile(rf"\.({'|'.join(map(re.escape, _WHOLE))})\.[a-z0-9_]{{8}}")  # of a `write_whole` that was killed


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run by name: settings and frozen plan, metrics, model, predictions, report, card."""

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> "RunDirectory":
        """A new, empty run directory. Raises `UserError` where something lies there already, or none can be made."""
        place = cls.check_free(path)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {place}: {error.strerror or error}; name a directory that can be made") from None
        return cls(place)

    @classmethod
    def check_free(cls, path: str | Path) -> Path:
        """The path, where a run may be made: also where one ended before it had a plan.

        Raises `UserError` where something lies there already.
        """
        place = Path(path)
        if not _is_text(place):
            wrong = no_text("a name that is no text; name a directory in UTF-8")
            raise UserError(f"--out {str(place)!r}: {wrong}")
        try:
            taken = place.exists() and (not place.is_dir() or any(place.iterdir())) and not cls(place).abandoned()
        except OSError as error:
            raise UserError(f"--out {place}: {error.strerror or error}; name a directory that can be made") from None
        if taken:
            raise UserError(
                f"--out {place}: something lies there already; name a directory that is new or empty"
                + (", go on with the run by --resume, or remove it first" if _begun_in(place) else "")
            )
        return place

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run. Raises `UserError` where there is none."""
        place = Path(path)
        if not _is_file(place / SETTINGS):
            if _is_file(place / ALL_STAGES):
                way = f"go on with: triscale fit --resume --out {quote(str(place))}; each of its folders is a run, too"
                raise UserError(f"{place}: a run of all stages; {way}")
            raise UserError(f"{place}: no run (no {SETTINGS} in it); name the directory that a run was given as --out")
        return cls(place)

    @classmethod
    def at(cls, place: Path) -> "RunDirectory | None":
        """The run in a directory; of a run of all stages that of its network. None where there is none."""
        last = place / LAST_STAGE if _is_file(place / ALL_STAGES) and not _is_file(place / SETTINGS) else place
        return cls(last) if _is_file(last / SETTINGS) else None

    def beside(self) -> Iterator["RunDirectory"]:
        """The other runs in the same directory, by name."""
        try:
            places = sorted(self.path.resolve().parent.iterdir())
        except OSError:
            return
        for place in places:
            if place != self.path.resolve() and _is_file(place / SETTINGS):
                yield RunDirectory(place)

    @property
    def model(self) -> Path:
        """Weights, with architecture, classes and preprocessing as metadata."""
        return self.path / MODEL

    @property
    def checkpoints(self) -> Path:
        """The folder of what the training goes on from."""
        return self.path / CHECKPOINTS

    @property
    def scratch_checkpoints(self) -> Path:
        """The same of the training from scratch that follows, to compare."""
        return self.path / CHECKPOINTS / "scratch"

    @property
    def start(self) -> Path:
        """The model before its first step, where it started from weights that may not be there any more."""
        return self.path / CHECKPOINTS / START

    @property
    def predictions(self) -> Path:
        """The test images' predictions."""
        return self.path / PREDICTIONS

    @property
    def scratch_predictions(self) -> Path:
        """The same of the network that was trained from scratch, to compare."""
        return self.path / SCRATCH

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.path / REPORT

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / CARD

    def write_splits(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Which image went where: (name, split, hex digest of its content), whole."""
        out, kept = io.StringIO(), list(rows)
        # Before Python 3.13 a carriage return alone is not quoted, and would then be read as an end of line.
        odd = any("\r" in name for name, _, _ in kept)
        writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
        writer.writerow(("name", "split", "sha256"))
        writer.writerows(kept)
        write_whole(self.path / SPLITS, out.getvalue())

    def splits(self) -> dict[str, tuple[str, str]]:
        """name → (split, hex digest); empty where the run kept none. Raises `UserError` where it is damaged."""
        place = self.path / SPLITS
        if not place.is_file():
            return {}
        try:
            with place.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file, strict=True))
            for line, row in enumerate(rows, 2):
                if None in row or None in row.values():  # images that nobody knows of would count as never seen
                    raise ValueError(f"row {line} has another number of cells than the header")
            return {row["name"]: (row["split"], row["sha256"]) for row in rows}
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise UserError(f"{place}: not readable ({error}); copy it again from where the run was made") from None

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """run.json, whole."""
        write_whole(self.path / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False, default=str) + "\n")

    def settings(self) -> dict[str, Any]:
        """What run.json holds. Raises `UserError` where it is not readable."""
        place = self.path / SETTINGS
        try:
            values = json.loads(place.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{place}: not readable ({error}); is it a run that `triscale fit` wrote?") from None
        if not isinstance(values, dict) or not isinstance(values.get("asked", {}), dict):
            raise UserError(f"{place}: not the settings of a run; is it a run that `triscale fit` wrote?")
        return values

    def data_path(self) -> str:
        """Which images the run was made from. Raises `UserError` where run.json does not say."""
        return str(self._of_data("path"))

    def skips_bad(self) -> bool:
        """Whether the run left unreadable images out."""
        return self._of_data("on_bad") == "skip"

    def _of_data(self, key: str) -> object:
        data = self.settings().get("data")
        if not isinstance(data, dict) or key not in data:
            raise UserError(
                f"{self.path / SETTINGS}: does not say the data's {key}; is it a run that `triscale fit` wrote?"
            )
        return data[key]

    def write_metrics(self, rows: Iterable[Mapping[str, Any]], apart: Sequence[str] = ()) -> None:
        """metrics.jsonl, whole: a line an epoch. apart: fields that go to timings.jsonl instead, so that what is left
        can be compared byte for byte with another run's."""
        kept = list(rows)
        self._write_rows(METRICS, ({k: v for k, v in row.items() if k not in apart} for row in kept))
        if apart:
            self._write_rows(TIMINGS, ({"epoch": row["epoch"]} | {k: row[k] for k in apart} for row in kept))

    def _write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        write_whole(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl, with those of timings.jsonl; a last line that was cut off is left out."""
        timings = list(_lines(self.path / TIMINGS))
        for index, row in enumerate(_lines(self.path / METRICS)):
            yield row | (timings[index] if index < len(timings) else {})

    def begun(self) -> bool:
        """Whether there is a plan to go on with."""
        return _is_file(self.path / SETTINGS)

    @classmethod
    def take_over(cls, path: str | Path) -> "RunDirectory":
        """The run that was begun there, or a new one: also where its writer was killed before there was a plan, and
        left what such a writer leaves. Raises `UserError` where something else lies there."""
        run = cls(Path(path))
        return run if run.begun() or run.abandoned() else cls.create(path)

    def abandoned(self) -> bool:
        """Whether a writer that was killed, or is still at work, left nothing but what comes before the plan."""
        try:
            names = {entry.name for entry in self.path.iterdir()}
        except OSError:
            return False
        known = (LOCK, SPLITS, CHECKPOINTS)
        return (
            LOCK in names
            and all(name in known or _TORN.fullmatch(name) for name in names)
            and (CHECKPOINTS not in names or self._holds_a_start_alone())
        )

    def _holds_a_start_alone(self) -> bool:
        """Whether the checkpoints' folder holds no more than the model before its first step, whole or not."""
        try:
            return all(entry.name == START or _TORN.fullmatch(entry.name) for entry in self.checkpoints.iterdir())
        except OSError:
            return False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this lasts, no other process works on the run. Raises `UserError` where one does.

        The lock is the system's: it falls with the process that holds it, however that ends. Files that such a process
        did not write to their end are removed, and the start of a run that has no plan. Where files cannot be locked
        (Windows, some network disks), two processes on one run are the user's affair.
        """
        with (self.path / LOCK).open("a") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(f"--out {self.path}: another process works on this run; wait for it") from None
                except OSError:
                    pass  # this disk knows no locks
            if self.abandoned() and self.checkpoints.exists():
                # The next run may begin from other weights, or from none, and would be resumed from these.
                for entry in self.checkpoints.iterdir():
                    entry.unlink(missing_ok=True)
            for entry in self.path.iterdir():
                if _TORN.fullmatch(entry.name):
                    entry.unlink(missing_ok=True)
            yield


def _lines(place: Path) -> Iterator[dict[str, Any]]:
    if not place.is_file():
        return
    for line in place.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file(path: Path) -> bool:
    """Also where a folder on the way may not be entered: then as good as none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _begun_in(place: Path) -> bool:
    return _is_file(place / SETTINGS) or _is_file(place / ALL_STAGES)
