"""Inference on a CPU by Triscale's engine against PyTorch, ONNX Runtime and OpenVINO: several networks, one table.

    python benchmarks/inference.py [NETWORK…] [--batch 1 32] [--threads 1 2] [--rounds 15] [--json]

Without names EfficientNet-B0, EfficientNet-B3 at 300, EfficientNet-Lite0, MobileNetV2 and ResNet-50. Each network is
measured as `triscale bench NETWORK --peers` does it (see `triscale.benching`), but for torch.compile, which takes
minutes a case; --compiled brings it in. All engines are in one process and take turns, each round in another order;
ratios are those of two turns of the same round: Triscale's engine to the peer of the same precision that is fastest
there (its median). Fraction of the limit, cold start and memory at the peak are measured too.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from typing import Any

from triscale.benching import Bench, bench
from triscale.benching.machine import machine
from triscale.benching.measuring import Case
from triscale.stats import Spread

NETWORKS = ("efficientnet_b0", "efficientnet_b3", "efficientnet_lite0", "mobilenet_v2", "resnet50")
OURS = "Triscale's engine"


def to_fastest(case: Case) -> dict[str, tuple[str, Spread]]:
    """By precision: the peer that is fastest, and our engine's time over its, round by round."""
    found = {}
    for precision in case.limits:
        peers = [name for name, one in case.engines.items() if name.endswith(precision) and one.compared is not None]
        if peers:
            best = min(peers, key=lambda name: statistics.median(case.taken[name]))
            ours = case.taken[f"{OURS} {precision}"]
            found[precision] = best, Spread.of_ratios(ours, case.taken[best])
    return found


def between(found: Spread, digits: int) -> str:
    return f"{found.median:.{digits}f} ({found.p10:.{digits}f} to {found.p90:.{digits}f})"


def show(found: Bench) -> None:
    """A network's cases, then its cold starts."""
    print(f"\n{found.name}: {found.macs / 1e6:,.0f}M MACs")
    for case in found.cases:
        limits = ", ".join(f"{precision} {speed / 1e9:.0f}" for precision, speed in case.limits.items())
        print(f" batch {case.batch}, threads {case.threads}; limit {limits} GMAC/s")
        for name, one in case.engines.items():
            limit = one.of_limit or 0
            print(f"  {name:23} {between(one.milliseconds, 2):26} of limit {limit:.2f}, differs by {one.differs:.1e}")
        for precision, (best, ratio) in to_fastest(case).items():
            print(f"  ours to {best}, {precision}: {between(ratio, 2)}")
    print(" a new process to its first image, ms")
    for name, start in found.starts.items():
        parts = ", ".join(f"{part} {1e3 * one.median:.0f}" for part, one in start.seconds.items() if part != "whole")
        memory = start.memory.median / 1e6
        print(f"  {name:23} {between(start.seconds['whole'].times(1e3), 0):26} {parts}; {memory:.0f} MB")
    for name, why in found.missing.items():
        print(f"  {name} is left out: {why}", file=sys.stderr)


def values(found: Bench) -> dict[str, Any]:
    fastest = [
        {precision: {"to": best, **asdict(ratio)} for precision, (best, ratio) in to_fastest(case).items()}
        for case in found.cases
    ]
    return {**asdict(found), "to_fastest": fastest}


def main() -> None:
    """Prints a table as it goes, or one JSON object."""
    parser = argparse.ArgumentParser(description="Inference by Triscale's engine against its peers, in turns.")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help="whatever names one")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true", help="torch.compile too; slow")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    here, found = machine(), []
    if not asked.json:
        print(", ".join(f"{name} {value}" for name, value in here.items()))
        print(f"ms per image: median of {asked.rounds} (10th to 90th percentile)")
    for name in asked.networks:
        found.append(
            bench(
                name, peers=True, slow=asked.compiled, batches=asked.batch, threads=asked.threads, rounds=asked.rounds
            )
        )
        if not asked.json:
            show(found[-1])
            sys.stdout.flush()
    if asked.json:
        print(json.dumps({"machine": here, "rounds": asked.rounds, "networks": [values(one) for one in found]}))


if __name__ == "__main__":
    main()
