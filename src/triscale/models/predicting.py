"""What a model says of pictures that nobody labelled."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from triscale.data.folders import find_pictures
from triscale.data.threads import ordered_map
from triscale.errors import UserError
from triscale.models.model import Model, load

BATCH = 64


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest classes of one picture with their probabilities, or why it could not be read."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def predict(
    model: str | Path | Model,
    pictures: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Guess]:
    """The `top` likeliest classes of each picture; folders are searched for pictures, in the order of their names.

    Raises `UserError` for a model without learned weights, and for a path that does not exist.
    """
    ready = model if isinstance(model, Model) else load(model)
    if not ready.trained:
        raise UserError(
            f"{model}: has random weights, so its answers would mean nothing; name a run that `triscale fit` wrote"
        )
    if top < 1:
        raise UserError(f"--top {top}: at least one class is shown")
    given = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    found = [path for place in given for path in find_pictures(Path(place))]
    return _guesses(ready, found, top, progress or (lambda done, total: None))


def _guesses(model: Model, paths: list[Path], top: int, progress: Callable[[int, int], None]) -> Iterator[Guess]:
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        inputs = list(ordered_map(partial(_input, model), batch))
        readable = [x for x in inputs if isinstance(x, Tensor)]
        answers = iter(model.name_classes(torch.stack(readable), top) if readable else ())
        for path, x in zip(batch, inputs, strict=True):
            yield Guess(path, error=x) if isinstance(x, str) else Guess(path, tuple(next(answers)))
        progress(start + len(batch), len(paths))


def _input(model: Model, path: Path) -> Tensor | str:
    """What the network sees of a picture, or why there is nothing to see."""
    try:
        return model.preprocess(path)
    except UserError as error:
        return str(error)
