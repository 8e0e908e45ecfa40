"""What a network is: an immutable value, read like Table 1 of the EfficientNet paper (arXiv 1905.11946), row by row.

Nothing here holds a tensor or needs torch. `costing` counts an `Architecture`, `scaling` grows it, `nn` builds it.
Padding, normalisation and rounding belong to the value, so two networks that compute differently never compare equal;
the name is the one thing that does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from triscale.errors import UserError

Activation = Literal["silu", "relu", "relu6", "hardswish", "none"]
Padding = Literal["same", "symmetric"]
Skip = Literal["identity", "pool", "none"]
HeadWidth = Literal["scaled", "fixed", "never_narrower"]

# Far beyond every published network; they keep a spec file from asking for more than a machine can hold.
MAX_CHANNELS = 65_536
MAX_RESOLUTION = 8_192
MAX_REPEATS = 1_024
MAX_STAGES = 64
MAX_CLASSES = 1_000_000

# A name becomes part of file names.
_NAME = re.compile(r"(?!\.)[^/\\]{1,120}")


class SpecError(UserError):
    """A description of a network that no network can have."""


def _whole(what: str, value: int, low: int, high: int) -> None:
    if type(value) is not int:
        raise SpecError(f"{what} must be a whole number, not {value!r}")
    if not low <= value <= high:
        found = f"{value:,}" if abs(value) < 1e18 else f"a number of {value.bit_length()} bits"
        raise SpecError(f"{what} must be from {low} to {high:,}, not {found}")


def _odd(value: int) -> None:
    # An odd kernel has a centre: "same" and "symmetric" padding then agree on every map's size.
    _whole("kernel", value, 1, 31)
    if value % 2 == 0:
        raise SpecError(f"kernel must be odd (1, 3, 5, 7, …), not {value}")


def _share(what: str, value: float, high: float, *, closed: bool = True) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{what} must be a number, not {value!r}")
    if not (0 <= value <= high and (closed or value < high)):
        raise SpecError(f"{what} must be from 0 to {'' if closed else 'below '}{high:g}, not {value}")


def _one_of(what: str, value: object, options: object) -> None:
    names = get_args(options)
    if value not in names:
        raise SpecError(f"{what} must be one of {', '.join(names)}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Conv:
    """k×k convolution, normalisation, activation."""

    kernel: int = 3
    activation: Activation = "relu"
    kind: Literal["conv"] = field(default="conv", init=False, repr=False)

    def __post_init__(self) -> None:
        _odd(self.kernel)
        _one_of("activation", self.activation, Activation)


@dataclass(frozen=True, slots=True)
class DepthwiseSeparable:
    """Depthwise k×k, then pointwise 1×1, each normalised and activated (MobileNetV1, arXiv 1704.04861, section 3.1)."""

    kernel: int = 3
    activation: Activation = "relu"
    kind: Literal["depthwise_separable"] = field(default="depthwise_separable", init=False, repr=False)

    def __post_init__(self) -> None:
        _odd(self.kernel)
        _one_of("activation", self.activation, Activation)


@dataclass(frozen=True, slots=True)
class MBConv:
    """Inverted bottleneck: expand 1×1, depthwise k×k, squeeze-excite, project 1×1 without activation.

    The expansion of 1 has no expand convolution. The squeeze-excite ratio counts from the block's *input* channels, as
    in the official EfficientNet code; 0 leaves it out.
    """

    kernel: int = 3
    expansion: int = 6
    squeeze_excite: float = 0.25
    activation: Activation = "silu"
    kind: Literal["mbconv"] = field(default="mbconv", init=False, repr=False)

    def __post_init__(self) -> None:
        _odd(self.kernel)
        _whole("expansion", self.expansion, 1, 64)
        _share("squeeze_excite", self.squeeze_excite, 1)
        _one_of("activation", self.activation, Activation)


@dataclass(frozen=True, slots=True)
class FusedMBConv:
    """MBConv whose expand and depthwise convolutions are one k×k convolution (EfficientNetV2, arXiv 2104.00298).

    The expansion of 1 leaves a single k×k convolution with activation and no projection.
    """

    kernel: int = 3
    expansion: int = 4
    squeeze_excite: float = 0.0
    activation: Activation = "silu"
    kind: Literal["fused_mbconv"] = field(default="fused_mbconv", init=False, repr=False)

    def __post_init__(self) -> None:
        _odd(self.kernel)
        _whole("expansion", self.expansion, 1, 64)
        _share("squeeze_excite", self.squeeze_excite, 1)
        _one_of("activation", self.activation, Activation)


@dataclass(frozen=True, slots=True)
class Basic:
    """Two k×k convolutions around a shortcut (ResNet-18/34, arXiv 1512.03385, figure 5 left)."""

    kernel: int = 3
    activation: Activation = "relu"
    kind: Literal["basic"] = field(default="basic", init=False, repr=False)

    def __post_init__(self) -> None:
        _odd(self.kernel)
        _one_of("activation", self.activation, Activation)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """1×1 down to channels / reduction, k×k (which carries the stride), 1×1 up (ResNet-50 and deeper, v1.5)."""

    kernel: int = 3
    reduction: int = 4
    activation: Activation = "relu"
    kind: Literal["bottleneck"] = field(default="bottleneck", init=False, repr=False)

    def __post_init__(self) -> None:
        _odd(self.kernel)
        _whole("reduction", self.reduction, 1, 64)
        _one_of("activation", self.activation, Activation)


Block = Conv | DepthwiseSeparable | MBConv | FusedMBConv | Basic | Bottleneck
BLOCKS: tuple[type[Block], ...] = get_args(Block)


@dataclass(frozen=True, slots=True)
class Stage:
    """`repeats` blocks with the same output channels; only the first has the stride.

    skip: `identity` adds the block's input where shapes agree (ResNet blocks project it by a 1×1 convolution where
    they do not); `pool` also adds it where they do not, average-pooled by the stride and zero-padded to more channels
    (no parameters; left out where channels shrink); `none` adds nothing.
    deepens: whether depth scaling repeats this stage (EfficientNet-Lite keeps its first and last).
    """

    block: Block
    channels: int
    repeats: int = 1
    stride: int = 1
    skip: Skip = "identity"
    deepens: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.block, BLOCKS):
            raise SpecError(f"block must be one of {', '.join(b.__name__ for b in BLOCKS)}, not {self.block!r}")
        _whole("channels", self.channels, 1, MAX_CHANNELS)
        _whole("repeats", self.repeats, 1, MAX_REPEATS)
        _whole("stride", self.stride, 1, 8)
        _one_of("skip", self.skip, Skip)
        if type(self.deepens) is not bool:
            raise SpecError(f"deepens must be true or false, not {self.deepens!r}")


@dataclass(frozen=True, slots=True)
class Stem:
    """The first convolution; `pool` is the stride of a 3×3 max-pooling after it (ResNet: 2), 1 for none."""

    channels: int = 32
    kernel: int = 3
    stride: int = 2
    activation: Activation = "silu"
    pool: int = 1

    def __post_init__(self) -> None:
        _whole("channels", self.channels, 1, MAX_CHANNELS)
        _odd(self.kernel)
        _whole("stride", self.stride, 1, 8)
        _one_of("activation", self.activation, Activation)
        _whole("pool", self.pool, 1, 8)


@dataclass(frozen=True, slots=True)
class Head:
    """An optional 1×1 convolution to `channels` (null: none), global average pooling, dropout, a linear layer."""

    classes: int = 1000
    channels: int | None = 1280
    activation: Activation = "silu"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _whole("classes", self.classes, 1, MAX_CLASSES)
        if self.channels is not None:
            _whole("channels", self.channels, 1, MAX_CHANNELS)
        _one_of("activation", self.activation, Activation)
        _share("dropout", self.dropout, 1, closed=False)


@dataclass(frozen=True, slots=True)
class Norm:
    """Batch normalisation. `momentum` is the share of the running average that is kept (.99: PyTorch's 0.01)."""

    epsilon: float = 1e-3
    momentum: float = 0.99

    def __post_init__(self) -> None:
        _share("epsilon", self.epsilon, 1)
        if not self.epsilon > 0:
            raise SpecError(f"epsilon must be above 0, not {self.epsilon}")
        _share("momentum", self.momentum, 1)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How width scaling turns a product into channels (`rounding.round_channels`), and what it leaves alone.

    divisor: channels are multiples of it, and at least it. stem: whether the stem is widened.
    head: `scaled`, `fixed` (EfficientNet-Lite), or `never_narrower` than the baseline (MobileNetV2's official code).
    """

    divisor: int = 8
    stem: bool = True
    head: HeadWidth = "scaled"

    def __post_init__(self) -> None:
        _whole("divisor", self.divisor, 1, 1024)
        if type(self.stem) is not bool:
            raise SpecError(f"stem must be true or false, not {self.stem!r}")
        _one_of("head", self.head, HeadWidth)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network: input, stem, stages, head, and how it pads, normalises and rounds.

    resolution: (height, width) in pixels. channels: of the input image. stochastic_depth: drop probability that block i
    of N approaches as i/N grows (official code: 0.2·i/N). Raises `SpecError` where a stride meets a map of one pixel.
    """

    stages: tuple[Stage, ...]
    stem: Stem = Stem()
    head: Head = Head()
    resolution: tuple[int, int] = (224, 224)
    channels: int = 3
    padding: Padding = "same"
    norm: Norm = Norm()
    stochastic_depth: float = 0.2
    rounding: Rounding = Rounding()
    name: str = field(default="custom", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.stages, tuple) or not all(isinstance(stage, Stage) for stage in self.stages):
            raise SpecError("stages must be a tuple of Stage")
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise SpecError(f"a network has from 1 to {MAX_STAGES} stages, not {len(self.stages)}")
        if not isinstance(self.resolution, tuple) or len(self.resolution) != 2:
            raise SpecError(f"resolution must be (height, width), not {self.resolution!r}")
        for side in self.resolution:
            _whole("resolution", side, 1, MAX_RESOLUTION)
        _whole("channels", self.channels, 1, MAX_CHANNELS)
        _one_of("padding", self.padding, Padding)
        _share("stochastic_depth", self.stochastic_depth, 1, closed=False)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or not self.name.isprintable():
            raise SpecError(f"name must be 1 to 120 printable characters without slashes, not {self.name!r:.150}")
        self._check_maps()

    def _check_maps(self) -> None:
        height, width = self.resolution
        for place, stride in self.strides():
            if stride > min(height, width):
                raise SpecError(
                    f"{place}: stride {stride} on a map of {height}×{width} pixels empties it; "
                    f"raise the resolution above {self.resolution[0]}×{self.resolution[1]} or lower a stride"
                )
            height, width = -(-height // stride), -(-width // stride)

    def strides(self) -> Iterator[tuple[str, int]]:
        """Every place that may shrink the map, in order: the stem, its pooling, each stage."""
        yield "stem", self.stem.stride
        yield "stem.pool", self.stem.pool
        for index, stage in enumerate(self.stages):
            yield f"stages.{index}", stage.stride

    @property
    def classes(self) -> int:
        """Number of classes (the head's)."""
        return self.head.classes

    @property
    def features(self) -> int:
        """Channels that global pooling sees: the head's convolution, or the last stage where there is none."""
        return self.stages[-1].channels if self.head.channels is None else self.head.channels

    @property
    def blocks(self) -> int:
        """Number of blocks in all stages."""
        return sum(stage.repeats for stage in self.stages)
