"""Budgets whose latency and memory are measured on a device."""

from collections.abc import Mapping

import torch

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.engines import measure_latency, measure_memory
from triscale.errors import UserError
from triscale.nn import build
from triscale.scaling import Budget
from triscale.training.machine import total_memory
from triscale.units import format_bytes

GUARD = 0.95  # of a measured limit is what is solved for: the same network measures a little differently each time


def measured_budget(limits: Mapping[str, float], device: torch.device, engine: str | None = None) -> Budget:
    """The limits; latency and memory measured on that device with random weights, and taken for a little more.

    engine: whose latency, as for `engines.running`; memory is PyTorch's.
    A network that could not be trained on that device is over every limit, and is not built.
    """
    room = total_memory(device) / 2

    def latency(network: Architecture) -> float:
        if cost(network).memory.training(1) > room:
            return float("inf")
        return measure_latency([build(network)], device=device, engine=engine)[0].median / GUARD

    def memory(network: Architecture) -> float:
        if cost(network).memory.training(1) > room:
            return float("inf")
        return measure_memory(build(network), device=device) / GUARD

    return Budget(limits, {"latency": latency, "memory": memory})


def check_memory(network: Architecture, batch: int, device: torch.device, ways: str, at_once: int = 1) -> None:
    """An estimate, before hours are lost: what training takes against what the device has in all. at_once: so many
    trainings. Raises `UserError` with the ways out."""
    needed, available = at_once * cost(network).memory.training(batch), total_memory(device)
    if needed > available:
        many = "" if at_once == 1 else f", {at_once} trainings at once"
        raise UserError(
            f"training {network.name} on batches of {batch} takes about {format_bytes(needed)} of memory{many}, and "
            f"there are {format_bytes(available)}; {ways}"
        )
