"""ONNX Runtime, where it is installed."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from triscale.engines.runner import IMAGES, Array
from triscale.errors import UserError


def module() -> ModuleType:
    """The package, told to report nothing over the network before it is imported. Raises `ImportError`."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return import_module("onnxruntime")


class OnnxRuntime:
    """A graph, a file or its content, on the CPU.

    threads: of one call. batch: images of every call, where they are always as many. Raises `UserError` for what is no
    such graph.
    """

    def __init__(self, graph: bytes | Path, *, threads: int, batch: int | None = None) -> None:
        runtime = module()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        # Threads that turn in circles while they wait take the time of whoever is next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if batch is not None:
            options.add_free_dimension_override_by_name("n", batch)
        content = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes of errors have no other base in common
            place = "the graph" if isinstance(graph, bytes) else graph
            raise UserError(f"{place}: ONNX Runtime cannot run it: {_first_line(error)}") from None

    def __call__(self, images: Array) -> Array:
        """See `Runner`."""
        logits: Array = self._session.run(None, {IMAGES: images})[0]
        return logits

    def every(self, images: Array) -> dict[str, Array]:
        """All outputs by name, of a graph that has more than one."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, {IMAGES: images}), strict=True))

    def sides(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        _, channels, height, width = self._session.get_inputs()[0].shape
        return channels, height, width

    def metadata(self) -> Mapping[str, str]:
        """What the graph says of itself."""
        found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
