"""Budgets whose latency and memory are measured on a device."""

from collections.abc import Mapping

import torch

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.engines import measure_latency, measure_memory
from triscale.nn import build
from triscale.scaling import Budget
from triscale.training.machine import total_memory

GUARD = 0.95  # of a measured limit is what is solved for: the same network measures a little differently each time


def measured_budget(limits: Mapping[str, float], device: torch.device, engine: str | None = None) -> Budget:
    """The limits; latency and memory measured on that device with random weights, and taken for a little more.

    engine: whose latency, as for `engines.running`; memory is PyTorch's.
    A network that the device could not hold is over every limit, and is not built.
    """
    room = total_memory(device) / 2

    def latency(network: Architecture) -> float:
        if cost(network).memory.inference > room:
            return float("inf")
        return measure_latency([build(network)], device=device, engine=engine)[0].median / GUARD

    def memory(network: Architecture) -> float:
        if cost(network).memory.inference > room:
            return float("inf")
        return measure_memory(build(network), device=device) / GUARD

    return Budget(limits, {"latency": latency, "memory": memory})
