"""`compare`: two models on the same images, image by image."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from triscale.data import read
from triscale.errors import UserError
from triscale.evaluating.choosing import (
    check_splits,
    choose,
    count_learned,
    relabelled,
    run_classes,
    run_of,
    stored_table,
)
from triscale.evaluating.comparison import Comparison, compared
from triscale.evaluating.matching import aligned, check_classes, numbered, why_apart
from triscale.evaluating.predictions import predict_images
from triscale.evaluating.table import Table, is_table
from triscale.runs import RunDirectory
from triscale.weights import run_meant

if TYPE_CHECKING:
    from triscale.models import Model

    Named = str | Path | Model


@dataclass(frozen=True, eq=False)
class _Side:
    """What is known of one model. classes: None where only a table says some of them."""

    name: str
    run: RunDirectory | None
    table: Table
    classes: tuple[str, ...] | None
    learned: int | None


def compare(
    first: "Named",
    second: "Named",
    data: str | Path | None = None,
    *,
    device: str | None = None,
    on_bad: Literal["error", "skip"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Two models on the same images. first, second: runs or prediction tables, whose stored answers are compared; with
    `data` any two models, which are evaluated on those images as `evaluate` does it.

    Where the data has no test split and runs were made from it, on the images that all of these runs held out. Raises
    `UserError` where the images or the classes of the two are not the same, where a model is no run and no images are
    named, and for whatever `evaluate` raises it.
    """
    if data is None:
        sides, which = (_stored(first), _stored(second)), "stored"
        where = _data_of(sides[0]) or _data_of(sides[1])
    else:
        sides, where, which = _evaluated((first, second), Path(data), device, on_bad, progress)
    names = (sides[0].name, sides[1].name)
    classes = check_classes(sides[0].classes, sides[1].classes, names)
    if classes is None:
        classes = tuple(sorted({*sides[0].table.classes, *sides[1].table.classes}))
    tables = (numbered(sides[0].table, classes, names[0]), numbered(sides[1].table, classes, names[1]))
    tables = aligned(*tables, names, "" if data is not None else why_apart(sides[0].run, sides[1].run))
    return compared(names, tables, where, which, (sides[0].learned, sides[1].learned))


def _stored(name: "Named") -> _Side:
    """The answers that a run or a table keeps."""
    path = Path(name) if isinstance(name, str | Path) else None
    run = None if path is None else run_of(path)
    if path is not None and is_table(path):
        table = stored_table(path)
    elif run is not None and path is not None and (path.is_dir() or path.name == run.model.name):
        if not run.predictions.is_file():
            raise UserError(f"{path}: the run keeps no predictions.csv; name images to compare on: --data DATA")
        table = stored_table(run.predictions)
    else:
        raise UserError(
            f"{_name(name)}: no run and no prediction table, so it keeps no answers to compare; name images to compare "
            "both models on: --data DATA"
        )
    classes = run_classes(run) if run else None
    if classes is not None and not set(table.classes) <= set(classes):
        classes = None  # a table of another model that only lies there
    return _Side(str(path), run, table, classes, count_learned(table, run.splits() if run else {}))


def _evaluated(
    models: "tuple[Named, Named]",
    data: Path,
    device: str | None,
    on_bad: Literal["error", "skip"] | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[_Side, _Side], Path, str]:
    from triscale.engines import running
    from triscale.models import learned
    from triscale.training.machine import find_device

    for one in models:
        if isinstance(one, str | Path) and is_table(Path(one)):
            raise UserError(f"{one}: a table holds answers and no model to run on other images; name the run")
    to = find_device(device)
    ready = [learned(one) for one in models]
    check_classes(ready[0].classes, ready[1].classes, (_name(models[0]), _name(models[1])))
    runs = [run_meant(one) if isinstance(one, str | Path) else None for one in models]
    how = on_bad or ("skip" if any(run and run.skips_bad() for run in runs) else "error")
    images = read(data, seed=None, on_bad=how, progress=progress)
    kept = [run.splits() if run else {} for run in runs]
    for one, run, splits in zip(models, runs, kept, strict=True):
        check_splits(_name(one), run, splits, data)
    chosen, which = choose(images, kept)
    if not len(chosen):
        raise UserError(
            f"{data}: no image of it was held out by both runs, so one of them has learned from each; "
            "name images that neither has seen, or fit one of them again with the other's --seed"
        )
    sides = []
    for one, model, run, splits in zip(models, ready, runs, kept, strict=True):
        with running(model.to(to)) as logits:
            table = predict_images(model, relabelled(images, chosen, model), logits=logits).table
        sides.append(_Side(_name(one), run, table, model.classes, count_learned(table, splits)))
    return (sides[0], sides[1]), images.path, which


def _name(model: "Named") -> str:
    return str(model) if isinstance(model, str | Path) else model.architecture.name


def _data_of(side: _Side) -> Path | None:
    """Where the run's images lay, which may not be there any more."""
    try:
        return None if side.run is None else Path(side.run.data_path())
    except UserError:
        return None
