"""The surest mistakes, as pictures that lie inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from triscale.data import Images
from triscale.errors import UserError
from triscale.evaluating import Predictions

MOST = 24
SIDE = 96  # pixels of a picture in the page, at most
LOSSLESS = 64  # pixels: smaller pictures are few bytes as they are


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
            picture = _address(images.pixels(int(i)))
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


def _address(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    if pixels.shape[2] not in (1, 3):
        pixels = pixels[:, :, :1]
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((SIDE, SIDE))
    kind = "png" if max(image.size) <= LOSSLESS else "jpeg"
    out = io.BytesIO()
    image.save(out, kind)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
