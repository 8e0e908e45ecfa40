"""A network as an ONNX graph, for the engines that take such; no exporter in between, and no torch.

Tensors have the names of the modules of `nn.Network` whose output they are, so that what an engine computes can be
compared layer by layer. The package `onnx` is needed (`triscale[export]`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from triscale.arch import Architecture
from triscale.engines.native.layers import NONE, Kind, Layer
from triscale.engines.native.program import Program, list_layers
from triscale.engines.runner import IMAGES, LOGITS
from triscale.kernels.library import ACTIVATIONS

OPSET, IR = 17, 8  # of 2022: whatever reads ONNX reads these
Attribute = int | list[int]
Weights = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class _Padded:
    """A map that has zeros around it: which one, and how many above, to the left, below, to the right."""

    map: str
    pads: tuple[int, int, int, int]


@dataclass
class _Writer:
    """The graph so far. maps: the tensor that holds each value; padded: those that are another one and its padding."""

    program: Program
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    maps: dict[int, str] = field(default_factory=dict)
    padded: dict[int, _Padded] = field(default_factory=dict)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Attribute) -> str:
        """Appends a node of one output, which gives it its name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], output, None, None, None, **attributes))
        return output

    def tensor(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """A constant."""
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weights(self, begin: int, *shape: int) -> npt.NDArray[np.float32]:
        """Those that begin there."""
        found: npt.NDArray[np.float32] = self.program.weights[begin : begin + int(np.prod(shape))].reshape(shape)
        return found

    def activate(self, x: str, activation: int, output: str) -> str:
        """x by the activation of that code; `output` names the result, also of none."""
        match ACTIVATIONS[activation]:
            case "silu":
                return self.node("Mul", [x, self.node("Sigmoid", [x], f"{output}.sigmoid")], output)
            case "relu":
                return self.node("Relu", [x], output)
            case "hardswish":
                return self.node("HardSwish", [x], output)
            case "relu6":
                bounds = [self.bound(value) for value in (0.0, 6.0)]
                return self.node("Clip", [x, *bounds], output)
        raise AssertionError(activation)

    def bound(self, value: float) -> str:
        """A scalar, kept once."""
        name = f"constant.{value:g}"
        if all(tensor.name != name for tensor in self.tensors):
            self.tensor(name, np.array(value, np.float32))
        return name

    def convolution(
        self, name: str, x: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], activation: int = 0,
        **attributes: Attribute,
    ) -> str:  # fmt: skip
        """A convolution and its activation; weight is [outputs, inputs, kernel, kernel]."""
        out = name if activation == 0 else f"{name}.linear"
        parts = [self.tensor(f"{name}.weight", weight), self.tensor(f"{name}.bias", bias)]
        self.node("Conv", [x, *parts], out, **attributes)
        return out if activation == 0 else self.activate(out, activation, name)


def _conv(writer: _Writer, name: str, layer: Layer) -> str:
    padded = writer.padded.get(layer.input)
    x, pads = (writer.maps[layer.input], (0, 0, 0, 0)) if padded is None else (padded.map, padded.pads)
    if layer.gate != NONE:
        x = writer.node("Mul", [x, writer.maps[layer.gate]], f"{_block(name)}.squeeze_excite")
    k = layer.kernel
    weight = writer.weights(layer.weight, k, k, layer.channels, layer.outputs).transpose(3, 2, 0, 1)
    bias = writer.weights(layer.bias, layer.outputs)
    adds = layer.residual != NONE
    # An activation that follows a residual belongs to the block, one of a convolution to that.
    last = 0 if adds else layer.last
    out = writer.convolution(
        name, x, weight, bias, layer.activation or last, strides=[layer.stride] * 2, pads=list(pads)
    )
    if not adds:
        return out
    ends = f"{_block(name)}.sum" if layer.last else _block(name)
    out = writer.node("Add", [out, writer.maps[layer.residual]], ends)
    return out if layer.last == 0 else writer.activate(out, layer.last, _block(name))


def _depthwise(writer: _Writer, name: str, layer: Layer) -> str:
    x, channels, k = writer.maps[layer.input], layer.channels, layer.kernel
    if layer.expand:
        weight = writer.weights(layer.weight2, layer.expand, channels).T[:, :, None, None]
        bias = writer.weights(layer.bias2, channels)
        x = writer.convolution(f"{_block(name)}.expand", x, weight, bias, layer.expand_activation)
    below, right = _behind(layer)
    weight = writer.weights(layer.weight, k, k, channels).transpose(2, 0, 1)[:, None]
    out = writer.convolution(
        name, x, weight, writer.weights(layer.bias, channels), layer.activation,
        group=channels, strides=[layer.stride] * 2, pads=[layer.top, layer.left, below, right],
    )  # fmt: skip
    if layer.sums != NONE:
        writer.maps[layer.sums] = out  # whose averages squeeze-excite takes itself
    return out


