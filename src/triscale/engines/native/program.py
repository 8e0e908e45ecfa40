"""A network as a list of layers: the one walk over an architecture, in the order in which `nn.network` computes.

Top to bottom: what every block is made of; the six kinds of block; stem, stages and head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from triscale.arch import (
    Activation,
    Architecture,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
    Padding,
    Skip,
)
from triscale.costing.convolutions import adds_input, inner, projects_input, squeezed
from triscale.engines.native.buffers import into_buffers
from triscale.engines.native.folding import Folding
from triscale.engines.native.layers import NONE, Kind, Layer, code
from triscale.engines.native.plan import Plan

POOL = 3  # the stem's max-pooling is 3×3


class Map(NamedTuple):
    """A value of the program: height × width pixels of so many channels."""

    value: int
    height: int
    width: int
    channels: int


class Window(NamedTuple):
    """How a layer's windows lie on one side of a map: zeros before it, windows, the side with all zeros it needs."""

    before: int
    outputs: int
    whole: int


def window(side: int, kernel: int, stride: int, padding: Padding) -> Window:
    """`nn.layers`' padding: TensorFlow's SAME puts the odd pixel behind; at stride 1 both ways agree."""
    outputs = -(-side // stride)
    reach = (outputs - 1) * stride + kernel
    before = max(reach - side, 0) // 2 if padding == "same" and stride > 1 else kernel // 2
    return Window(before, outputs, max(reach, before + side))


@dataclass(frozen=True, eq=False)
class Program:
    """A network as layers that follow one another. Every value has a number of its own, in place of a buffer.

    names: of each layer the module of `nn.Network` that it computes, in the main; paddings and poolings have the name
    of what they are for. weights: all that the layers refer to, in one row.
    """

    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    weights: npt.NDArray[np.float32]


class _Walk:
    """The program so far."""

    def __init__(self, padding: Padding, folding: Folding) -> None:
        self.padding, self.folding = padding, folding
        self.layers: list[Layer] = []
        self.names: list[str] = []
        self.values = 0

    def new(self) -> int:
        """The number of the next value."""
        self.values += 1
        return self.values - 1

    def windows(self, height: int, width: int, kernel: int, stride: int) -> tuple[Window, Window]:
        """Those of a layer on rows and on columns."""
        return window(height, kernel, stride, self.padding), window(width, kernel, stride, self.padding)

    def add(self, name: str, kind: Kind, x: Map, height: int, width: int, channels: int, **more: int) -> Map:
        """Appends a layer of x whose output is that large."""
        out = Map(self.new(), height, width, channels)
        sides = {"height": x.height, "width": x.width, "channels": x.channels}
        sides |= {"out_height": height, "out_width": width, "outputs": channels}
        self.layers.append(Layer(kind, output=out.value, **{"input": x.value} | sides | more))
        self.names.append(name)
        return out

    def conv(
        self,
        name: str,
        x: Map,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        activation: Activation = "none",
        residual: Map | None = None,
        last: Activation = "none",
        gate: int = NONE,
    ) -> Map:
        """Convolution, normalisation, activation; a residual is added to that; then another activation."""
        rows, columns = self.windows(x.height, x.width, kernel, stride)
        if x.value == NONE or (rows.whole, columns.whole) != (x.height, x.width):
            kind = Kind.INPUT if x.value == NONE else Kind.PAD
            x = self.add(name, kind, x, rows.whole, columns.whole, x.channels, top=rows.before, left=columns.before)
        folded = self.folding.convolution(name, x.channels, outputs, kernel)
        if residual is None and last != "none":
            assert activation == "none"
            activation, last = last, "none"
        return self.add(
            name, Kind.CONV, x, rows.outputs, columns.outputs, outputs,
            kernel=kernel, stride=stride, activation=code(activation), last=code(last), gate=gate,
            residual=NONE if residual is None else residual.value, weight=folded.weight, bias=folded.bias,
        )  # fmt: skip

    def depthwise(
        self, name: str, x: Map, kernel: int, stride: int, activation: Activation,
        expand: tuple[str, int] | None = None, sums: int = NONE,
    ) -> Map:  # fmt: skip
        """Depthwise convolution, normalisation, activation. expand: a layer 1×1 before it, and its channels."""
        before: dict[str, int] = {}
        if expand is not None:
            folded = self.folding.convolution(expand[0], x.channels, expand[1], 1)
            before = {"expand": x.channels, "expand_activation": code(activation)}
            before |= {"weight2": folded.weight, "bias2": folded.bias}
            x = x._replace(channels=expand[1])
        rows, columns = self.windows(x.height, x.width, kernel, stride)
        folded = self.folding.depthwise(name, x.channels, kernel)
        return self.add(
            name, Kind.DEPTHWISE, x, rows.outputs, columns.outputs, x.channels,
            kernel=kernel, stride=stride, top=rows.before, left=columns.before, activation=code(activation), sums=sums,
            weight=folded.weight, bias=folded.bias, **before,
        )  # fmt: skip

    def excite(self, name: str, x: Map, squeeze: int, activation: Activation, sums: int = NONE) -> int:
        """The gates of squeeze-excite for x, from its sums where they are there already."""
        if sums == NONE:
            sums = self.add(name, Kind.SUM, x, x.height, x.width, x.channels).value
        first = self.folding.linear(f"{name}.reduce", x.channels, squeeze, 1, 1)
        second = self.folding.linear(f"{name}.expand", squeeze, x.channels, 1, 1)
        return self.add(
            name, Kind.EXCITE, x, 1, 1, x.channels, input=NONE, sums=sums, squeezed=squeeze,
            activation=code(activation), weight=first.weight, bias=first.bias, weight2=second.weight, bias2=second.bias,
        ).value  # fmt: skip

    def max_pool(self, x: Map, stride: int) -> Map:
        """The stem's."""
        rows, columns = self.windows(x.height, x.width, POOL, stride)
        place = {"kernel": POOL, "stride": stride, "top": rows.before, "left": columns.before}
        return self.add("stem.pool", Kind.MAX_POOL, x, rows.outputs, columns.outputs, x.channels, **place)

    def mean(self, x: Map) -> Map:
        """The head's global pooling."""
        return self.add("head.pool", Kind.MEAN, x, 1, 1, x.channels)

    def classifier(self, name: str, x: Map, classes: int) -> Map:
        """The linear layer, of a map of one pixel."""
        folded = self.folding.linear(name, x.channels, classes)
        return self.add(name, Kind.CONV, x, 1, 1, classes, weight=folded.weight, bias=folded.bias)


def _mbconv(walk: _Walk, name: str, block: MBConv, x: Map, outputs: int, stride: int, residual: Map | None) -> Map:
    act, ratio, hidden = block.activation, block.squeeze_excite, x.channels * block.expansion
    expand = None if block.expansion == 1 else (f"{name}.expand", hidden)
    sums = walk.new() if ratio else NONE
    out = walk.depthwise(f"{name}.depthwise", x, block.kernel, stride, act, expand, sums)
    gate = NONE
    if ratio:
        gate = walk.excite(f"{name}.squeeze_excite", out, squeezed(x.channels, ratio), act, sums)
    return walk.conv(f"{name}.project", out, outputs, gate=gate, residual=residual)


def _fused_mbconv(
    walk: _Walk, name: str, block: FusedMBConv, x: Map, outputs: int, stride: int, residual: Map | None
) -> Map:
    act, ratio, alone = block.activation, block.squeeze_excite, block.expansion == 1
    hidden = outputs if alone else x.channels * block.expansion
    added = residual if alone and not ratio else None
    out = walk.conv(f"{name}.expand", x, hidden, kernel=block.kernel, stride=stride, activation=act, residual=added)
    gate = walk.excite(f"{name}.squeeze_excite", out, squeezed(x.channels, ratio), act) if ratio else NONE
    if not alone:
        return walk.conv(f"{name}.project", out, outputs, gate=gate, residual=residual)
    if not ratio:
        return out
    more = {"gate": gate, "residual": NONE if residual is None else residual.value}
    return walk.add(f"{name}.squeeze_excite", Kind.SCALE, out, out.height, out.width, outputs, **more)


def _depthwise_separable(
    walk: _Walk, name: str, block: DepthwiseSeparable, x: Map, outputs: int, stride: int, residual: Map | None
) -> Map:
    out = walk.depthwise(f"{name}.depthwise", x, block.kernel, stride, block.activation)
    return walk.conv(f"{name}.pointwise", out, outputs, activation=block.activation, residual=residual)


def _basic(walk: _Walk, name: str, block: Basic, x: Map, outputs: int, stride: int, residual: Map | None) -> Map:
    act, kernel = block.activation, block.kernel
    out = walk.conv(f"{name}.conv1", x, outputs, kernel=kernel, stride=stride, activation=act)
    return walk.conv(f"{name}.conv2", out, outputs, kernel=kernel, residual=residual, last=act)


def _bottleneck(
    walk: _Walk, name: str, block: Bottleneck, x: Map, outputs: int, stride: int, residual: Map | None
) -> Map:
    act, middle = block.activation, inner(block, outputs)
    out = walk.conv(f"{name}.reduce", x, middle, activation=act)
    out = walk.conv(f"{name}.conv", out, middle, kernel=block.kernel, stride=stride, activation=act)
    return walk.conv(f"{name}.expand", out, outputs, residual=residual, last=act)


def _shortcut(walk: _Walk, name: str, block: Block, skip: Skip, x: Map, outputs: int, stride: int) -> Map | None:
    """What is added to the block's output."""
    if not adds_input(block, skip, x.channels, outputs, stride):
        return None
    if projects_input(block, skip, x.channels, outputs, stride):
        return walk.conv(f"{name}.shortcut", x, outputs, stride=stride)
    if stride == 1 and x.channels == outputs:
        return x
    height, width = -(-x.height // stride), -(-x.width // stride)
    return walk.add(f"{name}.add", Kind.SHRINK, x, height, width, outputs, kernel=stride, stride=stride)


def _block(walk: _Walk, name: str, block: Block, skip: Skip, x: Map, outputs: int, stride: int) -> Map:
    # First, while the block's input is still at hand; the input's memory is then free one layer earlier.
    residual = _shortcut(walk, name, block, skip, x, outputs, stride)
    match block:
        case MBConv():
            return _mbconv(walk, name, block, x, outputs, stride, residual)
        case FusedMBConv():
            return _fused_mbconv(walk, name, block, x, outputs, stride, residual)
        case DepthwiseSeparable():
            return _depthwise_separable(walk, name, block, x, outputs, stride, residual)
        case Conv():
            act, kernel = block.activation, block.kernel
            return walk.conv(
                f"{name}.conv", x, outputs, kernel=kernel, stride=stride, activation=act, residual=residual
            )
        case Basic():
            return _basic(walk, name, block, x, outputs, stride, residual)
        case Bottleneck():
            return _bottleneck(walk, name, block, x, outputs, stride, residual)


def _network(walk: _Walk, architecture: Architecture) -> None:
    stem, head = architecture.stem, architecture.head
    x = Map(NONE, *architecture.resolution, architecture.channels)
    x = walk.conv("stem.conv", x, stem.channels, kernel=stem.kernel, stride=stem.stride, activation=stem.activation)
    if stem.pool > 1:
        x = walk.max_pool(x, stem.pool)
    for i, stage in enumerate(architecture.stages):
        for j in range(stage.repeats):
            stride = stage.stride if j == 0 else 1
            x = _block(walk, f"stages.{i}.{j}", stage.block, stage.skip, x, stage.channels, stride)
    if head.channels is not None:
        x = walk.conv("head.conv", x, head.channels, activation=head.activation)
    walk.classifier("head.classifier", walk.mean(x), head.classes)


def list_layers(architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]) -> Program:
    """What the network computes in evaluation mode.

    weights: the tensors of `Network.state_dict()` by name, as arrays. Normalisation becomes part of the convolution
    before it, computed in double precision and rounded once. Raises `UserError` naming a tensor that is missing, of
    another shape, left over, or not finite.
    """
    walk = _Walk(architecture.padding, Folding(weights, architecture.name, architecture.norm.epsilon))
    _network(walk, architecture)
    return Program(tuple(walk.layers), tuple(walk.names), walk.folding.values())


def compile_plan(architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]) -> Plan:
    """The same as a plan that an `Engine` carries out."""
    program = list_layers(architecture, weights)
    rows = np.array(into_buffers(list(program.layers)), np.int64)
    return Plan(architecture, rows, program.weights)
