"""Whether an engine's sums of whole numbers hold on this processor."""

from functools import lru_cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from triscale.engines.graph import IR, OPSET
from triscale.exporting.calibrating import Target, runner_of
from triscale.exporting.formats import SAFE
from triscale.exporting.rewriting import LARGEST, rewrite

CHANNELS, NEAR = 64, 0.05


@lru_cache
def largest_weight(target: Target) -> int:
    """The largest level of a weight that the engine computes with exactly here: 127, or 64 where it does not.

    Processors without VNNI have one instruction for two products of an activation and a weight and their sum, in 16
    bits, which cuts off what goes beyond (Intel's manual, VPMADDUBSW); engines differ in whether they use it for
    weights as large as that. So one is asked: ones, averaged by a convolution and again by a classifier, stay ones.
    """
    ones = np.ones((1, CHANNELS, 1, 1), np.float32)
    ranges = dict.fromkeys(("images", "conv", "flat"), (0.0, 1.0))
    found = runner_of(target, rewrite(averaging(), ranges, joins=target.joins), 1)(ones)
    return LARGEST if np.abs(found - 1).max() < NEAR else SAFE


def averaging() -> onnx.ModelProto:
    """Means over all channels, twice, by weights that all are the largest level; in fp32."""
    mean = np.full((CHANNELS, CHANNELS), 1 / CHANNELS, np.float32)
    zeros = np.zeros(CHANNELS, np.float32)
    constants = {"conv.weight": mean[:, :, None, None], "conv.bias": zeros, "weight": mean, "bias": zeros}
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight", "conv.bias"], ["conv"]),
        helper.make_node("Flatten", ["conv"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    shapes = {"images": ("n", CHANNELS, 1, 1), "logits": ("n", CHANNELS)}
    images, logits = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "averaging", [images], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
