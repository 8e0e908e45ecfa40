"""How much memory a network takes for one image, here and now."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from triscale.nn import Network, evaluating


def measure_memory(network: Network, *, device: torch.device) -> int:
    """Bytes that PyTorch holds at the peak of running one image: weights, input, and all it allocates on the way.

    As the allocator saw it, so with the copies of weights that the library makes for its kernels; without the
    interpreter and the libraries themselves. fp32, eager, channels last. The network is left on the device, every part
    in the mode that it had.
    """
    network.to(device)  # not in inference mode: what is moved in it cannot be trained any more
    with evaluating(network), torch.inference_mode():
        return _measured(network, device)


def _measured(network: Network, device: torch.device) -> int:
    shape = (1, network.architecture.channels, *network.architecture.resolution)
    x = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    network(x)  # what is allocated once and kept is no part of the peak
    held = _bytes([x, *network.parameters(), *network.buffers()])
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        network(x)
        return held + torch.cuda.max_memory_allocated(device) - before
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        network(x)
    with tempfile.TemporaryDirectory(prefix="triscale-") as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return held + _peak(trace)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _peak(trace: Path) -> int:
    """The most bytes alive at once, from every allocation and release in order of time."""
    events = json.loads(trace.read_bytes())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Ev Idx"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]"
    )
    alive = most = 0
    for _, _, size in changes:
        alive += size
        most = max(most, alive)
    return most


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler's native part writes lines to standard error that nothing turns off."""
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(null)
        os.close(kept)
