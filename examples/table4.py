"""Table 4 of the EfficientNet paper (arXiv 1905.11946v5), measured here: EfficientNet-B1 against ResNet-152 on a core.

    python examples/table4.py [--precision fp32|bf16] [--rounds 21] [--json]

The paper's latency is that of batch 1 on a single core of an Intel Xeon E5-2690, the average of 20 runs: 0.098 s and
0.554 s, 5.7 times. Here Triscale's engine runs both with one thread, at their published resolutions, in turns. Medians
over the rounds with the 10th and the 90th percentile; ratios are those of two passes of the same round. Weights are
random: the time does not depend on them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from triscale.arch import Architecture, published
from triscale.benching.subjects import lively
from triscale.costing import cost
from triscale.engines.native import Engine, Plan, available, compile_plan
from triscale.engines.table import weights_of
from triscale.errors import TriscaleError
from triscale.nn import build

# Seconds printed in Table 4.
PAPER = {"resnet152": 0.554, "efficientnet_b1": 0.098}
PRINTED = 5.7
WARM_UP = 3


def plan(architecture: Architecture) -> Plan:
    """The network with random weights, whose numbers stay of an ordinary size."""
    return compile_plan(architecture, weights_of(lively(build(architecture, seed=0))))


def take_turns(engines: Sequence[Engine], rounds: int) -> list[list[float]]:
    """Seconds of each engine's passes, by round."""
    random = np.random.default_rng(0)
    shapes = [(1, engine.architecture.channels, *engine.architecture.resolution) for engine in engines]
    images = [random.standard_normal(shape, np.float32) for shape in shapes]
    taken: list[list[float]] = [[] for _ in engines]
    for _ in range(WARM_UP + rounds):
        for times, engine, x in zip(taken, engines, images, strict=True):
            engine(x)  # not counted: what the other left in the caches is another network's
            start = time.perf_counter()
            engine(x)
            times.append(time.perf_counter() - start)
    return [times[WARM_UP:] for times in taken]


def spread(values: Sequence[float]) -> dict[str, float]:
    low, high = np.quantile(values, (0.1, 0.9))
    return {"median": statistics.median(values), "p10": float(low), "p90": float(high), "n": len(values)}


def measure(precision: str, rounds: int) -> dict[str, Any]:
    architectures = [published(name) for name in PAPER]
    engines = [Engine(plan(one), precision=precision, threads=1) for one in architectures]  # type: ignore[arg-type]
    taken = take_turns(engines, rounds)
    networks = {}
    for architecture, times in zip(architectures, taken, strict=True):
        counted = cost(architecture)
        networks[architecture.name] = {
            "resolution": architecture.resolution,
            "params": counted.params,
            "macs": counted.macs,
            "ms": spread([1e3 * one for one in times]),
            "paper_ms": 1e3 * PAPER[architecture.name],
        }
    ratio = spread([slow / fast for slow, fast in zip(*taken, strict=True)])
    return {"precision": precision, "isa": available().isa, "networks": networks, "ratio": ratio, "paper": PRINTED}


def show(found: dict[str, Any]) -> None:
    """A line a network, then the ratio."""
    networks = found["networks"]
    n = found["ratio"]["n"]
    print(f"{found['precision']}, {found['isa']}, one thread, batch 1: median of {n} (10th to 90th percentile)")
    for name, one in networks.items():
        ms = one["ms"]
        print(
            f"  {name:15} at {one['resolution'][0]}: {one['params'] / 1e6:5.1f}M parameters, "
            f"{one['macs'] / 1e9:6.3f}G MACs, {ms['median']:.2f} ms ({ms['p10']:.2f} to {ms['p90']:.2f}); "
            f"paper {one['paper_ms']:.0f}"
        )
    ratio = found["ratio"]
    macs = networks["resnet152"]["macs"] / networks["efficientnet_b1"]["macs"]
    print(
        f"  EfficientNet-B1 is {ratio['median']:.2f} times as fast ({ratio['p10']:.2f} to {ratio['p90']:.2f}), "
        f"with {macs:.1f} times fewer MACs; paper {found['paper']}"
    )


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description="EfficientNet-B1 against ResNet-152 on one core.")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    try:
        found = measure(asked.precision, asked.rounds)
    except TriscaleError as error:  # no engine here, or none for bf16
        parser.error(str(error))
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
