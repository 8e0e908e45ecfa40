"""The one walk over a block: which convolutions it makes, in the order `nn` runs them, and what they add up to.

A block's cost is linear in the pixels before and after its stride: the sums depend on channels alone, so they are kept
for every resolution, and 20,000 networks a second can be costed.
"""

from functools import lru_cache
from typing import NamedTuple

from triscale.arch.spec import (
    Activation,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
    Skip,
)

NORM, BIAS = 2, 1  # parameters per output channel that follow a convolution: scale and shift, or a bias
BEFORE, AFTER, ONCE = 0, 1, 2  # the output has the block's input pixels, its output pixels, or one pixel


class Row(NamedTuple):
    """One convolution of a block.

    where: BEFORE, AFTER or ONCE. extra: NORM or BIAS. kept: how many tensors of the output's size training keeps for
    the backward pass: the convolution's output, the normalisation's where the activation needs it, what the next layer
    is given, squeeze-excite's product.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    groups: int
    where: int
    extra: int
    kept: int

    @property
    def weights(self) -> int:
        """Elements of the kernel; times the output's pixels they are the MACs."""
        return self.inputs // self.groups * self.outputs * self.kernel * self.kernel

    @property
    def params(self) -> int:
        """Weights, and normalisation's scale and shift or the bias."""
        return self.weights + self.extra * self.outputs


class Shape(NamedTuple):
    """A block's convolutions, and (input-sized, output-sized) element counts that are alive together in inference."""

    rows: tuple[Row, ...]
    alive: tuple[tuple[int, int], ...]


# Sums over a block's rows, each per pixel BEFORE, AFTER, ONCE: plain numbers in one tuple, unpacked in `cost`.
# parameters; MACs ×3; output elements ×3; kept elements ×3; alive
Sums = tuple[int, int, int, int, int, int, int, int, int, int, tuple[tuple[int, int], ...]]


@lru_cache(maxsize=2**16)
def block_sums(block: Block, skip: Skip, inputs: int, outputs: int, stride: int) -> Sums:
    """What a block adds to a network's totals, per pixel (see `Sums`)."""
    rows, alive = block_shape(block, skip, inputs, outputs, stride)
    params, macs, elements, kept = 0, [0, 0, 0], [0, 0, 0], [0, 0, 0]
    for _, fan_in, out, kernel, groups, where, extra, copies in rows:  # unpacked: twice as fast as by name
        weights = fan_in // groups * out * kernel * kernel
        params += weights + extra * out
        macs[where] += weights
        elements[where] += out
        kept[where] += out * copies
    return params, *macs, *elements, *kept, alive  # type: ignore[return-value]  # lists of three


def block_shape(block: Block, skip: Skip, inputs: int, outputs: int, stride: int) -> Shape:
    """The block's convolutions in order of computation, for so many input and output channels."""
    held = inputs if adds_input(block, skip, inputs, outputs, stride) else 0
    if isinstance(block, MBConv):
        return _mbconv(block, inputs, outputs, held)
    if isinstance(block, FusedMBConv):
        return _fused_mbconv(block, inputs, outputs, held)
    if isinstance(block, DepthwiseSeparable):
        return _depthwise_separable(block, inputs, outputs, held)
    if isinstance(block, Conv):
        row = Row("conv", inputs, outputs, block.kernel, 1, AFTER, NORM, kept_by(block.activation))
        return Shape((row,), ((inputs, outputs),))
    shape = (
        _basic(block, inputs, outputs, held) if isinstance(block, Basic) else _bottleneck(block, inputs, outputs, held)
    )
    if projects_input(block, skip, inputs, outputs, stride):
        shortcut = Row("shortcut", inputs, outputs, 1, 1, AFTER, NORM, 1)
        return Shape((*shape.rows, shortcut), (*shape.alive, (held, 2 * outputs)))
    return shape


def adds_input(block: Block, skip: Skip, inputs: int, outputs: int, stride: int) -> bool:
    """Whether a shortcut is added to the block's output (see `Stage.skip`)."""
    if skip == "none":
        return False
    if stride == 1 and inputs == outputs:
        return True
    return outputs >= inputs if skip == "pool" else isinstance(block, Basic | Bottleneck)


