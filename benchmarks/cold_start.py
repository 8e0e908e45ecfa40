"""The first image of a new process, for `inference.py --cold`: seconds to import, to load, and of the first pass.

    python benchmarks/cold_start.py ENGINE PRECISION FOLDER THREADS

FOLDER holds the network as each engine reads it. The clock starts once Python runs and numpy is there, which all need.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class Laps:
    """Seconds of each part, in order."""

    def __init__(self) -> None:
        self.begun = self.last = time.perf_counter()
        self.parts: dict[str, float] = {}

    def __call__(self, part: str) -> None:
        """It has ended."""
        now = time.perf_counter()
        self.parts[part], self.last = now - self.last, now


def native(folder: Path, precision: str, threads: int, ended: Laps) -> Callable[[Array], object]:
    from triscale.engines.native import Engine, Plan

    ended("import")
    return Engine(Plan.load(folder / "network.plan"), precision=precision, threads=threads)  # type: ignore[arg-type]


def pytorch(folder: Path, precision: str, threads: int, ended: Laps) -> Callable[[Array], object]:
    import torch
    from safetensors.torch import load_file

    from triscale.arch import load
    from triscale.nn import build

    ended("import")
    torch.set_num_threads(threads)
    network = build(load(folder / "network.json")).eval()
    network.load_state_dict(load_file(folder / "network.safetensors"))
    network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(x: Array) -> object:
        return network(torch.from_numpy(x).to(memory_format=torch.channels_last)).numpy()

    return run


def onnxruntime(folder: Path, precision: str, threads: int, ended: Laps) -> Callable[[Array], object]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as in peers_inference.py
    import onnxruntime

    ended("import")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_free_dimension_override_by_name("b", 1)
    path = str(folder / "network.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def openvino(folder: Path, precision: str, threads: int, ended: Laps) -> Callable[[Array], object]:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as in peers_inference.py
    import openvino

    ended("import")
    core = openvino.Core()
    model = core.read_model(str(folder / "network.onnx"))
    model.reshape({0: [1, *list(model.inputs[0].partial_shape)[1:]]})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    compiled = core.compile_model(model, "CPU", settings)
    return lambda x: compiled(x)[0]


ENGINES = {"native": native, "pytorch": pytorch, "onnxruntime": onnxruntime, "openvino": openvino}


def main() -> None:
    """Prints one JSON object."""
    engine, precision, place, threads = sys.argv[1:]
    folder = Path(place)
    network = json.loads((folder / "network.json").read_text())
    x = np.zeros((1, network["channels"], *network["resolution"]), np.float32)
    ended = Laps()
    run = ENGINES[engine](folder, precision, int(threads), ended)
    ended("load")
    run(x)
    ended("first")
    print(json.dumps({"whole": ended.last - ended.begun, **ended.parts}))


if __name__ == "__main__":
    main()
