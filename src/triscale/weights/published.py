"""Published weights as objects: whose they are, what they fit, how to look at a picture for them. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from triscale.arch import Architecture, Padding, published
from triscale.data import Preprocess
from triscale.weights.imagenet import imagenet_classes

IMAGENET_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Weights:
    """Published weights.

    name: a zoo name, or `project/name there`. network: of the zoo, which they fit with this padding and epsilon of the
    normalisation. project: whose names the file's tensors have; see `naming.PROJECTS`. preprocess: as the publisher
    looks at pictures. url, package: where the file is to be had; file: its name. sha256: of its content; the beginning
    of it where the publisher states no more. bytes: its size (of downloads about). top1, top5: the accuracy on
    ImageNet's validation images as published by `accuracy_by`; nobody here measured it. default: what the network's
    own name means.
    """

    name: str
    network: str
    project: str
    padding: Padding
    epsilon: float
    preprocess: Preprocess
    url: str | None
    package: str | None
    file: str
    sha256: str
    bytes: int
    licence: str
    trained_on: str
    top1: float | None
    top5: float | None
    accuracy_by: str | None
    default: bool

    @property
    def there(self) -> str:
        """The name that the project itself uses, with its tag after a full stop: `tf_efficientnet_b0.ap_in1k`."""
        return self.name.rpartition("/")[2]

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names in the order of the logits: ImageNet's, of all that is listed here."""
        return imagenet_classes()

    @property
    def architecture(self) -> Architecture:
        """The network that the weights fit."""
        return variant(self.network, self.padding, self.epsilon, self.preprocess.resolution)


def variant(network: str, padding: Padding, epsilon: float, resolution: tuple[int, int]) -> Architecture:
    """A network of the zoo as somebody else built it."""
    ours = published(network)
    return replace(ours, padding=padding, norm=replace(ours.norm, epsilon=epsilon), resolution=resolution)


@cache
def catalogue() -> Mapping[str, Weights]:
    """All published weights that are known, by name."""
    text = files("triscale.weights").joinpath("catalogue.json").read_text(encoding="utf-8")
    found = [_entry(row) for row in json.loads(text)["weights"]]
    return {weights.name: weights for weights in found}


def default_weights(network: str) -> Weights | None:
    """What a network's own name means; None where nobody published weights."""
    return next((weights for weights in catalogue().values() if weights.default and weights.network == network), None)


def _entry(row: dict[str, Any]) -> Weights:
    height, width = row.pop("resolution")
    preprocess = Preprocess(
        resolution=(height, width),
        channels=3,
        mean=tuple(row.pop("mean")),
        std=tuple(row.pop("std")),
        crop=row.pop("crop"),
        interpolation=row.pop("interpolation"),
    )
    return Weights(project=row.pop("from"), preprocess=preprocess, **row)
