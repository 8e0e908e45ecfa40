"""Evidence laid over a picture: orange speaks for the class, blue against it, gray says nothing."""

import numpy as np
from PIL import Image

from triscale.explaining.explain import Explained, Explanation
from triscale.explaining.seeing import Floats, Pixels, spread

# Vermilion and blue of Okabe and Ito's palette: told apart with any colour vision, and by no one taken for gray.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)
DARKEST, BRIGHTEST = 40, 235  # of the gray picture: evidence shows on black and on white too
STRONGEST = 0.85  # the share of the colour at full evidence, so that the picture can be seen through it
PALE = 0.8  # how much of what a network did not see is white


def overlay(explained: Explained, explanation: Explanation) -> Pixels:
    """What the network saw, in gray, under its evidence: uint8 [H, W, 3].

    The colour's share grows evenly with the evidence, relative to the largest of this map.
    """
    if explained.picture is None:
        raise ValueError(f"{explained.path}: no picture to draw on")
    picture = explained.picture[explanation.seen]
    values = spread(explanation.values, picture.shape[:2])
    return paint(picture, values / strength(explanation))


def strength(explanation: Explanation) -> float:
    """The largest value of the map, for or against; never 0."""
    return max(float(np.abs(explanation.values).max()), float(np.finfo(np.float32).tiny))


def whole(explained: Explained, explanation: Explanation) -> Pixels:
    """The overlay within everything that is shown; what this network did not see is pale."""
    if explained.picture is None:
        raise ValueError(f"{explained.path}: no picture to draw on")
    gray = _gray(explained.picture)
    drawn = np.repeat(gray + PALE * (255 - gray), 3, axis=2).round().astype(np.uint8)
    drawn[explanation.seen] = overlay(explained, explanation)
    return drawn


def paint(picture: Pixels, evidence: Floats) -> Pixels:
    """uint8 [H, W, 3] under evidence [H, W] from -1 to 1."""
    gray = DARKEST + _gray(picture) * ((BRIGHTEST - DARKEST) / 255)
    share = STRONGEST * np.clip(np.abs(evidence), 0, 1)[:, :, None]
    colour = np.where(evidence[:, :, None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    return np.asarray(gray * (1 - share) + colour * share).round().astype(np.uint8)


def scale(width: int, height: int, *, signed: bool) -> Pixels:
    """The colours from most against (or from nothing) to most for, on middle gray: uint8 [height, width, 3]."""
    evidence = np.linspace(-1 if signed else 0, 1, width, dtype=np.float32)
    return paint(np.full((height, width, 3), 128, np.uint8), np.tile(evidence, (height, 1)))


def _gray(picture: Pixels) -> Floats:
    return np.asarray(Image.fromarray(picture).convert("L"), np.float32)[:, :, None]
