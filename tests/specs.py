"""Random valid networks, small enough to build and run in moments."""

import hypothesis.strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from triscale.arch import (
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
    Stage,
    Stem,
)

ACTIVATIONS: tuple[Activation, ...] = ("silu", "relu", "relu6", "hardswish", "none")
PADDINGS: tuple[Padding, ...] = ("same", "symmetric")
SKIPS: tuple[Skip, ...] = ("identity", "pool", "none")

activations = st.sampled_from(ACTIVATIONS)
kernels = st.sampled_from((1, 3, 5, 7))
expansions = st.integers(1, 4)
ratios = st.sampled_from((0.0, 0.04, 0.25, 0.5, 1.0))
widths = st.integers(1, 20)


def blocks() -> SearchStrategy[Block]:
    """Every kind of block, every parameter of each."""
    kinds: tuple[SearchStrategy[Block], ...] = (
        st.builds(Conv, kernels, activations),
        st.builds(DepthwiseSeparable, kernels, activations),
        st.builds(MBConv, kernels, expansions, ratios, activations),
        st.builds(FusedMBConv, kernels, expansions, ratios, activations),
        st.builds(Basic, kernels, activations),
        st.builds(Bottleneck, kernels, st.integers(1, 6), activations),
    )
    return st.one_of(*kinds)


@st.composite
def architectures(draw: DrawFn) -> Architecture:
    """1 to 4 input channels, 16 to 96 pixels, square or not, 1 to 4 stages, every padding, skip, block and stride."""
    height = draw(st.integers(16, 96))
    resolution = (height, draw(st.one_of(st.just(height), st.integers(16, 96))))
    side = min(resolution)

    def stride(most: int) -> int:
        nonlocal side
        chosen = draw(st.integers(1, min(most, side)))
        side = -(-side // chosen)
        return chosen

    stem = Stem(draw(widths), draw(kernels), stride(3), draw(activations), stride(2))
    stages = tuple(
        Stage(
            draw(blocks()),
            draw(widths),
            draw(st.integers(1, 3)),
            stride(3),
            draw(st.sampled_from(SKIPS)),
            draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 4)))
    )
    return Architecture(
        stages,
        stem,
        draw(st.builds(Head, st.integers(1, 12), st.none() | widths, activations, st.sampled_from((0.0, 0.2, 0.5)))),
        resolution,
        draw(st.integers(1, 4)),
        draw(st.sampled_from(PADDINGS)),
        draw(st.builds(Norm, st.sampled_from((1e-5, 1e-3)), st.sampled_from((0.9, 0.99)))),
        draw(st.sampled_from((0.0, 0.2, 0.9))),
        draw(
            st.builds(
                Rounding,
                st.sampled_from((1, 4, 8)),
                st.booleans(),
                st.sampled_from(("scaled", "fixed", "never_narrower")),
            )
        ),
        draw(
            st.text(min_size=1, max_size=12).filter(lambda s: s.isprintable() and s[0] != "." and not {*s} & {*"/\\"})
        ),
    )
