"""AutoAugment, RandAugment and TrivialAugment: which operations a picture gets, and how strong.

A level is a number on the official scale, on which the ranges were written down for 0 to 10 and larger levels follow
the same lines. Sources: AutoAugment (arXiv 1805.09501) and RandAugment (arXiv 1909.13719) as in the official
EfficientNet code, tensorflow/tpu models/official/efficientnet/autoaugment.py; TrivialAugment (arXiv 2103.10158) in its
wide form, as in the authors' automl/trivialaugment aug_lib.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from triscale.data.operations import Step

Policy = Literal["autoaugment", "randaugment", "trivialaugment"]
Row = npt.NDArray[np.float64]
Rule = tuple[str, float, float]
"""Operation, probability, level."""

POLICIES: tuple[Policy, ...] = get_args(Policy)
LARGEST_LEVEL = 10.0

AUTOAUGMENT: Sequence[tuple[Rule, Rule]] = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)
"""The ImageNet policy v0: one of the 25 pairs for each picture."""

RANDAUGMENT = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "color", "contrast", "brightness"),
    *("sharpness", "shear_x", "shear_y", "translate_x", "translate_y", "cutout", "solarize_add"),
)

TRIVIALAUGMENT = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast", "brightness"),
    *("sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
TRIVIAL_STRENGTHS = 31

SIGNED = frozenset({"rotate", "shear_x", "shear_y", "translate_x", "translate_y"})
"""Either way with equal chance."""

_LAYER_DRAWS = 4


def _nothing(level: float) -> float:
    return 0.0


def _factor(level: float) -> float:
    return level / 10 * 1.8 + 0.1


def _bits(level: float) -> float:
    """Four at level 10; eight are all. One at least: TensorFlow carries out a shift by eight bits as one by seven."""
    return min(8, max(1, int(level / 10 * 4)))


def _wide_factor(strength: int) -> float:
    return strength * 1.99 / 30 + 0.01


def _wide_move(strength: int) -> float:
    """The authors' 32 pixels, as a share of their 224-pixel pictures."""
    return strength / 30 * 32 / 224


def _moved(share: float) -> Callable[[float], float]:
    """What the official code measures in pixels, as a share of the side of its 224-pixel pictures, so that small
    pictures are not moved out of sight. It grows no further beyond level 10: the larger official magnitudes go with
    larger pictures, in which the same pixels are no larger share (level 28 at 600 pixels: 280 of them, 0.47)."""
    return lambda level: min(level, LARGEST_LEVEL) / LARGEST_LEVEL * share


# AutoAugment's official 250 pixels would move 224-pixel pictures out at level 9; its paper has 150 of 331, the same
# share as RandAugment's 100 of 224 to two digits, which is taken for both.
AMOUNTS: Mapping[str, Callable[[float], float]] = {
    "autocontrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "rotate": lambda level: level / 10 * 30,
    "posterize": _bits,
    "solarize": lambda level: int(level / 10 * 256),
    "solarize_add": lambda level: int(level / 10 * 110),
    "color": _factor,
    "contrast": _factor,
    "brightness": _factor,
    "sharpness": _factor,
    "shear_x": lambda level: level / 10 * 0.3,
    "shear_y": lambda level: level / 10 * 0.3,
    "translate_x": _moved(100 / 224),
    "translate_y": _moved(100 / 224),
    "cutout": _moved(40 / 224),
}
"""Level → amount, unsigned, for AutoAugment and RandAugment."""

TRIVIAL_AMOUNTS: Mapping[str, Callable[[int], float]] = {
    "identity": _nothing,
    "autocontrast": _nothing,
    "equalize": _nothing,
    "rotate": lambda strength: int(strength * 135 / 30),
    "solarize": lambda strength: 256 - int(strength * 256 / 30),
    "color": _wide_factor,
    "posterize": lambda strength: 8 - int(strength * 6 / 30),
    "contrast": _wide_factor,
    "brightness": _wide_factor,
    "sharpness": _wide_factor,
    "shear_x": lambda strength: strength * 0.99 / 30,
    "shear_y": lambda strength: strength * 0.99 / 30,
    "translate_x": _wide_move,
    "translate_y": _wide_move,
}
"""Strength 0, 1 … 30 → amount, unsigned, for TrivialAugment."""


def draws_for(policy: Policy, layers: int) -> int:
    """How many random numbers `steps` needs for one picture."""
    return {"autoaugment": 5, "randaugment": _LAYER_DRAWS * layers, "trivialaugment": 3}[policy]


def steps(policy: Policy, layers: int, magnitude: float, row: Row) -> list[Step]:
    """The operations of one picture, in order, from its random numbers ``row`` in [0, 1), float64 [`draws_for`].

    ``autoaugment``: one pair, each of its two with its own probability. ``randaugment``: ``layers`` of the sixteen,
    each drawn anew, at the level ``magnitude``. ``trivialaugment``: one of the fourteen, at one of 31 strengths.
    """
    if policy == "autoaugment":
        pair = AUTOAUGMENT[int(row[0] * len(AUTOAUGMENT))]
        return [
            Step(name, _signed(name, AMOUNTS[name](level), row[2 + 2 * k]))
            for k, (name, probability, level) in enumerate(pair)
            if row[1 + 2 * k] < probability
        ]
    if policy == "randaugment":
        return [_layer(magnitude, row[_LAYER_DRAWS * k :]) for k in range(layers)]
    name = TRIVIALAUGMENT[int(row[0] * len(TRIVIALAUGMENT))]
    strength = int(row[1] * TRIVIAL_STRENGTHS)
    return [Step(name, _signed(name, TRIVIAL_AMOUNTS[name](strength), row[2]))]


def _layer(magnitude: float, row: Row) -> Step:
    name = RANDAUGMENT[int(row[0] * len(RANDAUGMENT))]
    return Step(name, _signed(name, AMOUNTS[name](magnitude), row[1]), (float(row[2]), float(row[3])))


def _signed(name: str, amount: float, draw: float) -> float:
    return -amount if name in SIGNED and draw < 0.5 else amount
