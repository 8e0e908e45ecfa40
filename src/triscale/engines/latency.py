"""How long a network takes for one image, here and now."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor

from triscale.engines.logits import Logits, engine_for, running
from triscale.nn.network import Network

WARM_UP = 3
FEWEST, MOST = 11, 200
LONGEST = 3.0  # seconds for a network, unless three images take longer


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds for one image, batch 1: the median of n, and what 80 % of them lie between; by which engine."""

    median: float
    low: float
    high: float
    n: int
    device: str
    threads: int
    engine: str = "native"
    precision: str = "fp32"


@torch.inference_mode()
def measure_latency(
    networks: Sequence[Network],
    *,
    device: torch.device,
    seconds: float = 0.2,
    engine: str | None = None,
    precision: str = "fp32",
) -> list[Latency]:
    """The latency of each network, measured in turns, so that a busy moment of the machine falls on all of them.

    seconds: about how long for each network; at least 11 images each after three that warm up (of a network so slow
    that those take over three seconds, fewer: three after one). engine, precision: as for `running`, by default what
    `predict` takes; with as many threads as PyTorch uses at the time. They are left where and in which mode they were.
    Raises `UserError` for an engine that is not here.
    """
    threads, chosen = torch.get_num_threads(), engine_for(device, engine, precision)
    if not networks:
        return []
    with _ready(networks, device, chosen, precision) as ready:
        inputs = [_input(network, device) for network in networks]
        for logits, x in zip(ready, inputs, strict=True):
            started = time.perf_counter()
            for _ in range(WARM_UP):
                _time(logits, x)
                if time.perf_counter() - started > LONGEST / 3:
                    break
        taken: list[list[float]] = [[] for _ in networks]
        while _goes_on(len(taken[0]), sum(map(sum, taken)) / len(networks), seconds):
            for times, logits, x in zip(taken, ready, inputs, strict=True):
                times.append(_time(logits, x))
    return [
        Latency(
            median(times), *_middle(times), len(times), str(device), threads=threads, engine=chosen, precision=precision
        )
        for times in taken
    ]


def _goes_on(n: int, spent: float, seconds: float) -> bool:
    """Whether to measure another image of each network after n that took so many seconds a network."""
    fewest = FEWEST if spent < LONGEST else 3
    return n < fewest or (n < MOST and spent < seconds)


@contextmanager
def _ready(networks: Sequence[Network], device: torch.device, engine: str, precision: str) -> Iterator[list[Logits]]:
    """What gives their logits on the device; they are afterwards where they were."""
    before = [next(network.parameters()).device for network in networks]
    try:
        with ExitStack() as engines:
            yield [
                engines.enter_context(running(network.to(device), engine=engine, precision=precision, batch=1))
                for network in networks
            ]
    finally:
        for network, place in zip(networks, before, strict=True):
            network.to(place)


def _input(network: Network, device: torch.device) -> Tensor:
    architecture = network.architecture
    return torch.zeros((1, architecture.channels, *architecture.resolution), device=device)


def _time(logits: Logits, x: Tensor) -> float:
    start = time.perf_counter()
    logits(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def _middle(times: list[float]) -> tuple[float, float]:
    tenths = quantiles(times, n=10)
    return tenths[0], tenths[-1]
