"""What a graph in int8 promises: levels that fit, parts that fall back whole, and engines that agree on it."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import Phase, given, settings
from native_program import pictures, planned
from specs import architectures
from tiny import TINY
from unsteady import disturbed

from triscale.arch import Architecture, adapt, published
from triscale.engines.graph import onnx_graph
from triscale.engines.onnx_runtime import OnnxRuntime
from triscale.engines.table import weights_of
from triscale.exporting.calibrating import TARGETS
from triscale.exporting.rewriting import Grid, Ranges, Wiring, channel_scales, rewrite
from triscale.exporting.saturating import largest_weight
from triscale.exporting.sensitivity import kept_tensors, parts_of
from triscale.nn import build

pytestmark = pytest.mark.usefixtures("one_thread")


def graph_with_squeeze_excite() -> onnx.ModelProto:
    architecture = adapt(published("efficientnet_b0"), resolution=(32, 32), classes=5)
    return onnx_graph(architecture, weights_of(build(architecture)))


def ranges_on(graph: onnx.ModelProto, x: np.ndarray) -> Ranges:
    names = Wiring(graph.graph, joins=False).activations()
    every = onnx.ModelProto()
    every.CopyFrom(graph)
    every.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names[1:])
    found = OnnxRuntime(every.SerializeToString(), threads=1).every(x) | {names[0]: x}
    return {name: (float(found[name].min()), float(found[name].max())) for name in names}


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_zero_is_a_level_and_the_levels_cover_the_range(low: float, width: float) -> None:
    grid = Grid.over(low, low + width)
    least, most = (float(grid.scale) * (level - int(grid.zero)) for level in (0, 255))
    assert least <= 0 <= most
    near = 0.51 * float(grid.scale)
    assert least <= low + near or low > 0
    assert most >= low + width - near or low + width < 0


def test_a_loud_channel_takes_no_precision_from_a_quiet_one() -> None:
    weight = np.array([[1000.0, -500.0], [0.001, 0.0005], [0.0, 0.0]], np.float32)
    scales = channel_scales(weight, np.zeros(3, np.float32), 0.1)
    np.testing.assert_allclose(np.rint(weight / scales[:, None]), [[127, -64], [127, 64], [0, 0]])
    scales = channel_scales(weight, np.zeros(3, np.float32), 0.1, most=64)
    np.testing.assert_allclose(np.rint(weight / scales[:, None]), [[64, -32], [64, 32], [0, 0]])


@given(st.floats(-1e8, 1e8), st.floats(1e-9, 1e3), st.floats(0, 1e-6))
def test_every_bias_fits_into_32_bits(bias: float, scale: float, weight: float) -> None:
    scales = channel_scales(np.full((1, 1), weight, np.float32), np.array([bias], np.float32), scale)
    assert abs(bias) / (float(scales[0]) * scale) <= 1.001 * 2**30


@pytest.mark.parametrize("joins", [True, False])
def test_squeeze_excite_falls_back_whole_and_every_node_belongs_to_one_part(joins: bool) -> None:
    graph = graph_with_squeeze_excite()
    wiring = Wiring(graph.graph, joins=joins)
    parts = parts_of(wiring)
    kinds = Counter(part.kind for part in parts)
    assert kinds["squeeze-excite"] == 16
    assert kinds["SiLU"] == (0 if joins else 33)
    assert kinds["classifier"] == 1
    made = [name for part in parts for name in part.makes]
    assert sorted(made) == sorted(node.output[0] for node in graph.graph.node)
    for part in parts:
        if part.kind == "squeeze-excite":
            ends = {name.removeprefix(part.layer) for name in part.makes}
            assert ends == {"", ".mean", ".reduce", ".activation", ".activation.sigmoid", ".expand", ".gate"}


@pytest.mark.parametrize("joins", [True, False])
def test_what_is_kept_computes_in_fp32_and_all_else_in_int8(joins: bool) -> None:
    graph = graph_with_squeeze_excite()
    ranges = ranges_on(graph, np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32))
    wiring = Wiring(graph.graph, joins=joins)
    kept = kept_tensors([part for part in parts_of(wiring) if part.kind == "squeeze-excite"])
    written = rewrite(graph, ranges, kept, joins=joins)
    names = {tensor.name for tensor in written.graph.initializer}
    for node in written.graph.node:
        if node.op_type == "Conv":
            assert (f"{node.input[1].removesuffix('.rounded')}.levels" in names) == (
                "squeeze_excite" not in node.output[0]
            )
    everything = kept_tensors(parts_of(wiring))
    assert rewrite(graph, ranges, everything, joins=joins).graph == graph.graph


def test_a_graph_in_int8_keeps_what_it_says_and_takes_any_number_of_images() -> None:
    graph = onnx_graph(TINY, weights_of(planned(TINY)[1]))
    onnx.helper.set_model_props(graph, {"triscale.format": "1", "classes": "äöü"})
    x = np.random.default_rng(0).standard_normal((5, 1, 16, 16), np.float32)
    for joins in (True, False):
        written = rewrite(graph, ranges_on(graph, x), joins=joins)
        assert written.metadata_props == graph.metadata_props
        assert (written.graph.input, written.graph.output) == (graph.graph.input, graph.graph.output)
        assert written.opset_import == graph.opset_import
        layers = {name for node in graph.graph.node for name in node.output}
        assert layers <= {name for node in written.graph.node for name in node.output}
        for target in TARGETS.values():
            run = target.run(written.SerializeToString(), 1, None)
            np.testing.assert_allclose(run(x[:2]), run(x)[:2], rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(architectures(), st.integers(0, 1000), st.booleans())
def test_any_network_in_int8_is_a_sound_graph_and_near_itself(
    architecture: Architecture, seed: int, joins: bool
) -> None:
    _, network = planned(architecture, seed)
    graph = onnx_graph(architecture, weights_of(network))
    x = pictures(architecture, 4, seed)
    written = rewrite(graph, ranges_on(graph, x), joins=joins, most=largest_weight(TARGETS["onnxruntime"]))
    onnx.checker.check_model(written, full_check=True)
    before = OnnxRuntime(graph.SerializeToString(), threads=1)(x)
    after = OnnxRuntime(written.SerializeToString(), threads=1)(x)
    # As near as where each layer's output, of which 255 levels are left, is off by up to a level.
    levels = disturbed(network, x, lambda out, chance: out + chance * (out.max() - out.min()) / 255)
    unsteady = max(np.abs(y - before).mean() for y in levels)
    assert np.abs(after - before).mean() <= max(0.05 * max(1.0, np.abs(before).max()), unsteady)


@settings(max_examples=6, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # compiling takes seconds
@given(architectures(), st.integers(0, 1000))
def test_both_engines_compute_the_same_from_it(architecture: Architecture, seed: int) -> None:
    _, network = planned(architecture, seed)
    graph = onnx_graph(architecture, weights_of(network))
    x = pictures(architecture, 4, seed)
    most = min(map(largest_weight, TARGETS.values()))
    written = rewrite(graph, ranges_on(graph, x), joins=True, most=most).SerializeToString()
    first, second = (target.run(written, 1, None)(x) for target in TARGETS.values())
    assert np.abs(first - second).mean() <= 0.05 * max(1.0, np.abs(first).max())
