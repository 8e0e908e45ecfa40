"""From a run's model file to its first answer without torch; and whether a plan that was kept would be quicker.

    python benchmarks/opening.py [--macs 5M] [--rounds 30] [--processes 15]

EfficientNet-B0, and the same for 32 pixels and 10 classes scaled to --macs; random weights, files in the page cache.
A plan that is kept may be taken only where the model file is the one it was made of, and where its own bytes are whole:
the digests of both come first. It is measured as `Plan.load` reads it, and mapped, the least that could be. All ways
take turns. wall: of the clock; CPU: of the process, which other work on the machine disturbs less. Medians with the
10th and the 90th percentile, in milliseconds.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from inference import between

from triscale.arch import Architecture, adapt, published, resolve
from triscale.benching.machine import machine
from triscale.data import Preprocess
from triscale.engines.native import Plan, compile_plan
from triscale.models.model import new
from triscale.scaling import RULES, Budget, solve
from triscale.stats import Spread
from triscale.units import parse_count

Taken = dict[str, dict[str, list[float]]]

NATIVE = """
import sys
import numpy as np
from triscale.data import Preprocess
from triscale.engines.native import open_run
engine = open_run(sys.argv[1])
architecture = engine.architecture
engine(np.zeros((1, architecture.channels, *architecture.resolution), np.float32))
"""
TORCH = """
import sys
import torch, triscale
from triscale.engines import running
model = triscale.load(sys.argv[1])
with running(model) as logits:
    logits(torch.zeros((1, model.architecture.channels, *model.architecture.resolution)))
"""


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plan_ways(folder: Path) -> dict[str, Callable[[], object]]:
    """To a plan, from a model file."""
    model, kept = folder / "model.safetensors", folder / "model.plan"
    layers, blob = folder / "layers.npy", folder / "blob.npy"
    architecture, weights = resolve(model), safetensors.numpy.load_file(model)
    plan = compile_plan(architecture, weights)
    plan.save(kept)
    np.save(layers, plan.layers)
    np.save(blob, plan.blob)

    def mapped() -> Plan:
        return Plan(resolve(model), np.load(layers, mmap_mode="r"), np.load(blob, mmap_mode="r"))

    return {
        "compiled, tensors in memory": lambda: compile_plan(architecture, weights),
        "read and compiled": lambda: compile_plan(resolve(model), safetensors.numpy.load_file(model)),
        "digest of the model file alone": lambda: digest(model),
        "kept: digest, Plan.load": lambda: (digest(model), Plan.load(kept)),
        "kept: both digests, mapped": lambda: (digest(model), digest(blob), mapped()),
    }


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int, cpu: Callable[[], float]) -> Taken:
    """Milliseconds of each way in each round, after a round that is not counted."""
    taken: Taken = {name: {"wall": [], "CPU": []} for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started, used = time.perf_counter(), cpu()
            way()
            if number:
                taken[name]["wall"].append(1e3 * (time.perf_counter() - started))
                taken[name]["CPU"].append(1e3 * (cpu() - used))
    return taken


def process_ways(folder: Path) -> dict[str, Callable[[], object]]:
    """To a first answer, from nothing."""
    programs = {"interpreter": "pass", "interpreter, numpy": "import numpy", "open_run": NATIVE, "torch": TORCH}

    def start(program: str) -> object:
        return subprocess.run([sys.executable, "-c", program, str(folder)], check=True, capture_output=True)

    return {name: lambda program=program: start(program) for name, program in programs.items()}  # type: ignore[misc]


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(architecture: Architecture, rounds: int, processes: int) -> dict[str, dict[str, Spread]]:
    with tempfile.TemporaryDirectory(prefix="triscale-opening-") as place:
        folder, channels = Path(place), architecture.channels
        look = Preprocess(architecture.resolution, channels, (0.5,) * channels, (0.25,) * channels)
        new(architecture, tuple(map(str, range(architecture.classes))), look).save(folder / "model.safetensors")
        taken = take_turns(plan_ways(folder), rounds, time.process_time)
        taken |= take_turns(process_ways(folder), processes, children)
    return {name: {kind: Spread.of(values) for kind, values in one.items()} for name, one in taken.items()}


def show(architecture: Architecture, found: Mapping[str, Mapping[str, Spread]]) -> None:
    print(f"\n{architecture.name} at {architecture.resolution[0]}×{architecture.resolution[1]}")
    for name, one in found.items():
        print(f"  {name:32} wall {between(one['wall'], 1):26} CPU {between(one['CPU'], 1)}")
    sys.stdout.flush()


def main() -> None:
    """Prints a table as it goes, or one JSON object."""
    parser = argparse.ArgumentParser(description="From a model file to its first answer without torch.")
    parser.add_argument("--macs", type=parse_count, default=5_000_000, help="of the small network (5M)")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--processes", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    base = adapt(published("efficientnet_b0"), resolution=(32, 32), classes=10)
    networks = [published("efficientnet_b0"), solve(base, RULES["slim"], Budget({"macs": asked.macs})).architecture]
    results: dict[str, Any] = {}
    for architecture in networks:
        name = f"{architecture.name} at {architecture.resolution[0]}"
        results[name] = measure(architecture, asked.rounds, asked.processes)
        if not asked.json:
            show(architecture, results[name])
    if asked.json:
        print(json.dumps({"machine": machine(), "networks": results}, default=asdict))


if __name__ == "__main__":
    main()
