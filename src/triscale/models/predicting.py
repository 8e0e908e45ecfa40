"""What a model says of pictures that nobody labelled, and what it sees in them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from triscale.data import Images, read
from triscale.data.folders import find_pictures
from triscale.data.idx import is_idx
from triscale.data.manifests import list_manifest
from triscale.data.threads import ordered_map
from triscale.engines import running
from triscale.engines.logits import engine_for
from triscale.engines.native import available
from triscale.errors import UserError
from triscale.models.model import Model, check_top, load
from triscale.nn import evaluating
from triscale.precision import Precision, check_precision
from triscale.weights import default_weights, way_to

BATCH = 64
Pictures = str | Path | Iterable[str | Path]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest classes of one picture with their probabilities, or why it could not be read."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Features:
    """What a network sees in n pictures. values: float32 [n, features], row by row of `paths`. failed: those that could
    not be read, with the reason; they have no row."""

    paths: tuple[Path, ...]
    values: npt.NDArray[np.float32]
    failed: tuple[Guess, ...]


@dataclass(frozen=True, slots=True)
class _Picture:
    """One picture: what it is called, and what a model is given to look at."""

    path: Path
    images: Images | None = None
    index: int = 0

    def seen_by(self, model: Model) -> Tensor | str:
        """What the network sees of it, or why there is nothing to see."""
        try:
            return model.preprocess(self.path if self.images is None else self.images.pixels(self.index))
        except UserError as error:
            return str(error)


def predict(
    model: str | Path | Model,
    pictures: Pictures,
    *,
    top: int = 5,
    precision: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Guess]:
    """The `top` likeliest classes of each picture.

    pictures: files, folders (searched for pictures, in the order of their names), manifests or folders of IDX files.
    precision: fp32, or bf16 or fp16, where the processor multiplies it; if None, as for `answering`. progress: is told
    (pictures decoded, pictures), first (0, pictures), then after each of them. Raises `UserError` for a model without
    learned weights, a path that does not exist, a top below 1, and a precision that is not here.
    """
    ready = learned(model)
    check_top(top)
    return _guesses(ready, _find(pictures), top, answering(ready, precision), progress or (lambda done, total: None))


def features(
    model: str | Path | Model, pictures: Pictures, *, stage: int | None = None, progress: Progress | None = None
) -> Features:
    """What the network's linear layer sees of each picture, or the averages of a stage's channels.

    pictures, progress: as for `predict`. stage: from 0; None takes what the linear layer sees. The whole maps of a
    batch are `model.maps(x)`. Raises `UserError` for a model without learned weights, a stage that it does not have,
    and for a path that does not exist.
    """
    ready = learned(model)
    stages = len(ready.stages)
    if stage is not None and not 0 <= stage < stages:
        raise UserError(f"--stage {stage}: the network has the stages 0 to {stages - 1}")
    see = ready.features if stage is None else partial(_averages, ready, stage)
    width = ready.architecture.features if stage is None else ready.architecture.stages[stage].channels
    rows, paths, failed = [np.empty((0, width), np.float32)], [], []
    for batch, x in _batches(ready, _find(pictures), progress or (lambda done, total: None)):
        paths += [picture.path for picture, error in batch if error is None]
        failed += [Guess(picture.path, error=error) for picture, error in batch if error is not None]
        if len(x):
            rows.append(_run(ready, see, x).numpy())
    return Features(tuple(paths), np.concatenate(rows), tuple(failed))


def learned(model: str | Path | Model, weights: str | Path | None = None) -> Model:
    """The model, as `load` gives it, if it has learned weights. Raises `UserError` with the way to some otherwise."""
    ready = load(model, weights)
    if ready.trained:
        return ready
    known = None if isinstance(model, Model) else default_weights(str(model))
    way = "name a run that `triscale fit` wrote, or weights that `triscale models` lists"
    if known is not None:
        way = f"its published weights are not on this machine: {way_to(known)}"
    named = model.architecture.name if isinstance(model, Model) else model
    raise UserError(f"{named}: has random weights, so its answers would mean nothing; {way}")


def answering(model: Model, precision: str | None = None) -> Precision:
    """In which precision a model answers: the one that is named; else the half precision of which its run found that it
    costs less than half a point, where our engine is faster here in it; else fp32. Raises `UserError` for one that
    cannot be named."""
    if precision is not None:
        named = check_precision(precision)
        engine_for(next(model.parameters()).device, precision=named)
        return named
    on_cpu = next(model.parameters()).device.type == "cpu"
    return model.precision if on_cpu and available().pays(model.precision) else "fp32"


def is_labelled(place: Path) -> bool:
    """Whether a place names labelled images, a manifest or a folder of IDX files, rather than pictures."""
    return is_idx(place) if place.is_dir() else place.suffix.lower() == ".csv"


def _averages(model: Model, stage: int, x: Tensor) -> Tensor:
    x = model.stem(x)
    for part in model.stages[: stage + 1]:
        x = part(x)
    return x.mean((2, 3))


@torch.inference_mode()
def _run(model: Model, see: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with evaluating(model):
        return see(x.to(next(model.parameters()).device)).float().cpu()


def _find(pictures: Pictures) -> list[_Picture]:
    given = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    return [picture for place in given for picture in _in_place(Path(place))]


def _in_place(place: Path) -> list[_Picture]:
    """The pictures of a file, a folder, a manifest or IDX files."""
    if not is_labelled(place):
        return [_Picture(path) for path in find_pictures(place)]
    if place.is_dir():
        splits = read(place, seed=None).splits().values()
        return [_Picture(Path(name), split, index) for split in splits for index, name in enumerate(split.names)]
    return [_Picture(entry.path) for entry in list_manifest(place, to_learn=False).entries]


def _batches(
    model: Model, pictures: list[_Picture], progress: Progress
) -> Iterator[tuple[list[tuple[_Picture, str | None]], Tensor]]:
    """Pictures with what is wrong with each, and (n, channels, h, w) of those that can be read."""
    progress(0, len(pictures))
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        inputs = []
        for x in ordered_map(lambda picture: picture.seen_by(model), batch):
            inputs.append(x)
            progress(start + len(inputs), len(pictures))
        readable = [x for x in inputs if isinstance(x, Tensor)]
        errors = [x if isinstance(x, str) else None for x in inputs]
        yield list(zip(batch, errors, strict=True)), torch.stack(readable) if readable else torch.empty(0)


def _guesses(
    model: Model, pictures: list[_Picture], top: int, precision: Precision, progress: Progress
) -> Iterator[Guess]:
    with running(model, precision=precision) as logits:
        for batch, x in _batches(model, pictures, progress):
            answers = iter(model.name_logits(logits(x), top) if len(x) else ())
            for picture, error in batch:
                yield Guess(picture.path, error=error) if error else Guess(picture.path, tuple(next(answers)))
