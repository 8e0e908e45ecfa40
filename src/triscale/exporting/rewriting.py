"""A graph in int8: rounding to 256 levels (QuantizeLinear, DequantizeLinear) around the nodes that compute so.

Engines join such a node with the rounding around it into one that multiplies whole numbers. Weights are symmetric with
a scale for each output channel, activations have one scale and one zero for the tensor (Jacob et al. 2018, section 2).
Written here, not by a package: layers are tried one by one, with ranges that were measured once, and engines differ in
what they join.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Ranges = Mapping[str, tuple[float, float]]
Floats = npt.NDArray[np.float32]

WEIGHTED = ("Conv", "Gemm")
INT8 = (*WEIGHTED, "Add", "Mul", "Sigmoid", "GlobalAveragePool", "AveragePool", "MaxPool", "Flatten", "Pad")
CUTS = ("Relu", "Clip")  # what they cut off, the rounding that follows cuts off as well
SAME_LEVELS = ("MaxPool", "Flatten", "Pad")  # give values that they were given, or zeros
LEVELS, LARGEST = 255, 127
LARGEST_BIAS = 2.0**30  # half of what 32 bits hold; the other half is for the sum
SMALLEST = 1e-12  # of scales: products of two are numbers still


@dataclass(frozen=True, slots=True)
class Grid:
    """The 256 levels of a tensor: x ≈ scale · (level - zero), zero itself being one."""

    scale: np.float32
    zero: np.uint8

    @classmethod
    def over(cls, low: float, high: float) -> "Grid":
        """From the least to the largest value."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / LEVELS, SMALLEST)
        return cls(np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, LEVELS)))


