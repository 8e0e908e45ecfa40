"""The surest mistakes, as pictures that lie inside the page."""

from dataclasses import dataclass

import numpy as np

from triscale.data import Images
from triscale.errors import UserError
from triscale.evaluating import Predictions
from triscale.reporting.thumbnails import address

MOST = 24
SIDE = 96  # pixels of a picture in the page, at most


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test image that was named wrongly, and how sure the model was. picture: a data address."""

    name: str
    label: str
    called: str
    confidence: float
    picture: str


def worst_mistakes(test: Predictions, images: Images) -> list[Mistake]:
    """The wrong answers that the model was surest of, the surest first. A picture that is gone by now is left out."""
    confidence, predicted = test.probabilities.max(1), test.predicted
    wrong = np.flatnonzero(predicted != test.labels)
    found = []
    for i in wrong[np.argsort(-confidence[wrong], kind="stable")]:
        try:
            picture = address(images.pixels(int(i)), SIDE)
        except UserError:
            continue
        found.append(
            Mistake(
                test.names[i],
                test.classes[test.labels[i]],
                test.classes[predicted[i]],
                float(confidence[i]),
                picture,
            )
        )
        if len(found) == MOST:
            break
    return found
