"""`eval`: a trained model on the images that were held out for it, or on others."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from triscale.data import Data, Images, read
from triscale.errors import UserError
from triscale.evaluating.predictions import Predictions, predict_images
from triscale.models import Model, learned
from triscale.runs import RunDirectory
from triscale.training.machine import find_device


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated. which: the data's `test` or `val` split, the `held out` images of the run, or `all`.

    missing: how many of the images that the run held out are not there any more, or are changed. learned: how many of
    the evaluated images have the exact content of one that the run trained on or validated with; None where no run
    says what it learned from. skipped: how many unreadable files were left out.
    """

    predictions: Predictions
    data: Path
    which: str
    missing: int
    learned: int | None
    skipped: int


def evaluate(
    name: str | Path | Model,
    data: str | Path | None = None,
    *,
    device: str | None = None,
    on_bad: Literal["error", "skip"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """A model (or the name of one) on labelled images.

    Of data with a test split, that split. Of the data that the run was made from, the images that the run held out.
    Of anything else, all images. Without `data`, what the run was made from; without `on_bad`, as the run did. Classes
    are matched by name. Raises `UserError` where the model was never trained, an image's class is not among the
    model's, or a run does not say what it held out.
    """
    model = learned(name)
    run = None if isinstance(name, Model) else _run_of(Path(name))
    if data is None:
        if run is None:
            raise UserError(f"{name}: no run that says which images it was made from; name the images too")
        data = run.data_path()
    own = run is not None and str(Path(data).resolve()) == run.data_path()
    how = on_bad or ("skip" if run and run.skips_bad() else "error")
    images = read(data, seed=None, on_bad=how, progress=progress)
    kept = run.splits() if run else {}
    if run and own and not kept:
        raise UserError(f"{name}: splits.csv is missing, so nobody knows which images were held out; name other images")
    chosen, which = _choose(images, kept)
    labels = _labels(images, chosen, model)
    known = {digest for split, digest in kept.values() if split != "test"}
    predictions = predict_images(model.to(find_device(device)), replace(chosen, labels=labels))
    seen = sum(digest.hex() in known for digest in chosen.digests)
    held_out = sum(split == "test" for split, _ in kept.values())
    missing = held_out - len(chosen) if which == "held out" else 0
    return Evaluation(predictions, images.path, which, missing, seen if kept else None, len(images.skipped))


def _run_of(path: Path) -> RunDirectory | None:
    if not path.exists():  # a name
        return None
    place = path if path.is_dir() else path.parent
    try:
        return RunDirectory.open(place)
    except UserError:
        return None


def _choose(data: Data, kept: dict[str, tuple[str, str]]) -> tuple[Images, str]:
    if len(data.test):
        return data.test, "test"
    everything = data.train
    held_out = [
        i
        for i, (name, digest) in enumerate(zip(everything.names, everything.digests, strict=True))
        if kept.get(name) == ("test", digest.hex())
    ]
    if held_out:
        return everything.select(held_out), "held out"
    if len(data.val):
        return data.val, "val"
    return everything, "all"


def _labels(data: Data, images: Images, model: Model) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The images' labels as positions in the model's classes."""
    position = {label: i for i, label in enumerate(model.classes)}
    used = sorted({data.classes[label] for label in images.labels.tolist()})
    unknown = [label for label in used if label not in position]
    if unknown:
        some = ", ".join(model.classes[:8]) + (", …" if len(model.classes) > 8 else "")
        raise UserError(
            f"{data.path}: the model has no class {unknown[0]!r} (its {len(model.classes)} classes: {some}); "
            "rename the folder or take it out"
        )
    return np.array([position[data.classes[label]] for label in images.labels.tolist()], np.int64)
