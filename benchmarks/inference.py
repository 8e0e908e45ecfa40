"""Inference on a CPU by Triscale's engine against PyTorch, ONNX Runtime and OpenVINO: the same network and weights.

    python benchmarks/inference.py [NETWORK…] [--batch 1 32] [--threads 1 2] [--rounds 15] [--compiled] [--cold]

Without names EfficientNet-B0, EfficientNet-B3 at 300, EfficientNet-Lite0, MobileNetV2 and ResNet-50. All engines are in
one process and take turns, each round in another order. A turn is one pass of the batch; where passes are short, the
median of as many as fit into 30 ms, after one that is not counted. Medians over the rounds with the 10th and the 90th
percentile; ratios are those of two turns of the same round: Triscale's engine to the peer of the same precision that is
fastest there (its median). PyTorch runs in channels-last order, in inference mode; the others get the network as ONNX,
its shape fixed. The allocator is made steady for all: by its defaults PyTorch takes several times as long for a batch.
differs: the largest difference of a logit from PyTorch's in fp32, relative to the largest logit.

of limit: the time that the network's multiply-adds would take at the speed at which as many threads multiply with
everything in the first cache (`measure_limit`, in the same precision), over the time that it took.

--compiled: torch.compile with frozen weights too, which takes minutes a network. --cold: how long a new process takes
to its first image: import, load, first pass. An engine that is not installed is named and left out; `pip install
triscale[bench]` brings the peers.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_inference import PEERS, Array, Pass, Peer, Subject, missing, prepare
from safetensors.torch import save_file

from triscale.arch import Architecture, resolve
from triscale.arch.files import to_json
from triscale.costing import cost
from triscale.engines.native import available, measure_limit
from triscale.kernels import status
from triscale.training import steady_allocator

NETWORKS = ("efficientnet_b0", "efficientnet_b3", "efficientnet_lite0", "mobilenet_v2", "resnet50")
REFERENCE = "pytorch fp32"
SHORT, MOST = 0.03, 31  # seconds of a turn with short passes, and how many they are at most
COLD = Path(__file__).parent / "cold_start.py"
PACKAGES = ("torch", "onnxruntime", "openvino")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def turn(run: Callable[[], object]) -> float:
    """Seconds of a pass."""
    first = seconds(run)
    if first > SHORT:
        return first
    taken = [seconds(run)]
    while sum(taken) < SHORT and len(taken) < MOST:
        taken.append(seconds(run))
    return statistics.median(taken)


def limits(threads: int) -> dict[str, float]:
    """Multiply-accumulates a second by precision: the median of seven."""
    here = available()
    precisions = [] if here.isa is None else ["fp32", "bf16"] if here.bf16 else ["fp32"]
    return {one: statistics.median(measure_limit(one, threads) for _ in range(7)) for one in precisions}


def spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = (float(np.quantile(values, share)) for share in (0.1, 0.5, 0.9))
    return {"median": middle, "p10": low, "p90": high, "n": len(values)}


def take_turns(passes: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in each round. Two more rounds come before, which warm up."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    names = list(passes)
    for number in range(rounds + 2):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            taken[name].append(turn(passes[name]))
    return {name: found[2:] for name, found in taken.items()}


def differences(passes: Mapping[str, Pass]) -> dict[str, float]:
    """From the reference, relative to its largest logit."""
    expected: Array = passes[REFERENCE]().copy()
    largest = float(np.abs(expected).max())
    return {name: float(np.abs(run() - expected).max()) / largest for name, run in passes.items()}


def ratios(taken: Mapping[str, list[float]], peers: Mapping[str, Peer]) -> dict[str, dict[str, Any]]:
    """By precision: the native engine's time over the fastest peer's, round by round."""
    found = {}
    for own in (peer for peer in peers.values() if peer.engine == "native"):
        others = [p.name for p in peers.values() if p.engine != "native" and p.precision == own.precision]
        if others:
            best = min(others, key=lambda name: statistics.median(taken[name]))
            each = [a / b for a, b in zip(taken[own.name], taken[best], strict=True)]
            found[own.precision] = {"to": best, **spread(each)}
    return found


def measure(subject: Subject, peers: Mapping[str, Peer], batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """One network with one batch and so many threads."""
    architecture = subject.network.architecture
    torch.set_num_threads(threads)
    shape = (batch, architecture.channels, *architecture.resolution)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    with ExitStack() as running:
        passes = {name: running.enter_context(peer.make(subject, x, threads)) for name, peer in peers.items()}
        apart = differences(passes)
        taken = take_turns(passes, rounds)
    macs, fastest = cost(architecture).macs, limits(threads)
    engines = {
        name: {
            "ms_per_image": spread([one / batch * 1e3 for one in taken[name]]),
            "of_limit": macs * batch / statistics.median(taken[name]) / fastest[peer.precision] if fastest else None,
            "differs": apart[name],
        }
        for name, peer in peers.items()
    }
    return {"batch": batch, "threads": threads, "macs": macs, "limit_macs_per_second": fastest, "engines": engines,
            "ratios": ratios(taken, peers)}  # fmt: skip


def cold(subject: Subject, peers: Mapping[str, Peer], folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Of each engine, what a new process takes to its first image, in milliseconds."""
    (folder / "network.json").write_text(to_json(subject.network.architecture))
    save_file(subject.network.state_dict(), folder / "network.safetensors")
    if subject.plan is not None:
        subject.plan.save(folder / "network.plan")
    taken: dict[str, list[dict[str, float]]] = {p.name: [] for p in peers.values() if p.engine != "compiled"}
    for number in range(rounds + 1):  # the first brings the files into memory
        for name, found in taken.items():
            words = [sys.executable, str(COLD), *name.split(), str(folder), str(threads)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            if number:
                found.append(json.loads(done.stdout))
    return {
        name: {part: spread([1e3 * one[part] for one in found]) for part in found[0]} for name, found in taken.items()
    }


def results(
    networks: Sequence[Architecture], peers: Mapping[str, Peer], asked: argparse.Namespace, told: Callable[..., None]
) -> list[dict[str, Any]]:
    """Of every network, told as they come."""
    found = []
    for architecture in networks:
        with tempfile.TemporaryDirectory(prefix="triscale-") as place:
            folder = Path(place)
            subject = prepare(architecture, peers, folder)
            one: dict[str, Any] = {"network": architecture.name, "resolution": architecture.resolution, "cases": []}
            for threads in asked.threads:
                for batch in asked.batch:
                    one["cases"].append(measure(subject, peers, batch, threads, asked.rounds))
                    told(show_case, one, one["cases"][-1])
            if asked.cold:
                threads = max(asked.threads)
                one["cold_start_ms"] = cold(subject, peers, folder, threads, asked.cold)
                told(show_cold, one, threads)
        found.append(one)
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": model or platform.machine(), "cores": os.cpu_count(), "isa": status().isa, **versions}


def between(found: Mapping[str, float], digits: int) -> str:
    return f"{found['median']:.{digits}f} ({found['p10']:.{digits}f} to {found['p90']:.{digits}f})"


def show_case(one: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    height, width = one["resolution"]
    plural = "s" if case["threads"] > 1 else ""
    print(
        f"\n{one['network']} at {height}×{width}, {case['macs'] / 1e6:,.0f}M MACs, batch {case['batch']}, "
        f"{case['threads']} thread{plural}; limit "
        + ", ".join(f"{precision} {speed / 1e9:.0f}" for precision, speed in case["limit_macs_per_second"].items())
        + " GMAC/s"
    )
    for name, engine in case["engines"].items():
        print(
            f"  {name:17} {between(engine['ms_per_image'], 2):26} of limit {engine['of_limit'] or 0:.2f}, "
            f"differs by {engine['differs']:.1e}"
        )
    for precision, ratio in case["ratios"].items():
        print(f"  native to {ratio['to']}, {precision}: {between(ratio, 2)}")


def show_cold(one: Mapping[str, Any], threads: int) -> None:
    print(f"\n{one['network']}: a new process to its first image, ms, {threads} threads")
    for name, parts in one["cold_start_ms"].items():
        apart = ", ".join(f"{part} {found['median']:.0f}" for part, found in parts.items() if part != "whole")
        print(f"  {name:17} {between(parts['whole'], 0):26} {apart}")


def main() -> None:
    """Prints a table as it goes, or one JSON object."""
    parser = argparse.ArgumentParser(description="Inference by Triscale's engine against its peers, in turns.")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help="whatever names one")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true", help="torch.compile too; slow")
    parser.add_argument("--cold", type=int, nargs="?", const=5, default=0, metavar="N", help="N new processes each (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    if not steady_allocator():
        print("the allocator is not glibc's: times are those of its defaults", file=sys.stderr)
    wanted = {name: peer for name, peer in PEERS.items() if asked.compiled or not peer.slow}
    reasons = {name: why for name, peer in wanted.items() if (why := missing(peer))}
    for why in reasons.values():
        print(why, file=sys.stderr)
    peers = {name: peer for name, peer in wanted.items() if name not in reasons}
    here = machine()
    if not asked.json:
        print(", ".join(f"{name} {value}" for name, value in here.items()))
        print(f"ms per image: median of {asked.rounds} (10th to 90th percentile)")

    def told(show: Callable[..., None], *what: object) -> None:
        if not asked.json:
            show(*what)
            sys.stdout.flush()

    found = results([resolve(name) for name in asked.networks], peers, asked, told)
    if asked.json:
        print(json.dumps({"machine": here, "rounds": asked.rounds, "missing": reasons, "networks": found}))


if __name__ == "__main__":
    main()