def projects_input(block: Block, skip: Skip, inputs: int, outputs: int, stride: int) -> bool:
    """Whether the shortcut is a 1×1 convolution (ResNet blocks whose input and output differ)."""
    return skip == "identity" and isinstance(block, Basic | Bottleneck) and (stride != 1 or inputs != outputs)


def squeezed(inputs: int, ratio: float) -> int:
    """Channels inside squeeze-excite: a share of the block's input channels (official code), at least one."""
    return max(1, int(inputs * ratio))


def inner(block: Bottleneck, outputs: int) -> int:
    """Channels of a bottleneck's k×k convolution."""
    return max(1, outputs // block.reduction)


def kept_by(activation: Activation) -> int:
    """Tensors that training keeps of a convolution, its normalisation and its activation (see `Row.kept`)."""
    # Normalisation keeps its input, the next convolution its own. ReLU's gradient needs only its result; the others
    # keep what they were given as well.
    return 2 if activation in ("relu", "none") else 3


def _squeeze_excite(inputs: int, hidden: int, ratio: float) -> tuple[Row, ...]:
    if not ratio:
        return ()
    squeeze = squeezed(inputs, ratio)
    return (
        Row("squeeze_excite.reduce", hidden, squeeze, 1, 1, ONCE, BIAS, 2),
        Row("squeeze_excite.expand", squeeze, hidden, 1, 1, ONCE, BIAS, 2),
    )


def _mbconv(block: MBConv, inputs: int, outputs: int, held: int) -> Shape:
    kept, hidden = kept_by(block.activation), inputs * block.expansion
    gated = 1 if block.squeeze_excite else 0
    rows = (
        Row("depthwise", hidden, hidden, block.kernel, hidden, AFTER, NORM, kept + gated),
        *_squeeze_excite(inputs, hidden, block.squeeze_excite),
        Row("project", hidden, outputs, 1, 1, AFTER, NORM, 2),
    )
    last = (held, hidden + outputs)
    if block.expansion == 1:
        return Shape(rows, ((inputs, hidden), last))
    expand = Row("expand", inputs, hidden, 1, 1, BEFORE, NORM, kept)
    return Shape((expand, *rows), ((inputs + hidden, 0), (held + hidden, hidden), last))


def _fused_mbconv(block: FusedMBConv, inputs: int, outputs: int, held: int) -> Shape:
    hidden = outputs if block.expansion == 1 else inputs * block.expansion
    kept = kept_by(block.activation) + (1 if block.squeeze_excite else 0)
    rows = (
        Row("expand", inputs, hidden, block.kernel, 1, AFTER, NORM, kept),
        *_squeeze_excite(inputs, hidden, block.squeeze_excite),
    )
    if block.expansion == 1:
        return Shape(rows, ((inputs, hidden),))
    project = Row("project", hidden, outputs, 1, 1, AFTER, NORM, 2)
    return Shape((*rows, project), ((inputs, hidden), (held, hidden + outputs)))


def _depthwise_separable(block: DepthwiseSeparable, inputs: int, outputs: int, held: int) -> Shape:
    kept = kept_by(block.activation)
    rows = (
        Row("depthwise", inputs, inputs, block.kernel, inputs, AFTER, NORM, kept),
        Row("pointwise", inputs, outputs, 1, 1, AFTER, NORM, kept),
    )
    return Shape(rows, ((inputs, inputs), (held, inputs + outputs)))


def _basic(block: Basic, inputs: int, outputs: int, held: int) -> Shape:
    kept = kept_by(block.activation)
    rows = (
        Row("conv1", inputs, outputs, block.kernel, 1, AFTER, NORM, kept),
        Row("conv2", outputs, outputs, block.kernel, 1, AFTER, NORM, kept),
    )
    return Shape(rows, ((inputs, outputs), (held, 2 * outputs)))


def _bottleneck(block: Bottleneck, inputs: int, outputs: int, held: int) -> Shape:
    kept, middle = kept_by(block.activation), inner(block, outputs)
    rows = (
        Row("reduce", inputs, middle, 1, 1, BEFORE, NORM, kept),
        Row("conv", middle, middle, block.kernel, 1, AFTER, NORM, kept),
        Row("expand", middle, outputs, 1, 1, AFTER, NORM, kept),
    )
    return Shape(rows, ((inputs + middle, 0), (held + middle, middle), (held, middle + outputs)))
