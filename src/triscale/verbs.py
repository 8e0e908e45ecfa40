"""The verbs that need no torch, as Python calls them: a network may be named wherever one is meant."""

from collections.abc import Mapping
from pathlib import Path

from triscale.arch import Architecture, adapt, resolve
from triscale.arch.resolve import sides
from triscale.costing import Cost
from triscale.costing import cost as cost_of
from triscale.errors import UserError
from triscale.scaling import Budget, Coefficients, Exponents, Rule, Scaled, find_rule, grow, solve
from triscale.scaling.budget import Measure, limits_of


def network(
    name: str | Path | Architecture,
    *,
    resolution: int | tuple[int, int] | None = None,
    channels: int | None = None,
    classes: int | None = None,
) -> Architecture:
    """The architecture that a name, a path or itself means, adapted where an input or a class count is given."""
    found = name if isinstance(name, Architecture) else resolve(name)
    if resolution is None and channels is None and classes is None:
        return found
    return adapt(found, resolution=sides(resolution), channels=channels, classes=classes)


def cost(
    name: str | Path | Architecture,
    *,
    resolution: int | tuple[int, int] | None = None,
    channels: int | None = None,
    classes: int | None = None,
) -> Cost:
    """Exact parameters, MACs, activations and size of a network, estimated memory, layer by layer and in total.

    name: an `Architecture`, a zoo name, a JSON file, a run directory or a safetensors file. resolution: (height, width)
    in pixels, or one side of a square, to adapt it to first. Raises `UserError` for a name that is none.
    """
    return cost_of(network(name, resolution=resolution, channels=channels, classes=classes))


def scale(
    baseline: str | Path | Architecture,
    *,
    rule: str | Rule | Exponents | Coefficients = "compound",
    factor: float | None = None,
    phi: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    activations: float | None = None,
    size: float | None = None,
    latency: float | None = None,
    memory: float | None = None,
    measured: Mapping[str, Measure] | None = None,
) -> Scaled:
    """The baseline grown by a factor in MACs, by a step of φ, or to the largest member that holds every budget.

    size and memory in bytes, latency in seconds; the last two need the function that measures them, in `measured`.
    Raises `UserError` where more or less than one of factor, φ and budgets is asked for, or the budget is impossible.
    """
    limits = limits_of(macs=macs, params=params, activations=activations, size=size, latency=latency, memory=memory)
    return scale_by(network(baseline), find_rule(rule), factor=factor, phi=phi, limits=limits, measured=measured)


def scale_by(
    baseline: Architecture,
    rule: Rule,
    *,
    factor: float | None = None,
    phi: float | None = None,
    limits: Mapping[str, float],
    measured: Mapping[str, Measure] | None = None,
) -> Scaled:
    """The same for a network and a rule in the hand, with the limits by term."""
    if sum((factor is not None, phi is not None, bool(limits))) != 1:
        raise UserError(
            "say how far to scale: by --factor, by --phi, or to a budget such as --macs 1G; one of the three"
        )
    if limits:
        return solve(baseline, rule, Budget(limits, measured or {}))
    return grow(baseline, rule, factor=factor, phi=phi)
