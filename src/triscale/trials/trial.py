"""A trial: one training as a pure function of values, and what came out of it."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from triscale.arch import Architecture, from_dict, to_dict
from triscale.errors import UserError
from triscale.plain import from_plain, to_plain
from triscale.precision import TrainingPrecision
from triscale.training import Recipe


@dataclass(frozen=True, slots=True)
class How:
    """How a trial computes; decided once for all that are compared, for it is part of what comes out.

    kernels: every layer that has one trains by Triscale's own kernel.
    """

    device: str = "cpu"
    precision: TrainingPrecision = "fp32"
    threads: int = 1
    kernels: bool = False


@dataclass(frozen=True)
class Trial:
    """Everything that decides a training: equal trials have equal results, wherever they run.

    data: fingerprint of the images. images: how many training images it learns from, a stratified part of all. seed:
    of weights and batches. version: of this package.
    """

    architecture: Architecture
    recipe: Recipe
    data: str
    images: int
    seed: int
    how: How
    version: str = field(default_factory=lambda: version("triscale"))

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives an equal trial back."""
        return {
            "architecture": to_dict(self.architecture),
            "recipe": to_plain(self.recipe),
            "data": self.data,
            "images": self.images,
            "seed": self.seed,
            "how": to_plain(self.how),
            "version": self.version,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], source: str) -> "Trial":
        """Raises `UserError` naming `source` where it is none."""
        try:
            return cls(
                architecture=from_dict(values["architecture"], source),
                recipe=from_plain(Recipe, values["recipe"], source, "recipe"),
                data=values["data"],
                images=values["images"],
                seed=values["seed"],
                how=from_plain(How, values["how"], source, "how"),
                version=values["version"],
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{source}: not a trial of this version ({error!r})") from None

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of its values, the network's name left out: a name changes nothing."""
        values = Trial.from_json(self.to_json(), "trial").to_json()  # a 0 and a 0.0 are equal, and shall have one key
        del values["architecture"]["name"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What a trial gave.

    selection, loss: accuracy and mean log loss on the validation images, which everything is chosen by. test: which
    test images it named right, see `pack`; sealed: nobody reads it before everything is chosen. losses: of the
    epochs. macs: of the network. seconds: of all of it, of which preparing: before the first step. worker: who did it.
    memory: bytes at the peak of that process.
    """

    selection: float
    loss: float
    test: str
    losses: tuple[float, ...]
    macs: int
    seconds: float
    preparing: float
    worker: str
    memory: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_plain` reads them."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, values: object, source: str) -> "Outcome":
        """Raises `UserError` naming `source`."""
        return from_plain(cls, values, source, "outcome")


def pack(right: npt.NDArray[np.bool_]) -> str:
    """Which of n images were named right, bool [n], as text: a bit each."""
    return f"{len(right)}:" + base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str) -> npt.NDArray[np.bool_]:
    """The inverse of `pack`. Raises `UserError` for a text that it did not make."""
    n, _, bits = text.partition(":")
    try:
        if not n.isdecimal():  # a count below zero would be taken off the end
            raise ValueError(n)
        packed = np.frombuffer(base64.b64decode(bits, validate=True), np.uint8)
        right = np.unpackbits(packed, count=int(n)).astype(bool)
    except ValueError:
        raise UserError(f"{text[:20]!r}…: no record of which images were named right") from None
    if len(packed) != -(-len(right) // 8):
        raise UserError(f"{text[:20]!r}…: a record of {n} images has another length")
    return right
