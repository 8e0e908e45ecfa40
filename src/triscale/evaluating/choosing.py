"""Which images a model is evaluated on, and what the run beside a model or a table knows of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triscale.data import Data, Images
from triscale.errors import UserError
from triscale.evaluating.table import Table, read_table
from triscale.runs import RunDirectory

if TYPE_CHECKING:
    from triscale.models import Model

Kept = Mapping[str, tuple[str, str]]  # name → (split, hex digest), as `RunDirectory.splits` gives it


def run_of(path: Path) -> RunDirectory | None:
    """The run that a directory is or that a file lies in; None where there is none, and for a name."""
    return RunDirectory.at(path if path.is_dir() else path.parent) if path.exists() else None


def run_classes(run: RunDirectory) -> tuple[str, ...] | None:
    """The classes of the run's model, where run.json says them."""
    data = run.settings().get("data")
    classes = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        return None
    return tuple(classes)


def stored_table(path: Path) -> Table:
    """A prediction table with what the run that it lies in adds: all classes, and digests where it keeps none.

    Raises `UserError` where the table or the run is damaged.
    """
    table, run = read_table(path), run_of(path)
    if run is None:
        return table
    classes = run_classes(run)
    if classes is not None and set(table.classes) <= set(classes):
        table = table.among(classes)
    kept = run.splits()
    if not table.digests and all(name in kept for name in table.names):
        try:
            table = replace(table, digests=tuple(bytes.fromhex(kept[name][1]) for name in table.names))
        except ValueError:
            raise UserError(f"{run.path}: splits.csv holds no digests; copy it again from where it was made") from None
    return table


def count_learned(table: Table, kept: Kept) -> int | None:
    """How many of the images have the exact content of one that the run trained on or validated with, or that its
    weights had learned from before; None where nobody knows."""
    if not (kept and table.digests):
        return None
    known = {digest for split, digest in kept.values() if split != "test"}
    return sum(digest.hex() in known for digest in table.digests)


def count_missing(table: Table, run: RunDirectory | None, kept: Kept, data: Path) -> int:
    """How many of the images that the run held out are not among the evaluated ones, or are changed; 0 where these are
    other images altogether."""
    held = {content for content in kept.items() if content[1][0] == "test"}
    digests = (("test", digest.hex()) for digest in table.digests)
    there = held.intersection(zip(table.names, digests, strict=True))
    return len(held - there) if there or _made_from(run, data) else 0


def choose(data: Data, runs: Sequence[Kept]) -> tuple[Images, str]:
    """The test split; or the images that all of the runs that were made from this data held out; or the val split; or
    everything. With the word for it. May be empty where several runs held out different images."""
    if len(data.test):
        return data.test, "test"
    everything = data.train
    content = list(zip(everything.names, (digest.hex() for digest in everything.digests), strict=True))
    held = [[i for i, (name, digest) in enumerate(content) if kept.get(name) == ("test", digest)] for kept in runs]
    asked = [set(positions) for positions in held if positions]
    if asked:
        return everything.select(sorted(set.intersection(*asked))), "held out"
    if len(data.val):
        return data.val, "val"
    return everything, "all"


def relabelled(data: Data, images: Images, model: "Model") -> Images:
    """The images with their labels as positions in the model's classes. Raises `UserError` for one it does not have."""
    position = {label: i for i, label in enumerate(model.classes)}
    used = sorted({data.classes[label] for label in images.labels.tolist()})
    unknown = [label for label in used if label not in position]
    if unknown:
        some = ", ".join(model.classes[:8]) + (", …" if len(model.classes) > 8 else "")
        raise UserError(
            f"{data.path}: the model has no class {unknown[0]!r} (its {len(model.classes)} classes: {some}); "
            "rename the folder or take it out"
        )
    labels = np.array([position[data.classes[label]] for label in images.labels.tolist()], np.int64)
    return replace(images, labels=labels)


def check_splits(name: object, run: RunDirectory | None, kept: Kept, data: Path) -> None:
    """Nobody may be evaluated on what it learned because nobody knows any more what that was. Raises `UserError`."""
    if not kept and _made_from(run, data):
        raise UserError(f"{name}: splits.csv is missing, so nobody knows which images were held out; name other images")


def _made_from(run: RunDirectory | None, data: Path) -> bool:
    return run is not None and str(data.resolve()) == run.data_path()
