"""Which layers of a network lose most in int8: each alone, all others in fp32."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx

from triscale.engines.runner import Array, Runner
from triscale.exporting.rewriting import WEIGHTED, Wiring

Open = Callable[[onnx.ModelProto], Runner]
Write = Callable[[Set[str]], onnx.ModelProto]
SQUEEZE_EXCITE = "squeeze_excite"
KINDS = {
    "Conv": "convolution", "Gemm": "classifier", "Add": "sum", "Mul": "product", "Sigmoid": "sigmoid",
    "GlobalAveragePool": "mean", "AveragePool": "pooling", "MaxPool": "pooling", "Pad": "padding",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """What computes in int8 or in fp32 as one: the layer's name, its kind, the tensors that its nodes make.

    weighted: whether it multiplies by weights, so that int8 pays.
    """

    layer: str
    kind: str
    makes: frozenset[str]
    weighted: bool


def parts_of(wiring: Wiring) -> tuple[Part, ...]:
    """All that can compute in int8, in the order of computing: squeeze-excite with its multiplication as one part, both
    nodes of SiLU as one, unless the engine joins them with the convolution before."""
    found: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    joined: dict[str, tuple[str, str]] = {}  # tensors within a step of the engine, and the part of that step
    for node in wiring.graph.node:
        place = joined.get(node.input[0]) or _place(node, wiring)
        if wiring.can_be_int8(node) or node.input[0] in joined:
            found.setdefault(place, []).append(node)
            if wiring.inner(node.output[0]):
                joined[node.output[0]] = place
    return tuple(
        Part(
            *place,
            frozenset(name for node in nodes for name in node.output),
            any(node.op_type in WEIGHTED for node in nodes),
        )
        for place, nodes in found.items()
    )


def _place(node: onnx.NodeProto, wiring: Wiring) -> tuple[str, str]:
    """The name and the kind of the part that a node belongs to."""
    name = node.name or node.output[0]
    before, found, _ = name.partition(f".{SQUEEZE_EXCITE}")
    if found:
        return before + found, "squeeze-excite"
    if wiring.is_silu(node):
        return name.removesuffix(".sigmoid"), "SiLU"
    if node.op_type == "Flatten":  # of the classifier
        return name.removesuffix(".input"), KINDS["Gemm"]
    for ending in (".linear", ".sum", ".mean"):
        name = name.removesuffix(ending)
    return name, KINDS.get(node.op_type, node.op_type)


def kept_tensors(parts: Sequence[Part]) -> frozenset[str]:
    """What the nodes of these parts make."""
    return frozenset().union(*(part.makes for part in parts))


def costs(
    model: onnx.ModelProto,
    parts: Sequence[Part],
    write: Write,
    open_: Open,
    batches: Sequence[Array],
    progress: Callable[[int, int], None],
) -> list[float]:
    """How far the logits move when each part alone computes in int8: the mean distance over their standard deviation.

    write: the network in int8, but for what makes these tensors. batches: images as the network sees them,
    (n, channels, h, w) each; a few hundred in all.
    """
    before = logits_of(open_(model), batches)
    spread, every, found = float(before.std()) or 1.0, kept_tensors(parts), []
    for place, part in enumerate(parts):
        progress(place, len(parts))
        found.append(float(np.abs(logits_of(open_(write(every - part.makes)), batches) - before).mean()) / spread)
    progress(len(parts), len(parts))
    return found


def logits_of(run: Runner, batches: Sequence[Array]) -> Array:
    """(n, classes) of all of them."""
    return np.concatenate([run(batch) for batch in batches])
