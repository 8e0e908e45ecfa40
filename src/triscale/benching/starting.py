"""The first image of a new process: seconds to import, to load and of the first pass, and memory at the peak.

    python -m triscale.benching.starting ENGINE PRECISION FILE THREADS

FILE is the network as that engine reads it: a plan, a model with its weights, an ONNX or OpenVINO file. The clock
starts once Python runs and numpy is there, which all need. Prints one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triscale.engines.runner import Array
from triscale.precision import Precision, check_precision

Shape = tuple[int, int, int]
Ready = tuple[Callable[[Array], object], Shape]


class Laps:
    """Seconds of each part, in order."""

    def __init__(self) -> None:
        self.begun = self.last = time.perf_counter()
        self.parts: dict[str, float] = {}

    def __call__(self, part: str) -> None:
        """It has ended."""
        now = time.perf_counter()
        self.parts[part], self.last = now - self.last, now


Start = Callable[[Path, Precision, int, Laps], Ready]


def _native(file: Path, precision: Precision, threads: int, ended: Laps) -> Ready:
    from triscale.engines.native import Engine, Plan
    from triscale.engines.native.library import find_precision

    ended("import")
    plan = Plan.load(file)
    engine = Engine(plan, precision=find_precision(precision), threads=threads)
    return engine, (plan.architecture.channels, *plan.architecture.resolution)


def _torch(file: Path, precision: Precision, threads: int, ended: Laps) -> Ready:
    import torch

    from triscale.engines.pytorch import PyTorch
    from triscale.models import load

    ended("import")
    torch.set_num_threads(threads)
    model = load(file)
    return PyTorch(model, precision=precision), (model.architecture.channels, *model.architecture.resolution)


def _onnxruntime(file: Path, precision: Precision, threads: int, ended: Laps) -> Ready:
    from triscale.engines.onnx_runtime import OnnxRuntime, module

    module()
    ended("import")
    run = OnnxRuntime(file, threads=threads, batch=1)
    return run, run.sides()


def _openvino(file: Path, precision: Precision, threads: int, ended: Laps) -> Ready:
    from triscale.engines.open_vino import OpenVino, module

    module()
    ended("import")
    run = OpenVino(file, precision=precision, threads=threads, batch=1)
    return run, run.sides()


STARTS: dict[str, Start] = {
    "native": _native,
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def main() -> None:
    """Of the engine that the command names."""
    engine, precision, file, threads = sys.argv[1:]
    ended = Laps()
    run, shape = STARTS[engine](Path(file), check_precision(precision), int(threads), ended)
    x = np.zeros((1, *shape), np.float32)
    ended("load")
    run(x)
    ended("first")
    whole = time.perf_counter() - ended.begun
    json.dump({**ended.parts, "whole": whole, "memory": _peak()}, sys.stdout)


def _peak() -> int:
    """Bytes in memory at the most. What the system counts for a process begins with that of the one which started it;
    on Linux there is a count of its own."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
