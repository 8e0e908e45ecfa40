"""What a candidate costs: counted from its description, and measured where latency or memory are limited."""

from collections.abc import Mapping

import torch

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.engines import measure_latency, measure_memory
from triscale.nn import build
from triscale.scaling.budget import ANALYTIC
from triscale.searching.objectives import Objective

NEAR = 1.6  # times the band, in MACs over the reference's, which is at the limit: elsewhere nothing is worth measuring
SECONDS = 0.1  # of measuring a candidate's latency


class Costs:
    """The costs of networks, by the terms of an objective. Nothing is measured twice, and nothing before what can be
    counted fits. looks: how many networks were measured to see whether they are within the limits."""

    def __init__(
        self, objective: Objective, reference: Architecture, device: torch.device, quiet: float | None = None
    ) -> None:
        """quiet: seconds of an image through the reference while the machine does nothing else. Trials run while
        candidates are measured; so both are measured in turns, and a candidate is taken for their ratio times that."""
        self._objective, self._reference, self._device, self._quiet = objective, reference, device, quiet
        self._counted = tuple(term for term in objective.limits if term in ANALYTIC)
        self._measured = tuple(term for term in objective.limits if term not in ANALYTIC)
        self._around = cost(reference).macs
        self._known: dict[Architecture, dict[str, float]] = {}
        self.looks = 0

    def admitted(self, network: Architecture) -> Mapping[str, float] | None:
        """The costs of a network that is worth a training; None for another."""
        total = cost(network)
        costs = {term: float(getattr(total, term)) for term in self._counted}
        low, high = self._objective.band
        limits = self._objective.limits
        if any(costs[term] > high * limits[term] for term in self._counted):
            return None
        if not self._measured:
            return costs if self._objective.used(costs) >= low else None
        if not low / NEAR <= total.macs / self._around <= high * NEAR:
            return None
        if network not in self._known:
            self._known[network] = {term: self._measure(term, network) for term in self._measured}
            self.looks += 1
        costs |= self._known[network]
        return costs if self._objective.admits(costs) else None

    def known(self, network: Architecture, measured: Mapping[str, float]) -> Mapping[str, float]:
        """The costs of a network some of which were measured before."""
        total = cost(network)
        return {term: float(getattr(total, term)) for term in self._counted} | dict(measured)

    def of(self, network: Architecture) -> Mapping[str, float]:
        """The costs of any network."""
        total = cost(network)
        costs = {term: float(getattr(total, term)) for term in self._counted}
        return costs | {term: self._measure(term, network) for term in self._measured}

    def _measure(self, term: str, network: Architecture) -> float:
        if term == "memory":
            return float(measure_memory(build(network), device=self._device))
        pair = [build(self._reference), build(network)]
        before, after = measure_latency(pair, device=self._device, seconds=SECONDS)
        return after.median if self._quiet is None else self._quiet * after.median / before.median


def quiet_latency(objective: Objective, reference: Architecture, device: torch.device) -> float | None:
    """Seconds of an image through the reference, where latency is limited."""
    if "latency" not in objective.limits:
        return None
    return measure_latency([build(reference)], device=device)[0].median