def channel_scales(weight: Floats, bias: Floats, scale: float, most: int = LARGEST) -> Floats:
    """(outputs,): of each output channel, so that its largest weight becomes `most` and its bias fits into 32 bits.

    scale: of what the weights are multiplied with.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(1).astype(np.float64) / most
    needed = np.abs(bias).astype(np.float64) / (LARGEST_BIAS * scale)
    scales: Floats = np.maximum(np.maximum(largest, needed), SMALLEST).astype(np.float32)
    return scales


class Wiring:
    """Who makes and who reads each tensor of a graph, and which nodes compute in int8.

    joins: whether the engine, as OpenVINO does, computes any activation in one step with the convolution before it, in
    fp32 and before it rounds; otherwise only what cuts values off. It then gets no levels to pad: OpenVINO (2026.4)
    puts level 0 beside them, whichever is zero.
    """

    def __init__(self, graph: onnx.GraphProto, *, joins: bool) -> None:
        self.graph, self.joins = graph, joins
        self.images, self.logits = graph.input[0].name, graph.output[0].name
        self.maker = {node.output[0]: node for node in graph.node}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def activations(self) -> list[str]:
        """The tensors whose ranges are needed: the images, and what every node gives but the logits."""
        return [self.images, *(name for name in self.maker if name != self.logits)]

    def is_silu(self, node: onnx.NodeProto) -> bool:
        """Whether it is one of the two nodes of x · sigmoid(x)."""
        if node.op_type == "Sigmoid":
            return any(self.is_silu(reader) for reader in self.readers[node.output[0]])
        sigmoid = self.maker.get(node.input[1]) if node.op_type == "Mul" else None
        return sigmoid is not None and sigmoid.op_type == "Sigmoid" and sigmoid.input[0] == node.input[0]

    def follows(self, node: onnx.NodeProto) -> bool:
        """Whether the engine computes it in one step with the node before it."""
        if node.op_type in CUTS:
            return True
        return self.joins and (node.op_type in ("HardSwish", "Sigmoid") or self.is_silu(node))

    def inner(self, name: str) -> bool:
        """Whether a tensor lies within such a step, and so needs no levels."""
        readers = self.readers.get(name, [])
        return bool(readers) and all(map(self.follows, readers))

    def in_int8(self, node: onnx.NodeProto, kept: Set[str]) -> bool:
        """Whether it computes in int8, or within a step that does, when those that make `kept` do not."""
        before = self.maker.get(node.input[0])
        if before is not None and self.follows(node) and self.inner(node.input[0]):
            return self.in_int8(before, kept)
        return self.can_be_int8(node) and node.output[0] not in kept

    def can_be_int8(self, node: onnx.NodeProto) -> bool:
        """Whether the engine has an int8 form of it."""
        return node.op_type in INT8 and not self.pads(node)

    def pads(self, node: onnx.NodeProto) -> bool:
        """Whether it reads values as they were before they were rounded, because it, or what follows it, pads them."""
        if not self.joins or node.op_type not in ("Pad", "AveragePool", "MaxPool"):
            return False
        return node.op_type == "Pad" or any(map(self.pads, self.readers.get(node.output[0], [])))

    def rounded(self, name: str, kept: Set[str]) -> bool:
        """Whether somebody reads its levels."""
        if name == self.logits or self.inner(name):
            return False
        return self.made_in_int8(name, kept) or any(self.in_int8(node, kept) for node in self.readers.get(name, []))

    def made_in_int8(self, name: str, kept: Set[str]) -> bool:
        """Whether there is nothing but levels."""
        maker = self.maker.get(name)
        return maker is not None and self.in_int8(maker, kept)


def rewrite(
    model: onnx.ModelProto, ranges: Ranges, kept: Set[str] = frozenset(), *, joins: bool = False, most: int = LARGEST
) -> onnx.ModelProto:
    """A copy that computes in int8, but for the nodes that make the tensors `kept`, and with logits in fp32.

    ranges: the least and the largest value of each of `Wiring.activations`. joins: see `Wiring`. most: the largest
    level of a weight. Names, metadata and the free batch stay.
    """
    written = onnx.ModelProto()
    written.CopyFrom(model)
    _Writer(Wiring(model.graph, joins=joins), ranges, kept, most).write(written.graph)
    return written


@dataclass
class _Writer:
    """The new graph so far. grids: the levels of each tensor that has some."""

    wiring: Wiring
    ranges: Ranges
    kept: Set[str]
    most: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)

    def write(self, graph: onnx.GraphProto) -> None:
        """In place of what is in the graph."""
        self.tensors = {tensor.name: tensor for tensor in self.wiring.graph.initializer}
        self.round(self.wiring.images)
        for node in self.wiring.graph.node:
            self.node(node)
            self.round(node.output[0])
        read = {name for node in self.nodes for name in node.input}
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(tensor for name, tensor in self.tensors.items() if name in read)

    def round(self, name: str) -> None:
        """To levels and back, where somebody reads them."""
        if not self.wiring.rounded(name, self.kept):
            return
        maker = self.wiring.maker.get(name)
        same = maker is not None and maker.op_type in SAME_LEVELS and self.wiring.in_int8(maker, self.kept)
        grid = self.grids[maker.input[0]] if maker is not None and same else Grid.over(*self.ranges[name])
        self.grids[name] = grid
        parts = [self.constant(f"{name}.scale", grid.scale), self.constant(f"{name}.zero", grid.zero)]
        self.add("QuantizeLinear", [name, *parts], f"{name}.levels")
        self.add("DequantizeLinear", [f"{name}.levels", *parts], f"{name}.rounded")

    def node(self, node: onnx.NodeProto) -> None:
        """The same, reading what was rounded; in fp32 only what there is no other of."""
        int8 = self.wiring.in_int8(node, self.kept)
        inputs = [
            f"{name}.rounded" if name in self.grids and (int8 or self.wiring.made_in_int8(name, self.kept)) else name
            for name in node.input
        ]
        if self.wiring.pads(node):
            inputs = list(node.input)
        if int8 and node.op_type in WEIGHTED:
            inputs[1:] = self.weights(node)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = inputs
        self.nodes.append(copied)

    def weights(self, node: onnx.NodeProto) -> tuple[str, str]:
        """The weights as int8 and the biases as int32, with the nodes that give them back."""
        x, weight, bias = node.input
        values, biases = (numpy_helper.to_array(self.tensors[name]) for name in (weight, bias))
        scale = float(self.grids[x].scale)
        scales = channel_scales(values, biases, scale, self.most)
        products = scales.astype(np.float64) * scale
        whole = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
        return (
            self.channels(weight, np.clip(whole, -self.most, self.most).astype(np.int8), scales),
            self.channels(bias, np.rint(biases / products).astype(np.int32), products.astype(np.float32)),
        )

    def channels(self, name: str, levels: npt.NDArray[np.int8 | np.int32], scales: Floats) -> str:
        parts = [
            self.constant(f"{name}.levels", levels),
            self.constant(f"{name}.scale", scales),
            self.constant(f"{name}.zero", np.zeros(len(scales), levels.dtype)),
        ]
        return self.add("DequantizeLinear", parts, f"{name}.rounded", axis=0)

    def constant(self, name: str, values: npt.NDArray[np.generic] | np.generic) -> str:
        self.tensors[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, None, None, None, **attributes))
        return output
