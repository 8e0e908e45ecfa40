"""Budgets: limits on what a network may cost; one or several, all must hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from triscale.arch.spec import Architecture
from triscale.costing.cost import cost
from triscale.errors import UserError
from triscale.units import format_bytes, format_count, format_seconds

Measure = Callable[[Architecture], float]

# What the description alone decides. Latency (seconds) and memory (bytes) are measured by whoever asks for them.
ANALYTIC = ("macs", "params", "activations", "size")
MEASURED = ("latency", "memory")
MOST = 1e30  # of any term: far beyond every network, and far from where quotients overflow


@dataclass(frozen=True)
class Budget:
    """Limits by term (macs, params, activations: counts; size, memory: bytes; latency: seconds).

    measured: a function for each of `latency` and `memory` that is limited. Raises `UserError` for an unknown term, a
    limit that is not positive, or a measured term without its function.
    """

    limits: Mapping[str, float]
    measured: Mapping[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_limits(self.limits)
        for term in self.limits:
            if term in MEASURED and term not in self.measured:
                raise UserError(f"a budget of {term} is measured: give the function that measures it")

    def values(self, architecture: Architecture, terms: tuple[str, ...] | None = None) -> dict[str, float]:
        """What the network costs in each limited term (or in those named)."""
        wanted = self.limits if terms is None else terms
        total = cost(architecture)
        return {
            term: getattr(total, term) if term in ANALYTIC else self.measured[term](architecture) for term in wanted
        }

    def used(self, values: Mapping[str, float]) -> float:
        """The largest share of a limit that is used; at most 1 where all hold."""
        return max(value / self.limits[term] for term, value in values.items())

    @property
    def analytic(self) -> tuple[str, ...]:
        """The limited terms that need no measuring."""
        return tuple(term for term in self.limits if term in ANALYTIC)

    @property
    def needs_measuring(self) -> tuple[str, ...]:
        """The limited terms that are measured."""
        return tuple(term for term in self.limits if term in MEASURED)


def limits_of(
    *,
    macs: float | None = None,
    params: float | None = None,
    activations: float | None = None,
    size: float | None = None,
    latency: float | None = None,
    memory: float | None = None,
) -> dict[str, float]:
    """The limits that are given, by term, as `Budget` takes them.

    macs, params, activations: counts. size: bytes of fp32 weights. latency: seconds for one image, the median. memory:
    bytes at the peak of running one image.
    """
    terms = {"macs": macs, "params": params, "activations": activations, "size": size}
    terms |= {"latency": latency, "memory": memory}
    return {term: limit for term, limit in terms.items() if limit is not None}


def check_limits(limits: Mapping[str, float]) -> None:
    """Raises `UserError` where there is none, for an unknown term, and for a limit that is not positive."""
    if not limits:
        raise UserError(f"no budget; give one of {', '.join((*ANALYTIC, *MEASURED))}")
    for term, limit in limits.items():
        if term not in ANALYTIC and term not in MEASURED:
            raise UserError(f"budget {term!r} is not known; there are {', '.join((*ANALYTIC, *MEASURED))}")
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise UserError(f"budget {term} of {limit!r} is no number; 400 million MACs are 400e6")
        if not limit > 0:
            raise UserError(f"budget {term} of {limit} is not positive")
        if not limit <= MOST:
            raise UserError(f"budget {term} is above the largest one, {MOST:g}, and limits nothing; leave it out")


def label(term: str) -> str:
    """A budget term as people write it."""
    return "MACs" if term == "macs" else term


def show(term: str, value: float) -> str:
    """A value of a budget term as people read it."""
    if term == "latency":
        return format_seconds(value)
    return format_bytes(value) if term in ("size", "memory") else format_count(value)
