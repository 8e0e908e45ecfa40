"""The published networks, as data, each with its source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from triscale.arch.rounding import multiply
from triscale.arch.spec import (
    Activation,
    Architecture,
    Basic,
    Bottleneck,
    DepthwiseSeparable,
    Head,
    MBConv,
    Norm,
    Rounding,
    SpecError,
    Stage,
    Stem,
)

EFFICIENTNET = "Tan & Le 2019, arXiv 1905.11946; sizes from the official code, efficientnet_builder.py"
LITE = "official EfficientNet-Lite code, lite/efficientnet_lite_builder.py (2020)"


@dataclass(frozen=True)
class Published:
    """A zoo entry: how to make the network, where it was published."""

    make: Callable[[], Architecture]
    source: str


def _efficientnet_stages(squeeze_excite: float, activation: Activation, *, lite: bool) -> tuple[Stage, ...]:
    # Table 1 of the paper. Columns: kernel, expansion, channels, repeats, stride.
    rows = (
        (3, 1, 16, 1, 1),
        (3, 6, 24, 2, 2),
        (5, 6, 40, 2, 2),
        (3, 6, 80, 3, 2),
        (5, 6, 112, 3, 1),
        (5, 6, 192, 4, 2),
        (3, 6, 320, 1, 1),
    )
    return tuple(
        Stage(
            MBConv(kernel, expansion, squeeze_excite, activation),
            channels,
            repeats,
            stride,
            deepens=not (lite and channels in (16, 320)),
        )
        for kernel, expansion, channels, repeats, stride in rows
    )


def _sized(base: Architecture, name: str, width: float, depth: float, resolution: int, dropout: float) -> Architecture:
    # The published resolutions are whole numbers of pixels, not 224 times a multiplier.
    grown = multiply(base, depth=depth, width=width)
    return replace(grown, name=name, resolution=(resolution, resolution), head=replace(grown.head, dropout=dropout))


# width, depth, resolution, dropout
EFFICIENTNET_SIZES: Mapping[str, tuple[float, float, int, float]] = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5),
    "efficientnet_b8": (2.2, 3.6, 672, 0.5),
    "efficientnet_l2": (4.3, 5.3, 800, 0.5),
}
LITE_SIZES: Mapping[str, tuple[float, float, int, float]] = {
    "efficientnet_lite0": (1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 260, 0.3),
    "efficientnet_lite3": (1.2, 1.4, 280, 0.3),
    "efficientnet_lite4": (1.4, 1.8, 300, 0.3),
}


def _efficientnet(name: str) -> Architecture:
    base = Architecture(_efficientnet_stages(0.25, "silu", lite=False))
    return _sized(base, name, *EFFICIENTNET_SIZES[name])


def _efficientnet_lite(name: str) -> Architecture:
    base = Architecture(
        _efficientnet_stages(0.0, "relu6", lite=True),
        stem=Stem(32, activation="relu6"),
        head=Head(channels=1280, activation="relu6"),
        rounding=Rounding(stem=False, head="fixed"),
    )
    return _sized(base, name, *LITE_SIZES[name])


def _mobilenet_v1() -> Architecture:
    block = DepthwiseSeparable(3, "relu6")
    rows = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, repeats, stride
    return Architecture(
        tuple(Stage(block, channels, repeats, stride, skip="none") for channels, repeats, stride in rows),
        stem=Stem(32, activation="relu6"),
        head=Head(channels=None, dropout=0.001),
        stochastic_depth=0.0,
        name="mobilenet_v1",
    )


def _mobilenet_v2() -> Architecture:
    # Table 2. Columns: expansion, channels, repeats, stride.
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    return Architecture(
        tuple(Stage(MBConv(3, e, 0.0, "relu6"), channels, n, stride) for e, channels, n, stride in rows),
        stem=Stem(32, activation="relu6"),
        head=Head(channels=1280, activation="relu6"),
        stochastic_depth=0.0,
        rounding=Rounding(head="never_narrower"),
        name="mobilenet_v2",
    )


def _mnasnet_a1() -> Architecture:
    # Columns: kernel, expansion, squeeze-excite, channels, repeats, stride.
    rows = (
        (3, 1, 0.0, 16, 1, 1),
        (3, 6, 0.0, 24, 2, 2),
        (5, 3, 0.25, 40, 3, 2),
        (3, 6, 0.0, 80, 4, 2),
        (3, 6, 0.25, 112, 2, 1),
        (5, 6, 0.25, 160, 3, 2),
        (3, 6, 0.0, 320, 1, 1),
    )
    return Architecture(
        tuple(
            Stage(MBConv(kernel, e, se, "relu"), channels, n, stride, skip="none" if channels == 16 else "identity")
            for kernel, e, se, channels, n, stride in rows
        ),
        stem=Stem(32, activation="relu"),
        head=Head(channels=1280, activation="relu"),
        stochastic_depth=0.0,
        rounding=Rounding(head="fixed"),
        name="mnasnet_a1",
    )


_RESNET_REPEATS: Mapping[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


def _resnet(name: str) -> Architecture:
    basic = name in ("resnet18", "resnet34")
    block = Basic() if basic else Bottleneck()
    stages = tuple(
        Stage(block, (64 if basic else 256) << i, repeats, 1 if i == 0 else 2)
        for i, repeats in enumerate(_RESNET_REPEATS[name])
    )
    return Architecture(
        stages,
        stem=Stem(64, kernel=7, activation="relu", pool=2),
        head=Head(channels=None, dropout=0.0),
        padding="symmetric",
        norm=Norm(epsilon=1e-5, momentum=0.9),
        stochastic_depth=0.0,
        # Inner channels of a bottleneck are a quarter: 32 keeps them multiples of 8.
        rounding=Rounding(divisor=8 if basic else 32),
        name=name,
    )


def _entries() -> dict[str, Published]:
    resnet = "He et al. 2015, arXiv 1512.03385, Table 1; stride in the 3×3 convolution (v1.5)"
    return {
        **{name: Published(partial(_efficientnet, name), EFFICIENTNET) for name in EFFICIENTNET_SIZES},
        **{name: Published(partial(_efficientnet_lite, name), LITE) for name in LITE_SIZES},
        "mobilenet_v1": Published(_mobilenet_v1, "Howard et al. 2017, arXiv 1704.04861, Table 1"),
        "mobilenet_v2": Published(_mobilenet_v2, "Sandler et al. 2018, arXiv 1801.04381, Table 2"),
        "mnasnet_a1": Published(_mnasnet_a1, "Tan et al. 2018, arXiv 1807.11626, figure 7; official mnasnet code"),
        **{name: Published(partial(_resnet, name), resnet) for name in _RESNET_REPEATS},
    }


ZOO: Mapping[str, Published] = _entries()


@cache
def published(name: str) -> Architecture:
    """The zoo's network of that name. Raises `SpecError` naming what there is."""
    if name not in ZOO:
        raise SpecError(f"{name!r} is not in the zoo; it has {', '.join(ZOO)}")
    return ZOO[name].make()
