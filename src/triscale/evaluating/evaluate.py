"""`eval`: a trained model on the images that were held out for it, or on others; or what a stored table says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from triscale.data import read
from triscale.errors import UserError
from triscale.evaluating.choosing import (
    check_splits,
    choose,
    count_learned,
    count_missing,
    relabelled,
    run_of,
    stored_table,
)
from triscale.evaluating.measures import Measures, measure
from triscale.evaluating.predictions import Predictions, predict_images
from triscale.evaluating.table import Table, is_table
from triscale.precision import check_precision
from triscale.weights import run_meant

if TYPE_CHECKING:
    from triscale.models import Model


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was evaluated. which: the data's `test` or `val` split, the `held out` images of the run, or `all`; `stored`
    where a table was read.

    data: the images, or the table's file. missing: how many of the images that the run held out are not there any more,
    or are changed. learned: how many of the evaluated images have the exact content of one that the run trained on or
    validated with; None where nobody says what was learned from. skipped: how many unreadable files were left out.
    predictions: the probabilities of all classes; None of a stored table, which does not keep them.
    """

    table: Table
    data: Path
    which: str
    missing: int
    learned: int | None
    skipped: int
    predictions: Predictions | None = None

    @cached_property
    def measures(self) -> Measures:
        """All measures with their intervals, computed when first asked for."""
        return measure(self.table)


def evaluate(
    name: "str | Path | Model",
    data: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "fp32",
    on_bad: Literal["error", "skip"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """A model (or the name of one) on labelled images, or a stored prediction table (a .csv file).

    precision: fp32, or bf16 or fp16, where the processor multiplies it. Of data with a test split, that split. Of the
    data that the run was made from, the images that the run held out. Of anything else, all images. Without `data`,
    what the run was made from; without `on_bad`, as the run did. Classes are matched by name. Raises `UserError` where
    the model was never trained, an image's class is not among the model's, a run does not say what it held out, or a
    table is damaged or named together with images, a device or a half precision.
    """
    if isinstance(name, str | Path) and is_table(Path(name)):
        return _stored(Path(name), data, device, precision)
    from triscale.engines import running
    from triscale.engines.logits import engine_for
    from triscale.models import Model, learned
    from triscale.training.machine import find_device

    place = find_device(device)
    named = check_precision(precision)
    engine_for(place, precision=named)  # which says what is wrong with it before images are read
    model = learned(name)
    run = None if isinstance(name, Model) else run_meant(name)
    if data is None:
        if run is None:
            raise UserError(f"{name}: no run that says which images it was made from; name the images too")
        data = run.data_path()
    images = read(data, seed=None, on_bad=on_bad or ("skip" if run and run.skips_bad() else "error"), progress=progress)
    kept = run.splits() if run else {}
    check_splits(name, run, kept, Path(data))
    chosen, which = choose(images, [kept])
    with running(model.to(place), precision=named) as logits:
        predictions = predict_images(model, relabelled(images, chosen, model), logits=logits)
    seen = count_learned(predictions.table, kept)
    missing = count_missing(predictions.table, run, kept, Path(data))
    return Evaluation(predictions.table, images.path, which, missing, seen, len(images.skipped), predictions)


def _stored(path: Path, data: str | Path | None, device: str | None, precision: str) -> Evaluation:
    for option, value in (("device", device), ("precision", None if precision == "fp32" else precision)):
        if value is not None:
            raise UserError(
                f"--{option} {value}: {path} holds answers, and nothing is computed; leave it out, or name the run"
            )
    if data is not None:
        raise UserError(f"{path}: a table holds the answers of a model and none of its weights; name the run instead")
    table, run = stored_table(path), run_of(path)
    return Evaluation(table, path, "stored", 0, count_learned(table, run.splits() if run else {}), 0)
