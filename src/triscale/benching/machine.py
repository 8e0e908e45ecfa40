"""What measured times depend on."""

import importlib.metadata
import os
import platform
from pathlib import Path

from triscale.kernels import status

PACKAGES = ("torch", "onnxruntime", "openvino")


def machine() -> dict[str, str]:
    """Processor, cores, the instruction set of our kernels, and the versions of the engines that are installed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    found = {"processor": model or platform.machine(), "cores": str(os.cpu_count()), "isa": str(status().isa)}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
