"""What a model says of pictures that nobody labelled."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from triscale.data.folders import find_pictures
from triscale.errors import UserError
from triscale.models.model import Model, load


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest classes of one picture with their probabilities, or why it could not be read."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def predict(model: str | Path | Model, pictures: str | Path | Iterable[str | Path], *, top: int = 5) -> Iterator[Guess]:
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
    return _guesses(ready, found, top)


def _guesses(model: Model, paths: list[Path], top: int) -> Iterator[Guess]:
    for path in paths:
        try:
            yield Guess(path, tuple(model.predict(path, top)))
        except UserError as error:
            yield Guess(path, error=str(error))
