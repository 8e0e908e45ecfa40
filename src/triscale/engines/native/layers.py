"""One layer of a plan: a row of whole numbers, which the C++ side reads in the order of `Layer`'s fields."""

from enum import IntEnum
from typing import NamedTuple

from triscale.arch import Activation
from triscale.kernels.library import ACTIVATIONS

NONE = -1  # of buffers and of weights


class Kind(IntEnum):
    """What a layer does; maps are (height, width, channels).

    INPUT: the network's input as a padded map. PAD: a map with zeros around it. CONV: a dense convolution of a map that
    has its padding. DEPTHWISE: an expansion 1×1, where there is one, and a depthwise convolution. EXCITE: sums → gates.
    SCALE: a map times its gates. MAX_POOL: over what of a window lies inside. SHRINK: the shortcut without weights,
    averages of stride×stride pixels and more channels of zeros. MEAN: over all pixels. SUM: the same, not divided.
    """

    INPUT = 0
    PAD = 1
    CONV = 2
    DEPTHWISE = 3
    EXCITE = 4
    SCALE = 5
    MAX_POOL = 6
    SHRINK = 7
    MEAN = 8
    SUM = 9


class Layer(NamedTuple):
    """See `Kind`.

    input, output, residual, gate, sums: buffers. EXCITE reads `sums`, DEPTHWISE writes them beside its output. A CONV
    with gates may multiply them into its input, which nobody reads later.
    top, left: zeros above and to the left. activation comes before a residual is added, last after it.
    expand: channels before DEPTHWISE's expansion, 0 for none. squeezed: channels inside EXCITE.
    weight, bias (of the main part), weight2, bias2 (of the expansion, and of EXCITE's second layer): where in the
    plan's values they begin.
    """

    kind: Kind
    input: int = NONE
    output: int = NONE
    residual: int = NONE
    gate: int = NONE
    sums: int = NONE
    height: int = 1
    width: int = 1
    channels: int = 1
    out_height: int = 1
    out_width: int = 1
    outputs: int = 1
    kernel: int = 1
    stride: int = 1
    top: int = 0
    left: int = 0
    activation: int = 0
    last: int = 0
    expand: int = 0
    expand_activation: int = 0
    weight: int = NONE
    bias: int = NONE
    weight2: int = NONE
    bias2: int = NONE
    squeezed: int = 0

    def reads(self) -> set[int]:
        """The buffers whose values it needs."""
        sums = self.sums if self.kind is Kind.EXCITE else NONE
        return {self.input, self.residual, self.gate, sums} - {NONE}

    def writes(self) -> tuple[int, ...]:
        """The buffers that it fills."""
        return (self.output, self.sums) if self.kind is Kind.DEPTHWISE and self.sums != NONE else (self.output,)


def code(activation: Activation) -> int:
    """An activation as the C++ side knows it."""
    return ACTIVATIONS.index(activation)
