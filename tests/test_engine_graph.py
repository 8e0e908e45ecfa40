"""What networks as ONNX graphs promise: other engines compute what PyTorch does, from descriptions of any kind."""

import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import onnx
import pytest
import torch
from hypothesis import given, settings
from native_program import as_near_as_pytorch, pictures, planned
from specs import architectures

from triscale.arch import Architecture, adapt, published
from triscale.engines import measure_latency, running
from triscale.engines.graph import onnx_graph
from triscale.engines.onnx_runtime import OnnxRuntime
from triscale.engines.open_vino import OpenVino
from triscale.engines.table import ENGINES, find_engine, graph_of, weights_of
from triscale.errors import UserError
from triscale.nn import build
from triscale.nn.blocks import SqueezeExcite

CPU = torch.device("cpu")
OTHERS = tuple(name for name, kind in ENGINES.items() if name != "native" and not kind.slow)
pytestmark = pytest.mark.usefixtures("one_thread")


@given(architectures(), st.integers(0, 1000), st.integers(1, 4))
def test_onnx_runtime_computes_from_the_graph_what_pytorch_does(architecture: Architecture, seed: int, n: int) -> None:
    _, network = planned(architecture, seed)
    x = pictures(architecture, n, seed)
    as_near_as_pytorch(OnnxRuntime(graph_of(architecture, weights_of(network)), threads=1)(x), network, x)


@settings(max_examples=10)
@given(architectures(), st.integers(0, 1000), st.integers(1, 4))
def test_openvino_computes_from_the_graph_what_pytorch_does(architecture: Architecture, seed: int, n: int) -> None:
    _, network = planned(architecture, seed)
    x = pictures(architecture, n, seed)
    as_near_as_pytorch(OpenVino(graph_of(architecture, weights_of(network)), threads=1)(x), network, x)


SIGNALLED = """
import os, signal, sys, threading
from pathlib import Path
from triscale.engines.open_vino import OpenVino
from triscale.engines.signal_stack import signal_stack
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
graph = Path(sys.argv[1]).read_bytes()
before = bytes(signal_stack())
models = [OpenVino(graph, threads=1) for _ in range(3)]
assert bytes(signal_stack()) == before
del models[0]
thread = threading.Thread(target=models.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO has a stack for signals only there")
def test_a_signal_after_models_of_openvino_have_gone_is_handled(tmp_path: Path) -> None:
    architecture = adapt(published("mobilenet_v2"), resolution=(32, 32), classes=3)
    (tmp_path / "graph.onnx").write_bytes(graph_of(architecture, weights_of(planned(architecture)[1])))
    line = [sys.executable, "-c", SIGNALLED, tmp_path / "graph.onnx"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mnasnet_a1", "resnet50"])
def test_graphs_of_published_networks_pass_onnxs_own_checks(name: str) -> None:
    architecture = adapt(published(name), resolution=(57, 40), classes=11)
    _, network = planned(architecture)
    graph = onnx_graph(architecture, weights_of(network), {"said": "so"})
    onnx.checker.check_model(graph, full_check=True)
    run = OnnxRuntime(graph.SerializeToString(), threads=1)
    assert run.metadata() == {"said": "so"}
    for n in (3, 1):  # a batch of any size
        as_near_as_pytorch(run(pictures(architecture, n)), network, pictures(architecture, n))


@given(architectures())
def test_a_graph_names_what_each_module_gives(architecture: Architecture) -> None:
    _, network = planned(architecture)
    graph = onnx_graph(architecture, weights_of(network))
    given = {output for node in graph.graph.node for output in node.output}
    layers = {name.removesuffix(".norm") for name, _ in network.named_modules() if name.endswith(".norm")}
    excites = {name for name, one in network.named_modules() if isinstance(one, SqueezeExcite)}
    assert layers | excites <= given
    assert len(given) == sum(len(node.output) for node in graph.graph.node)


def test_a_graph_is_the_same_bytes_each_time() -> None:
    network = build(adapt(published("efficientnet_b0"), resolution=(32, 32), classes=3))
    graphs = {graph_of(network.architecture, weights_of(network)) for _ in range(2)}
    assert len(graphs) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_an_engine_that_is_named_answers(name: str) -> None:
    network = planned(adapt(published("efficientnet_lite0"), resolution=(40, 32), classes=5))[1]
    x = pictures(network.architecture, 3)
    with running(network, engine=name) as logits:
        as_near_as_pytorch(logits(torch.from_numpy(x)).numpy(), network, x)
        assert logits(torch.from_numpy(x[:0])).shape == (0, 5)
    assert measure_latency([network], device=CPU, seconds=0.01, engine=name)[0].engine == name


def test_an_engine_answers_with_the_weights_of_the_moment() -> None:
    network = planned(adapt(published("efficientnet_lite0"), resolution=(32, 32), classes=5))[1]
    x = torch.from_numpy(pictures(network.architecture, 1))
    with torch.no_grad():
        network.head.classifier.bias += 100
    with running(network, engine="onnxruntime") as logits:
        assert logits(x).min() > 50


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [("tflite", "fp32", "no such engine"), ("onnxruntime", "bf16", "not in bf16"), ("torch", "int4", "not in int4")],
)
def test_an_engine_that_is_not_here_is_one_line_that_says_which_are(name: str, precision: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        find_engine(name, precision)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", [OnnxRuntime, OpenVino])
def test_what_is_no_graph_is_refused_in_one_line(engine: type[OnnxRuntime] | type[OpenVino]) -> None:
    with pytest.raises(UserError, match="cannot run it") as caught:
        engine(b"no graph", threads=1)
    assert "\n" not in str(caught.value)


def test_engines_that_report_over_the_network_are_told_not_to_before_they_are_imported() -> None:
    code = (
        "import os, sys; seen = []\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': seen.append(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "        if name == 'openvino': seen.append('openvino_telemetry' in sys.modules)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from triscale.engines import onnx_runtime, open_vino\n"
        "onnx_runtime.module(); open_vino.module()\n"
        "print(seen, sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['1', True] None\n"
