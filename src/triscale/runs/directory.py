"""A run is one directory: copy it and it works elsewhere."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triscale.errors import TriscaleError, UserError
from triscale.runs.files import write_whole

SETTINGS = "run.json"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.csv"
SCRATCH = "predictions-from-scratch.csv"
SPLITS = "splits.csv"
REPORT = "report.html"


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run by name: settings and frozen plan, metrics, model, predictions, report."""

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

    @staticmethod
    def check_free(path: str | Path) -> Path:
        """The path, where a run may be made. Raises `UserError` where something lies there already."""
        place = Path(path)
        if not _is_text(place):
            raise UserError(f"--out {str(place)!r}: a name that is no text; name a directory in UTF-8")
        try:
            taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
        except OSError as error:
            raise UserError(f"--out {place}: {error.strerror or error}; name a directory that can be made") from None
        if taken:
            raise UserError(
                f"--out {place}: something lies there already; name a directory that is new or empty"
                + (", or remove the run first" if _is_file(place / SETTINGS) else "")
            )
        return place

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run. Raises `UserError` where there is none."""
        place = Path(path)
        if not _is_file(place / SETTINGS):
            raise UserError(f"{place}: no run (no {SETTINGS} in it); name the directory that `triscale fit` wrote")
        return cls(place)

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
    def checkpoint(self) -> Path:
        """The averaged model after the last whole epoch: a model file like any other."""
        place = self.path / CHECKPOINTS
        place.mkdir(exist_ok=True)
        return place / "last.safetensors"

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

    def write_splits(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Which image went where: (name, split, hex digest of its content), whole."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("name", "split", "sha256"))
        writer.writerows(rows)
        write_whole(self.path / SPLITS, out.getvalue())

    def splits(self) -> dict[str, tuple[str, str]]:
        """name → (split, hex digest); empty where the run kept none. Raises `UserError` where it is damaged."""
        place = self.path / SPLITS
        if not place.is_file():
            return {}
        try:
            with place.open(encoding="utf-8", newline="") as file:
                return {row["name"]: (row["split"], row["sha256"]) for row in csv.DictReader(file, strict=True)}
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
        if not isinstance(values, dict):
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

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """One more line of metrics.jsonl. Raises `TriscaleError` where the disk refuses."""
        place = self.path / METRICS
        try:
            with place.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise TriscaleError(f"{place}: could not be written ({error.strerror or error})") from None

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that was cut off is left out."""
        place = self.path / METRICS
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
