"""Engines that run the same network with the same weights on a CPU: Triscale's own, PyTorch, ONNX Runtime, OpenVINO.

A peer gets what suits it best: shapes that are fixed, its input in the order of memory it likes and, where it can take
it, in place. Threads that it lets wait for more work by turning in circles are told to sleep, so that they take nothing
from whoever is next.
"""

import copy
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from triscale.arch import Architecture
from triscale.nn import build
from triscale.nn.network import Network

# Both report their use over the network. OpenVINO does not where it finds no such module, ONNX Runtime where it reads
# this as it is imported; processes started from here read it too.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

Array = npt.NDArray[np.float32]
Pass = Callable[[], Array]  # its batch once → logits (n, classes)


@dataclass(frozen=True)
class Subject:
    """A network in the forms that engines take. plan: of the native engine, None without it; onnx: a file, or None."""

    network: Network
    plan: Any
    onnx: Path | None


Maker = Callable[[Subject, Array, int], AbstractContextManager[Pass]]


@dataclass(frozen=True)
class Peer:
    """An engine at a precision. modules: what must be installed. slow: left out unless asked for."""

    engine: str
    precision: str
    modules: tuple[str, ...]
    make: Maker
    slow: bool = False

    @property
    def name(self) -> str:
        """As it is called in tables."""
        return f"{self.engine} {self.precision}"


@torch.no_grad()
def weighted(architecture: Architecture) -> Network:
    """The network with random weights, and normalisations that change what they are given: gains and shifts of their
    own, statistics measured on random images, so that the signal neither dies nor grows from layer to layer."""
    network, generator = build(architecture, seed=0).eval(), torch.Generator().manual_seed(0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.weight.uniform_(0.7, 1.3, generator=generator)
        norm.bias.uniform_(-0.3, 0.3, generator=generator)
        norm.momentum = None  # the statistics of this batch, whole
        norm.train()
    height, width = architecture.resolution
    network(torch.randn(4, architecture.channels, height, width, generator=generator))
    return network.eval()


def tensors(network: Network) -> dict[str, Array]:
    """Its weights and statistics by name, fp32."""
    return {name: value.numpy() for name, value in network.state_dict().items() if value.is_floating_point()}


def missing(peer: Peer) -> str | None:
    """Why it cannot run here; None where it can."""
    for module in peer.modules:
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            return f"{peer.name} is left out: {error}"
    if peer.engine == "native":
        here = importlib.import_module("triscale.engines.native").available()
        if here.isa is None:
            return f"{peer.name} is left out: {here.why}"
        if peer.precision == "bf16" and not here.bf16:
            return f"{peer.name} is left out: the instruction set {here.isa} does not multiply bf16"
    return None


def prepare(architecture: Architecture, peers: Mapping[str, Peer], folder: Path) -> Subject:
    """The network as these engines take it; files are written to the folder."""
    network, engines = weighted(architecture), {peer.engine for peer in peers.values()}
    plan = None
    if "native" in engines:
        plan = importlib.import_module("triscale.engines.native").compile_plan(architecture, tensors(network))
    onnx = folder / "network.onnx" if engines & {"onnxruntime", "openvino"} else None
    if onnx is not None:
        export(network, onnx)
    return Subject(network, plan, onnx)


def export(network: Network, path: Path) -> None:
    """As ONNX, for batches of any size. The exporter needs an example of more than one image."""
    architecture = network.architecture
    x = torch.randn(2, architecture.channels, *architecture.resolution)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        shapes = ({0: torch.export.Dim("b")},)
        torch.onnx.export(network, (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)


def _native(precision: str) -> Maker:
    @contextmanager
    def make(subject: Subject, x: Array, threads: int) -> Iterator[Pass]:
        engine = importlib.import_module("triscale.engines.native").Engine
        with engine(subject.plan, precision=precision, threads=threads) as running:
            yield lambda: running(x)

    return make


def _pytorch(dtype: torch.dtype, *, compiled: bool) -> Maker:
    @contextmanager
    def make(subject: Subject, x: Array, threads: int) -> Iterator[Pass]:
        network: nn.Module = copy.deepcopy(subject.network).to(dtype=dtype, memory_format=torch.channels_last)
        batch = torch.from_numpy(x).to(dtype=dtype, memory_format=torch.channels_last)
        if not compiled:
            yield lambda: _logits(network, batch)
            return
        import torch._inductor.config as inductor

        torch._dynamo.reset()  # the number of threads is part of compiled code
        with inductor.patch(freezing=True), torch.no_grad():
            compiled_network = torch.compile(network)
            compiled_network(batch)
            yield lambda: compiled_network(batch).float().numpy()

    return make


@torch.inference_mode()
def _logits(network: nn.Module, x: Tensor) -> Array:
    logits: Array = network(x).float().numpy()
    return logits


@contextmanager
def _onnxruntime(subject: Subject, x: Array, threads: int) -> Iterator[Pass]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_free_dimension_override_by_name("b", len(x))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(subject.onnx), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: x}
    yield lambda: session.run(None, inputs)[0]


def _openvino(precision: str) -> Maker:
    @contextmanager
    def make(subject: Subject, x: Array, threads: int) -> Iterator[Pass]:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(subject.onnx))
        model.reshape({0: list(x.shape)})
        request = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            },
        ).create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

        def run() -> Array:
            request.infer()
            logits: Array = request.get_output_tensor().data
            return logits

        yield run

    return make


_NATIVE, _EXPORTS = ("triscale.engines.native",), ("onnx", "onnxscript")
PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("native", "fp32", _NATIVE, _native("fp32")),
        Peer("native", "bf16", _NATIVE, _native("bf16")),
        Peer("pytorch", "fp32", (), _pytorch(torch.float32, compiled=False)),
        Peer("compiled", "fp32", (), _pytorch(torch.float32, compiled=True), slow=True),
        Peer("compiled", "bf16", (), _pytorch(torch.bfloat16, compiled=True), slow=True),
        Peer("onnxruntime", "fp32", (*_EXPORTS, "onnxruntime"), _onnxruntime),
        Peer("openvino", "fp32", (*_EXPORTS, "openvino"), _openvino("fp32")),
        Peer("openvino", "bf16", (*_EXPORTS, "openvino"), _openvino("bf16")),
    )
}
