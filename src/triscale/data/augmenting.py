"""Chance changes to training pictures, each decided by (seed, epoch, position in the split) alone."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from triscale.data.chance import uniform
from triscale.data.decoding import PixelBox, Pixels
from triscale.data.policies import POLICIES, Policy
from triscale.errors import UserError

_ASPECTS = (3 / 4, 4 / 3)
_STREAM = 2
CACHE_MARGIN = 1.15
LARGEST_MAGNITUDE = 30
SMALLEST_ALPHA, LARGEST_ALPHA = 0.001, 1000.0  # of mixing: beyond them every share is 0, 1 or a half


@dataclass(frozen=True)
class Augment:
    """What may happen to a training picture, in this order; a share of 0, or None, is never.

    ``shift``: moved by up to this share of each side, uniformly, in whole pixels of which the last ones are rarer where
    the share is no whole number of them (so that pictures of any size move alike), edges replicated; for small uniform
    pictures.
    ``flip``: mirrored left to right half of the time; wrong for digits and letters. ``crop_scale``: for photographs,
    a random box of (from, to) share of the picture's area with an aspect of 3/4 to 4/3 is resized to the resolution;
    it takes the place of ``shift``.

    ``policy``: changes of colour and shape, see `policies`; for pictures of one or three channels. ``layers`` and
    ``magnitude`` are RandAugment's N, how many operations, and M, how strong, on the official scale: its ranges are
    written for 10, and larger magnitudes follow the same lines (the official trainings go up to 28). The other two
    policies have neither.

    ``erase``: the probability of a box of noise, see `erasing`. ``mixup`` and ``cutmix``: the α of the shares that
    two pictures have in one, see `mixing`; with both, each picture takes one of them with equal chance.

    Raises `UserError` for values out of range.
    """

    shift: float = 0.125
    flip: bool = False
    crop_scale: tuple[float, float] | None = None
    policy: Policy | None = None
    layers: int = 2
    magnitude: float = 9.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1:
            raise UserError(f"augment: shift {self.shift} is not in [0, 1); write a share of the side such as 0.125")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"augment: crop_scale {self.crop_scale} is not 0 < from <= to <= 1; write e.g. (0.35, 1.0)")
        if self.policy is not None and self.policy not in POLICIES:
            raise UserError(f"augment: policy {self.policy!r} is not one of {', '.join(POLICIES)}; choose one")
        if self.layers < 1:
            raise UserError(f"augment: layers {self.layers} is not at least 1; write for example 2")
        if not 0 <= self.magnitude <= LARGEST_MAGNITUDE:
            raise UserError(
                f"augment: magnitude {self.magnitude} is not in 0 to {LARGEST_MAGNITUDE}; write for example 9"
            )
        if not 0 <= self.erase <= 1:
            raise UserError(f"augment: erase {self.erase} is not in [0, 1]; write a probability such as 0.25")
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if alpha != 0 and not SMALLEST_ALPHA <= alpha <= LARGEST_ALPHA:
                raise UserError(
                    f"augment: {name} {alpha} is neither 0 nor from {SMALLEST_ALPHA} to {LARGEST_ALPHA}; write for "
                    "example 0.2"
                )

    @property
    def mixes(self) -> bool:
        """Whether targets have two labels."""
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of n pictures, in [0, 1): four for shape and place, one for the mirror."""

    values: npt.NDArray[np.float64]

    @classmethod
    def at(cls, seed: int, epoch: int, index: npt.NDArray[np.int64]) -> "Draws":
        """The draws of the pictures at positions ``index`` of the split, int64 [n]."""
        return cls(uniform((seed, _STREAM, epoch), index, 5))

    def mirrored(self, augment: Augment) -> npt.NDArray[np.bool_]:
        """Which of the n pictures are mirrored."""
        return (self.values[:, 4] < 0.5) & augment.flip

    def box(self, i: int, size: tuple[int, int], resolution: tuple[int, int], augment: Augment) -> PixelBox:
        """A random box (left, top, right, bottom) of picture ``i``, ``size`` (h, w), aspect relative to the target's.

        In whole pixels. One draw, clipped to the picture, where torchvision draws up to ten times: nothing depends on
        luck's history.
        """
        assert augment.crop_scale is not None
        (h, w), (low, high) = size, augment.crop_scale
        area = (low + (high - low) * self.values[i, 0]) * h * w
        narrow, wide = math.log(_ASPECTS[0]), math.log(_ASPECTS[1])
        aspect = math.exp(narrow + (wide - narrow) * self.values[i, 1]) * resolution[1] / resolution[0]
        height = min(h, max(1, round(math.sqrt(area / aspect))))
        width = min(w, max(1, round(math.sqrt(area * aspect))))
        left, top = int((w - width + 1) * self.values[i, 2]), int((h - height + 1) * self.values[i, 3])
        return left, top, left + width, top + height


def shift_and_flip(pictures: Pixels, index: npt.NDArray[np.int64], augment: Augment, draws: Draws) -> Pixels:
    """``pictures`` uint8 [n, h, w, c] at ``index`` int64 [b] → uint8 [b, h, w, c], each shifted and mirrored its way.

    One gather for the whole batch: every output pixel knows its source row and column, and clipping those to the
    picture replicates the edges.
    """
    _, h, w, c = pictures.shape
    rows, columns = np.arange(h), np.arange(w)
    down = _steps(draws.values[:, 0], augment.shift * h)
    right = _steps(draws.values[:, 1], augment.shift * w)
    from_row = np.clip(rows + down[:, None], 0, h - 1)
    from_column = np.clip(columns + right[:, None], 0, w - 1)
    from_column = np.where(draws.mirrored(augment)[:, None], from_column[:, ::-1], from_column)
    flat = (index[:, None, None] * h + from_row[:, :, None]) * w + from_column[:, None, :]
    # mode="clip" is numpy's fast path; nothing is out of range.
    moved: Pixels = pictures.reshape(-1, c).take(flat.ravel(), axis=0, mode="clip").reshape(len(index), h, w, c)
    return moved


def _steps(draw: npt.NDArray[np.float64], most: float) -> npt.NDArray[np.int64]:
    """[0, 1) → -most … most, each as likely; where `most` is between two numbers, the larger one, as rarely as that.

    Cut to the smaller one, 18 pixels would move by a twentieth and 20 by a tenth: a difference of networks of
    neighbouring resolutions that is none of theirs.
    """
    return np.floor(draw * (2 * most + 1) - most).astype(np.int64)
