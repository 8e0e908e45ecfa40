"""The single changes of colour and shape that augmentation policies are made of, on Pillow images.

Each takes an ``L`` or ``RGB`` image of any size and gives one of the same mode and size. What comes in from outside is
gray 128 and pixels are moved without interpolation, both as in the official EfficientNet code (tensorflow/tpu,
models/official/efficientnet/autoaugment.py). Contrast is Pillow's, around the picture's mean gray; the official code
names that as its model, and divides the sum of its histogram by 256 instead.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

_GRAY = 128
_SOLARIZE_ADD_BELOW = 128

Operation = Callable[[Image.Image, float], Image.Image]


class Step(NamedTuple):
    """One operation as it is applied: its name in `OPERATIONS`, its amount, and where (x, y in [0, 1)) for ``cutout``.

    ``amount``, by operation: degrees for ``rotate``; the factor 0 (none) … 1 (as it is) … for ``color``, ``contrast``,
    ``brightness`` and ``sharpness``; bits kept for ``posterize``; the lowest value inverted for ``solarize``; what is
    added to values below 128 for ``solarize_add``; columns per row, or rows per column, for the shears; a share of the
    side for the translations, and of the shorter side for ``cutout``, whose square has twice that side; nothing for
    the rest.
    """

    name: str
    amount: float = 0.0
    place: tuple[float, float] = (0.5, 0.5)


def _fill(image: Image.Image) -> int | tuple[int, ...]:
    return _GRAY if image.mode == "L" else (_GRAY,) * 3


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    """The pixel at (x, y) comes from (a x + b y + c, d x + e y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=_fill(image))


def _solarize_add(image: Image.Image, amount: float) -> Image.Image:
    table = [min(255, value + int(amount)) if value < _SOLARIZE_ADD_BELOW else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _cutout(image: Image.Image, half: float, place: tuple[float, float]) -> Image.Image:
    """A gray square around a place that may be at the edge, where it is cut off."""
    w, h = image.size
    reach = int(half * min(w, h))
    x, y = int(place[0] * w), int(place[1] * h)
    box = (max(0, x - reach), max(0, y - reach), min(w, x + reach), min(h, y + reach))
    if not reach:
        return image
    covered = image.copy()
    covered.paste(_fill(image), box)
    return covered


OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, lowest: ImageOps.solarize(image, int(lowest)),
    "solarize_add": _solarize_add,
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "rotate": lambda image, degrees: image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=_fill(image)),
    "shear_x": lambda image, slope: _affine(image, (1, slope, 0, 0, 1, 0)),
    "shear_y": lambda image, slope: _affine(image, (1, 0, 0, slope, 1, 0)),
    "translate_x": lambda image, share: _affine(image, (1, 0, share * image.width, 0, 1, 0)),
    "translate_y": lambda image, share: _affine(image, (1, 0, 0, 0, 1, share * image.height)),
}


def apply(image: Image.Image, step: Step) -> Image.Image:
    """The image after one step; ``L`` or ``RGB`` in, the same mode and size out. Cheap steps may give it back as is."""
    if step.name == "cutout":
        return _cutout(image, step.amount, step.place)
    return OPERATIONS[step.name](image, step.amount)
