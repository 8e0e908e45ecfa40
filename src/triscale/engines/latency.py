"""How long a network takes for one image, here and now."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from triscale.engines import turns
from triscale.engines.logits import Logits, engine_for, engine_of, running
from triscale.nn.network import Network
from triscale.precision import Precision
from triscale.stats import Spread

WARM_UP = 3
FEWEST, MOST = 11, 200
LONGEST = 3.0  # seconds for a network, unless three images take longer


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds for one image, batch 1: the median of n, and what 80 % of them lie between, which is never outside what
    was measured; by which engine."""

    median: float
    low: float
    high: float
    n: int
    device: str
    threads: int
    engine: str = "native"
    precision: Precision | Literal["int8"] = "fp32"

    @classmethod
    def of(
        cls,
        times: Sequence[float],
        *,
        device: str,
        threads: int,
        engine: str,
        precision: Precision | Literal["int8"],
    ) -> "Latency":
        """Of the seconds that so many images took."""
        spread = Spread.of(times)
        return cls(spread.median, spread.p10, spread.p90, spread.n, device, threads, engine, precision)


def measure_latency(
    networks: Sequence[Network],
    *,
    device: torch.device,
    seconds: float = 0.2,
    engine: str | None = None,
    precision: Precision = "fp32",
) -> list[Latency]:
    """The latency of each network, measured in turns, so that a busy moment of the machine falls on all of them.

    seconds: about how long for each network; at least 11 images each after three that warm up (of a network so slow
    that those take over three seconds, fewer: three after one). engine, precision: as for `running`, by default what
    `predict` takes, and named is the engine that ran each network; with as many threads as PyTorch uses at the time.
    They are left where and in which mode they were.
    Raises `UserError` for an engine that is not here.
    """
    threads, chosen = torch.get_num_threads(), engine_for(device, engine, precision)
    if not networks:
        return []
    with _ready(networks, device, chosen, precision) as ready:
        engines = [engine_of(network, chosen, precision) for network in networks]
        passes = [_pass(network, logits, device) for network, logits in zip(networks, ready, strict=True)]
        for run in passes:
            turns.warm_up(run, WARM_UP, LONGEST / 3)
        taken = turns.take_turns(
            [partial(turns.seconds, run) for run in passes], turns.Until(FEWEST, MOST, seconds, LONGEST)
        )
    return [
        Latency.of(times, device=str(device), threads=threads, engine=name, precision=precision)
        for times, name in zip(taken, engines, strict=True)
    ]


@contextmanager
def _ready(
    networks: Sequence[Network], device: torch.device, engine: str, precision: Precision
) -> Iterator[list[Logits]]:
    """What gives their logits on the device; they are afterwards where they were. Not to be called in inference mode:
    what is moved in it cannot be trained any more."""
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


def _pass(network: Network, logits: Logits, device: torch.device) -> Callable[[], None]:
    """One image, done when it returns."""
    architecture = network.architecture
    x = torch.zeros((1, architecture.channels, *architecture.resolution), device=device)

    def run() -> None:
        logits(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    return run
