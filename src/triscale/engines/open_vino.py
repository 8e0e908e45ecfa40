"""OpenVINO, where it is installed."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from triscale.engines.runner import Array
from triscale.engines.signal_stack import own_signal_stack
from triscale.errors import UserError
from triscale.precision import Precision

Model = Any  # `openvino.Model`, of a package without types
HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


def module() -> ModuleType:
    """The package, which reports over the network unless it finds nothing to do so with. Raises `ImportError`."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


class OpenVino:
    """A graph, an ONNX file's content, a file, or a model of the package's own, on the CPU.

    threads: of one call. batch: images of every call, where they are always as many. Raises `UserError` for what is no
    such graph.
    """

    def __init__(
        self, graph: bytes | Path | Model, *, precision: Precision = "fp32", threads: int, batch: int | None = None
    ) -> None:
        vino = module()
        core = vino.Core()
        try:
            given = str(graph) if isinstance(graph, Path) else graph
            model = core.read_model(given) if isinstance(given, bytes | str) else given
            if batch is not None:
                shape = model.inputs[0].partial_shape
                shape[0] = batch
                model.reshape({0: shape})
            settings = {
                "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": HINTS[precision],
            }  # fmt: skip
            # Its plugin puts up a stack for signals and takes its memory away with the last model, in any thread.
            with own_signal_stack():
                self._compiled = core.compile_model(model, "CPU", settings)
        except (RuntimeError, TypeError) as error:
            place = graph if isinstance(graph, Path) else "the graph"
            raise UserError(f"{place}: OpenVINO cannot run it: {_last_line(error)}") from None
        self._vino, self._model = vino, model
        self._request, self._alone = self._compiled.create_infer_request(), Lock()

    def __call__(self, images: Array) -> Array:
        """See `Runner`."""
        with self._alone:
            self._request.set_input_tensor(self._vino.Tensor(images, shared_memory=True))
            self._request.infer()
            return np.array(self._request.get_output_tensor(0).data)

    def every(self, images: Array) -> dict[str, Array]:
        """All outputs by name, of a graph that has more than one."""
        with self._alone:
            self._request.set_input_tensor(self._vino.Tensor(images, shared_memory=True))
            self._request.infer()
            return {
                output.get_any_name(): np.array(self._request.get_output_tensor(place).data)
                for place, output in enumerate(self._compiled.outputs)
            }

    def sides(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        _, channels, height, width = self._model.inputs[0].partial_shape
        return channels.get_length(), height.get_length(), width.get_length()

    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself, under `triscale`."""
        if not self._model.has_rt_info(["triscale"]):
            return {}
        values = self._model.get_rt_info(["triscale"])
        return {name: str(value) for name, value in dict(values.value).items()}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