def _behind(layer: Layer) -> tuple[int, int]:
    """Zeros below and to the right that the last windows reach."""
    below = (layer.out_height - 1) * layer.stride + layer.kernel - layer.height - layer.top
    right = (layer.out_width - 1) * layer.stride + layer.kernel - layer.width - layer.left
    return max(below, 0), max(right, 0)


def _excite(writer: _Writer, name: str, layer: Layer) -> str:
    channels, squeezed = layer.channels, layer.squeezed
    x = writer.node("GlobalAveragePool", [writer.maps[layer.sums]], f"{name}.mean")
    first = writer.weights(layer.weight, channels, squeezed).T[:, :, None, None]
    x = writer.convolution(f"{name}.reduce", x, first, writer.weights(layer.bias, squeezed))
    x = x if layer.activation == 0 else writer.activate(x, layer.activation, f"{name}.activation")
    second = writer.weights(layer.weight2, squeezed, channels).T[:, :, None, None]
    x = writer.convolution(f"{name}.expand", x, second, writer.weights(layer.bias2, channels))
    return writer.node("Sigmoid", [x], f"{name}.gate")


def _scale(writer: _Writer, name: str, layer: Layer) -> str:
    out = writer.node("Mul", [writer.maps[layer.input], writer.maps[layer.gate]], name)
    if layer.residual == NONE:
        return out
    return writer.node("Add", [out, writer.maps[layer.residual]], _block(name))


def _pool(writer: _Writer, name: str, layer: Layer) -> str:
    """Windows at a border are of what lies inside."""
    k, stride = layer.kernel, layer.stride
    below, right = _behind(layer)
    place: dict[str, Attribute] = {"kernel_shape": [k] * 2, "strides": [stride] * 2}
    place["pads"] = [layer.top, layer.left, below, right]
    if layer.kind is Kind.MAX_POOL:
        return writer.node("MaxPool", [writer.maps[layer.input]], name, **place)
    x = writer.maps[layer.input]
    if stride > 1:
        x = writer.node("AveragePool", [x], f"{name}.mean", count_include_pad=0, **place)
    more = layer.outputs - layer.channels
    if more == 0:
        return x
    pads = writer.tensor(f"{name}.pads", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
    return writer.node("Pad", [x, pads], name)


def _classifier(writer: _Writer, name: str, layer: Layer) -> str:
    x = writer.node("Flatten", [writer.maps[layer.input]], f"{name}.input")
    weight = writer.tensor(f"{name}.weight", writer.weights(layer.weight, layer.channels, layer.outputs).T)
    bias = writer.tensor(f"{name}.bias", writer.weights(layer.bias, layer.outputs))
    writer.nodes.append(helper.make_node("Gemm", [x, weight, bias], [LOGITS], name=name, transB=1))
    return LOGITS


def _write(writer: _Writer, name: str, layer: Layer) -> None:
    match layer.kind:
        case Kind.INPUT | Kind.PAD:
            x = IMAGES if layer.kind is Kind.INPUT else writer.maps[layer.input]
            below = layer.out_height - layer.height - layer.top
            right = layer.out_width - layer.width - layer.left
            writer.padded[layer.output] = _Padded(x, (layer.top, layer.left, below, right))
            return
        case Kind.SUM:
            writer.maps[layer.output] = writer.maps[layer.input]
            return
        case Kind.CONV:
            last = layer is writer.program.layers[-1]
            out = _classifier(writer, name, layer) if last else _conv(writer, name, layer)
        case Kind.DEPTHWISE:
            out = _depthwise(writer, name, layer)
        case Kind.EXCITE:
            out = _excite(writer, name, layer)
        case Kind.SCALE:
            out = _scale(writer, name, layer)
        case Kind.MAX_POOL | Kind.SHRINK:
            out = _pool(writer, name, layer)
        case Kind.MEAN:
            out = writer.node("GlobalAveragePool", [writer.maps[layer.input]], name)
    writer.maps[layer.output] = out


def _block(name: str) -> str:
    return name.rpartition(".")[0]


def onnx_graph(
    architecture: Architecture, weights: Weights, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The network in evaluation mode: `images` float32 (n, channels, h, w) → `logits` (n, classes), n free.

    weights: the tensors of `Network.state_dict()` by name, as arrays; normalisation is folded into them. metadata:
    what the file says of itself. Raises `UserError` as `list_layers` does.
    """
    writer = _Writer(list_layers(architecture, weights))
    for name, layer in zip(writer.program.names, writer.program.layers, strict=True):
        _write(writer, name, layer)
    seen = "n", architecture.channels, *architecture.resolution
    graph = helper.make_graph(
        writer.nodes,
        architecture.name,
        [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, seen)],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ("n", architecture.head.classes))],
        writer.tensors,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="triscale"
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model
