"""What is timed: a network, or an exported file, and the engines that can run it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from triscale.arch import Architecture
from triscale.engines.native import Plan, compile_plan
from triscale.engines.onnx_runtime import OnnxRuntime
from triscale.engines.open_vino import OpenVino
from triscale.engines.runner import Runner
from triscale.engines.table import ENGINES, Kind, weights_of
from triscale.errors import UserError
from triscale.exporting import is_exported, opened
from triscale.models import load
from triscale.nn.network import Network
from triscale.precision import Precision

READS = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}  # formats, and the engines that read them


@dataclass(frozen=True, slots=True)
class Way:
    """An engine in a precision; int8: on a file in int8, where the precision is that of what int8 leaves."""

    engine: Kind
    precision: Precision
    int8: bool = False

    @property
    def name(self) -> str:
        """As tables call it."""
        rest = "" if self.precision == "fp32" else f" and {self.precision}"
        return f"{self.engine.title} " + (f"int8{rest}" if self.int8 else self.precision)


@dataclass(frozen=True, eq=False)
class Subject:
    """name: as it was given. network: None for a file, which `file` then is, of the format `format`. int8: whether
    that file is in int8."""

    name: str
    architecture: Architecture
    network: Network | None
    file: Path | None = None
    format: str = ""
    int8: bool = False

    def ways(self, *, peers: bool, slow: bool = True) -> tuple[tuple[Way, ...], dict[str, str]]:
        """How it can be run here, ours and PyTorch's first; and of the others why not, or why nobody would. peers: all
        that there are. slow: those too that take minutes before their first answer."""
        found, missing = [], {}
        for kind in (one for one in self._kinds(peers=peers) if slow or not one.slow):
            for precision in kind.precisions:
                way = Way(kind, precision, self.int8)
                why = kind.missing(precision) or kind.wastes(precision)
                if why is None:
                    found.append(way)
                else:
                    missing[way.name] = why
        if not found:
            raise UserError(f"{self.name}: no engine here can run it: {'; '.join(missing.values())}")
        return tuple(found), missing

    def plan(self) -> Plan:
        """What our engine carries out of a subject that is a network."""
        assert self.network is not None
        return compile_plan(self.architecture, weights_of(self.network))

    def _kinds(self, *, peers: bool) -> list[Kind]:
        if self.network is None:
            return [ENGINES[name] for name in READS[self.format]]
        return [kind for name, kind in ENGINES.items() if peers or name in ("native", "torch")]

    @contextmanager
    def running(self, ways: tuple[Way, ...], threads: int, batch: int) -> Iterator[Mapping[str, Runner]]:
        """All of them ready, by name, with so many threads for batches of that size."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with ExitStack() as open_ones:
                yield {way.name: self._open(way, threads, batch, open_ones) for way in ways}
        finally:
            torch.set_num_threads(before)

    def _open(self, way: Way, threads: int, batch: int, open_ones: ExitStack) -> Runner:
        if self.network is not None:
            opening = way.engine.open(self.network, precision=way.precision, threads=threads, batch=batch)
            return open_ones.enter_context(opening)
        assert self.file is not None
        if way.engine.name == "onnxruntime":
            return OnnxRuntime(self.file, threads=threads, batch=batch)
        return OpenVino(self.file, precision=way.precision, threads=threads, batch=batch)


def find_subject(name: str) -> Subject:
    """Whatever a name means: a network with the weights it has, or with random ones; or an exported file.

    Raises `UserError` where it means nothing.
    """
    if is_exported(name):
        file = opened(name, threads=1)
        return Subject(name, file.architecture, None, file.path, file.format.name, file.int8)
    model = load(name).cpu()
    return Subject(name, model.architecture, model if model.trained else lively(model))


@torch.no_grad()
def lively(network: Network) -> Network:
    """A network of random weights whose normalisations have the statistics of random images, and gains and shifts of
    their own, so that the signal neither dies nor grows from layer to layer: tiny numbers are slow."""
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.weight.uniform_(0.7, 1.3, generator=generator)
        norm.bias.uniform_(-0.3, 0.3, generator=generator)
        norm.momentum = None  # the statistics of this batch, whole
        norm.train()
    architecture = network.architecture
    network(torch.randn(4, architecture.channels, *architecture.resolution, generator=generator))
    return network.eval()
