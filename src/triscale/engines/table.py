"""The engines that run a network on a CPU, in one table: the command line, the checks and the benchmarks read it."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch

from triscale.arch import Architecture
from triscale.engines.native import Engine, compile_plan
from triscale.engines.native.library import find_precision, missing
from triscale.engines.pytorch import PyTorch, emulates_bf16
from triscale.engines.runner import Runner
from triscale.errors import UserError
from triscale.nn.network import Network
from triscale.precision import ANSWERING, Precision

Opener = Callable[[Network, Precision, int, int | None], AbstractContextManager[Runner]]
Why = Callable[[Precision], str | None]  # by precision; None: there is no reason


def _nothing(precision: Precision) -> None:
    return None


@dataclass(frozen=True)
class Kind:
    """An engine.

    title: as people call it. precisions: the first is the one without another word. modules: what must be installed,
    and extra: `triscale[extra]` brings it. refuses: why this processor does not run it in one of its precisions; None
    where it does. wastes: why nobody would run it so, though it can; None where somebody would. slow: takes minutes
    before its first answer.
    """

    name: str
    title: str
    precisions: tuple[Precision, ...]
    opener: Opener
    modules: tuple[str, ...] = ()
    extra: str = "export"
    refuses: Why = _nothing
    wastes: Why = _nothing
    slow: bool = False

    def missing(self, precision: Precision = "fp32") -> str | None:
        """Why it cannot run here in that precision; None where it can."""
        if precision not in self.precisions:
            return f"{self.title} runs in {' and '.join(self.precisions)}, not in {precision}"
        absent = [module for module in self.modules if find_spec(module) is None]
        if absent:
            return f"{absent[0]} is not installed; pip install 'triscale[{self.extra}]'"
        return self.refuses(precision)

    def open(
        self, network: Network, *, precision: Precision = "fp32", threads: int, batch: int | None = None
    ) -> AbstractContextManager[Runner]:
        """The network, with the weights that it has now, ready to run on the CPU while the context lasts.

        threads: of one call; PyTorch takes as many as its process was told, whatever is said here. batch: images of
        every call, where they are always as many: some engines are faster then.
        """
        return self.opener(network, precision, threads, batch)


def weights_of(network: Network) -> dict[str, npt.NDArray[np.generic]]:
    """Its tensors by name, as arrays; they share memory with a network on the CPU, but for bf16, which numpy lacks."""
    tensors = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return {name: (one.float() if one.dtype == torch.bfloat16 else one).numpy() for name, one in tensors.items()}


def graph_of(architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """The network as the content of an ONNX file."""
    from triscale.engines.graph import onnx_graph

    content: bytes = onnx_graph(architecture, weights).SerializeToString(deterministic=True)
    return content


@contextmanager
def _native(network: Network, precision: Precision, threads: int, batch: int | None) -> Iterator[Runner]:
    plan = compile_plan(network.architecture, weights_of(network))
    with Engine(plan, precision=find_precision(precision), threads=threads) as engine:
        yield engine


def _pytorch(*, compiled: bool) -> Opener:
    @contextmanager
    def opener(network: Network, precision: Precision, threads: int, batch: int | None) -> Iterator[Runner]:
        try:
            yield PyTorch(network, precision=precision, compiled=compiled)
        finally:
            if compiled:  # what it remembers of sizes would make whoever compiles next wait for many minutes
                torch._dynamo.reset()

    return opener


@contextmanager
def _onnx_runtime(network: Network, precision: Precision, threads: int, batch: int | None) -> Iterator[Runner]:
    from triscale.engines.onnx_runtime import OnnxRuntime

    yield OnnxRuntime(graph_of(network.architecture, weights_of(network)), threads=threads, batch=batch)


@contextmanager
def _open_vino(network: Network, precision: Precision, threads: int, batch: int | None) -> Iterator[Runner]:
    from triscale.engines.open_vino import OpenVino

    graph = graph_of(network.architecture, weights_of(network))
    yield OpenVino(graph, precision=precision, threads=threads, batch=batch)


def _pytorch_wastes(precision: Precision) -> str | None:
    if precision == "bf16" and emulates_bf16():
        return "this processor does not compute in bf16, and PyTorch emulates it in many times the time of fp32"
    return None


def _open_vino_refuses(precision: Precision) -> str | None:
    """It takes fp32 for what the processor does not compute in, and says nothing."""
    if precision == "bf16" and emulates_bf16():
        return "this processor does not compute in bf16; OpenVINO would take fp32 and say nothing"
    return missing(precision) if precision == "fp16" else None


def _compiler_is_missing(precision: Precision) -> str | None:
    """torch.compile calls one, the one that CXX names or g++."""
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"there is no C++ compiler ({compiler}), which torch.compile needs"


ENGINES: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("native", "Triscale's engine", ANSWERING, _native, refuses=missing),
        Kind("torch", "PyTorch", ("fp32", "bf16"), _pytorch(compiled=False), wastes=_pytorch_wastes),
        Kind(
            "compiled",
            "torch.compile",
            ("fp32", "bf16"),
            _pytorch(compiled=True),
            refuses=_compiler_is_missing,
            wastes=_pytorch_wastes,
            slow=True,
        ),
        Kind("onnxruntime", "ONNX Runtime", ("fp32",), _onnx_runtime, ("onnx", "onnxruntime")),
        Kind("openvino", "OpenVINO", ANSWERING, _open_vino, ("onnx", "openvino"), refuses=_open_vino_refuses),
    )
}


def find_engine(name: str, precision: Precision = "fp32") -> Kind:
    """The engine of that name, ready for that precision here. Raises `UserError` otherwise, saying what there is."""
    if name not in ENGINES:
        raise UserError(f"--engine {name!r}: no such engine; there are {', '.join(ENGINES)}")
    why = ENGINES[name].missing(precision)
    if why is not None:
        here = [one.name for one in ENGINES.values() if one.missing(precision) is None]
        raise UserError(f"--engine {name}: {why}" + (f"; here are {', '.join(here)}" if here else ""))
    return ENGINES[name]
