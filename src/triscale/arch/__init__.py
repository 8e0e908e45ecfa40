"""What a network is: descriptions, the zoo, rounding, JSON. No torch."""

from triscale.arch.files import from_dict, from_json, load, to_dict, to_json
from triscale.arch.resolve import resolve
from triscale.arch.rounding import adapt, multiply, round_channels, round_repeats
from triscale.arch.spec import (
    Activation,
    Architecture,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    Head,
    MBConv,
    Norm,
    Padding,
    Rounding,
    Skip,
    SpecError,
    Stage,
    Stem,
)
from triscale.arch.zoo import ZOO, published

__all__ = [
    "ZOO",
    "Activation",
    "Architecture",
    "Basic",
    "Block",
    "Bottleneck",
    "Conv",
    "DepthwiseSeparable",
    "FusedMBConv",
    "Head",
    "MBConv",
    "Norm",
    "Padding",
    "Rounding",
    "Skip",
    "SpecError",
    "Stage",
    "Stem",
    "adapt",
    "from_dict",
    "from_json",
    "load",
    "multiply",
    "published",
    "resolve",
    "round_channels",
    "round_repeats",
    "to_dict",
    "to_json",
]
