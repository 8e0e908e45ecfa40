"""Growing a network: by a factor, by φ, or until a budget is used up."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

from triscale.arch.rounding import multiply
from triscale.arch.spec import Architecture
from triscale.costing.cost import Cost, cost
from triscale.errors import UserError
from triscale.plain import short
from triscale.scaling.budget import MOST, Budget, label, show
from triscale.scaling.multipliers import Multipliers
from triscale.scaling.rules import Rule
from triscale.scaling.trim import CLOSE, Step, steps_between, trim, widened

SMALLEST = 1e-30  # a factor at which every rule has reached one repeat, the fewest channels, the fewest pixels
PRECISION = 1e-9  # relative, of the factor: finer than any rounding
# What is measured differs by some percent each time, and each network looked at takes a moment to measure.
MEASURED_PRECISION, MEASURED_CLOSE = 0.05, 0.95
MOST_MEMBERS, MOST_LOOKED_AT = 12, 200  # how far below the largest member another one is tried


class TooSmallError(UserError):
    """A budget below the smallest network that a rule gives. what: that, without the way out. over: the term of which
    even that network uses too much."""

    def __init__(self, what: str, way: str = "raise the budget", over: str | None = None) -> None:
        super().__init__(f"{what}; {way}")
        self.what, self.over = what, over


class BeyondError(UserError):
    """A budget beyond the largest network that a rule gives."""


@dataclass(frozen=True)
class Scaled:
    """A grown (or shrunk) network and how it came about.

    asked: the factor in MACs that was wanted (for φ what the rule promises, 2^φ for the paper's; the budget over the
    baseline's MACs; for budgets of other terms the factor that was solved for). nominal: what the unrounded multipliers
    give. realised: what rounding and trim really built. trim: channel steps after the official rounding. budget: the
    value reached in each limited term.
    """

    baseline: Architecture
    architecture: Architecture
    rule: str
    multipliers: Multipliers
    asked: float
    trim: tuple[Step, ...] = ()
    limits: Mapping[str, float] | None = None
    values: Mapping[str, float] | None = None

    @property
    def nominal(self) -> float:
        """d·w²·r²."""
        return self.multipliers.factor

    @property
    def realised(self) -> float:
        """MACs over the baseline's."""
        return self.cost.macs / cost(self.baseline).macs

    @property
    def cost(self) -> Cost:
        """The cost of the network that was built."""
        return cost(self.architecture)


def grow(baseline: Architecture, rule: Rule, *, factor: float | None = None, phi: float | None = None) -> Scaled:
    """The baseline grown by a nominal factor in MACs, or by a step of φ, with the official rounding and no trim."""
    if (factor is None) == (phi is None):
        raise UserError("give either a factor or φ")
    if factor is not None:
        if not factor > 0:
            raise UserError(f"factor {factor:g} is not positive; 2 doubles the MACs, 0.5 halves them")
        if not factor <= MOST:
            raise UserError(f"a factor above {MOST:g} is out of reach; 2 doubles the MACs, 0.5 halves them")
        multipliers = rule.at_factor(factor)
    else:
        assert phi is not None
        if not abs(phi) < 64:
            raise UserError(f"φ = {short(phi)} is out of reach; each step of φ doubles the MACs")
        multipliers = rule.at_phi(phi)
    grown = _member(baseline, multipliers)
    return Scaled(
        baseline, grown, rule.name, multipliers, factor if factor is not None else rule.promise ** (phi or 0.0)
    )


def solve(baseline: Architecture, rule: Rule, budget: Budget) -> Scaled:
    """The largest member of the rule's family that holds every limit, then trimmed where the rule moves width.

    Analytic limits are checked before anything is measured, and nothing is measured twice. Measured limits are used to
    95 % or as near as a handful of measurements gets, and where the analytic ones alone already keep them, one
    measurement is all. Raises `UserError` where a limit does not move with the rule or the spec's own limits come
    first, `TooSmallError` where the smallest member exceeds a limit.
    """
    budget = measuring_once(budget)
    if budget.analytic and budget.needs_measuring:
        bound = _within_analytic(baseline, rule, budget)
        values = budget.values(bound.architecture) if bound else {}
        if bound and budget.used(values) <= 1:
            return replace(bound, limits=dict(budget.limits), values=values)
    used = share_used(budget)
    smallest = _at(baseline, rule, SMALLEST)
    assert smallest is not None
    _check_moves(baseline, rule, budget, smallest)
    if used(smallest) > 1:
        raise _too_small(baseline, rule, budget, smallest)
    if budget.needs_measuring:
        factor = _largest_measured(baseline, rule, budget, used)
    else:
        factor = _largest_factor(baseline, rule, used)
    multipliers, official, final = _finished(baseline, rule, factor, budget, used)
    asked = budget.limits["macs"] / cost(baseline).macs if "macs" in budget.limits else factor
    return Scaled(
        baseline,
        final,
        rule.name,
        multipliers,
        asked,
        steps_between(official, final),
        dict(budget.limits),
        budget.values(final),
    )


def _member(baseline: Architecture, multipliers: Multipliers) -> Architecture:
    grown = multiply(baseline, multipliers.depth, multipliers.width, multipliers.resolution)
    return replace(grown, name=baseline.name if grown == baseline else _scaled_name(baseline.name))


def _scaled_name(name: str) -> str:
    return name if name.endswith("-scaled") else f"{name[:100]}-scaled"


def _at(baseline: Architecture, rule: Rule, factor: float) -> Architecture | None:
    """The member at a factor; None beyond the limits of what a spec can say, or of what the rule covers."""
    try:
        return _member(baseline, rule.at_factor(factor))
    except UserError:
        return None


def _within_analytic(baseline: Architecture, rule: Rule, budget: Budget) -> Scaled | None:
    """The largest member under the analytic limits alone; None where they are so loose that they bound nothing."""
    try:
        return solve(baseline, rule, Budget({term: budget.limits[term] for term in budget.analytic}))
    except BeyondError:
        return None


def measuring_once(budget: Budget) -> Budget:
    """The same budget, whose functions measure no network twice."""
    return replace(budget, measured={term: cache(measure) for term, measure in budget.measured.items()})


def share_used(budget: Budget) -> Callable[[Architecture], float]:
    """The share of the budget that a network uses; measured terms only where the analytic ones hold, and once."""
    known: dict[Architecture, float] = {}

    def used(architecture: Architecture) -> float:
        if architecture not in known:
            share = budget.used(budget.values(architecture, budget.analytic)) if budget.analytic else 0.0
            if share <= 1 and budget.needs_measuring:
                share = max(share, budget.used(budget.values(architecture, budget.needs_measuring)))
            known[architecture] = share
        return known[architecture]

    return used


def _largest_factor(baseline: Architecture, rule: Rule, used: Callable[[Architecture], float]) -> float:
    """By doubling, then halving the interval: the cost of a family's members grows with the factor."""

    def fits(factor: float) -> bool:
        member = _at(baseline, rule, factor)
        return member is not None and used(member) <= 1

    low = high = 1.0
    if fits(1.0):
        while fits(high):
            low, high = high, high * 2
    else:
        while not fits(low):
            low, high = low / 2, low
    while high / low > 1 + PRECISION:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if fits(middle) else (low, middle)
    if _at(baseline, rule, high * (1 + PRECISION)) is not None:
        return low
    member = _at(baseline, rule, low)
    if member is not None and used(member) >= CLOSE:
        return low
    raise BeyondError(_beyond(baseline, rule, low))


def _largest_measured(
    baseline: Architecture, rule: Rule, budget: Budget, used: Callable[[Architecture], float]
) -> float:
    """The same with few looks: from how much of the budget one member uses follows where the next is looked for."""
    low, low_used, high, high_used, factor = SMALLEST, 0.0, float("inf"), 0.0, 1.0
    while True:
        member = _at(baseline, rule, factor)
        share = float("inf") if member is None else used(member)
        if share <= 1:
            low, low_used = factor, share
        else:
            high, high_used = factor, share
        if low_used >= MEASURED_CLOSE or high / low <= 1 + MEASURED_PRECISION:
            break
        if high == float("inf"):
            factor = low * min(16.0, max(2.0, 1 / low_used))
        elif low == SMALLEST:
            factor = high * max(1 / 16, min(0.5, 1 / share)) if high > 1e6 * SMALLEST else SMALLEST
        else:
            factor = (low * high) ** 0.5
        if factor == SMALLEST:
            return low
    if low_used < MEASURED_CLOSE and high_used == float("inf"):
        if _at(baseline, rule, high) is None:
            raise BeyondError(_beyond(baseline, rule, low))
        raise BeyondError(_beyond_memory(baseline, rule, budget, low))
    return low


def _beyond(baseline: Architecture, rule: Rule, factor: float) -> str:
    try:
        rule.at_factor(factor * (1 + 1e-3))
    except UserError as error:  # tiny ends at the baseline
        return f"the budget is above what {baseline.name} itself costs; {error}"
    return (
        f"the budget is beyond the largest network that rule {rule.name} can describe from {baseline.name} "
        f"(a factor of {factor:.4g}); give a smaller one, or a rule that moves more than one dimension"
    )


def _beyond_memory(baseline: Architecture, rule: Rule, budget: Budget, factor: float) -> str:
    largest = _at(baseline, rule, factor)
    assert largest is not None
    values = budget.values(largest, budget.needs_measuring)
    term = max(values, key=lambda term: values[term] / budget.limits[term])
    return (
        f"a budget of {show(term, budget.limits[term])} {label(term)} is beyond the largest network from "
        f"{baseline.name} that the memory here holds, of about {show(term, values[term])}; give no more than that"
    )


def _check_moves(baseline: Architecture, rule: Rule, budget: Budget, smallest: Architecture) -> None:
    """A limit that the rule cannot move would pass or fail in silence."""
    factor = 1e6
    while (largest := _at(baseline, rule, factor)) is None:
        factor /= 2
    low, high = budget.values(smallest, budget.analytic), budget.values(largest, budget.analytic)
    for term, value in low.items():
        if value == high[term]:
            raise UserError(
                f"rule {rule.name} does not move {label(term)}: {baseline.name} has {show(term, value)} whatever the "
                f"factor; take another rule (width moves every budget) or leave the budget of {label(term)} out"
            )


def _too_small(baseline: Architecture, rule: Rule, budget: Budget, smallest: Architecture) -> TooSmallError:
    values = budget.values(smallest, budget.analytic)
    if not values or budget.used(values) <= 1:
        values = budget.values(smallest)
    over = max(values, key=lambda term: values[term] / budget.limits[term])
    height, width = smallest.resolution
    return TooSmallError(
        f"no network that small: a budget of {show(over, budget.limits[over])} {label(over)} is below the smallest "
        f"that rule {rule.name} gives from {baseline.name}: {show(over, values[over])} {label(over)} "
        f"({smallest.blocks} blocks, {smallest.stem.channels} channels in the stem, {height}×{width} pixels)",
        "raise the budget, or take another rule or a smaller baseline",
        over,
    )


def _finished(
    baseline: Architecture, rule: Rule, factor: float, budget: Budget, used: Callable[[Architecture], float]
) -> tuple[Multipliers, Architecture, Architecture]:
    """Multipliers, the member that they round to, and that member filled up to the budget.

    Where the channels of the largest member cannot come within 1 % of the budget, those of the next ones, of less depth
    or fewer pixels, may; the fullest is taken.
    """
    close, most_members = (MEASURED_CLOSE, 1) if budget.needs_measuring else (CLOSE, MOST_MEMBERS)
    members = islice(_members(baseline, rule, factor), most_members)
    first = next(members)
    if not rule.moves_width or (budget.needs_measuring and used(first[1]) >= close):
        return *first, first[1]
    best, most = (*first, first[1]), 0.0
    for multipliers, official in (first, *members):
        filled = _fill(official, baseline, multipliers, budget, used)
        if most < used(filled) <= 1:  # a shortcut that needs no projection can make a smaller member dearer
            best, most = (multipliers, official, filled), used(filled)
        if most >= close:
            return best
    multipliers, official, filled = best
    finer = trim(filled, budget, finer=True) if budget.analytic else filled
    return (multipliers, official, finer) if most < used(finer) <= 1 else best


def _members(baseline: Architecture, rule: Rule, factor: float) -> Iterator[tuple[Multipliers, Architecture]]:
    """The member at a factor, then the next ones below it that differ in repeats or resolution."""
    seen: set[tuple[object, ...]] = set()
    for _ in range(MOST_LOOKED_AT):
        member = _at(baseline, rule, factor)
        if member is not None:
            shape = (member.resolution, *(stage.repeats for stage in member.stages))
            if shape not in seen:
                seen.add(shape)
                yield rule.at_factor(factor), member
        factor *= 0.99


def _fill(
    official: Architecture,
    baseline: Architecture,
    multipliers: Multipliers,
    budget: Budget,
    used: Callable[[Architecture], float],
) -> Architecture:
    """First as much more width as fits at the same depth and resolution, stage by stage in step; then single steps."""
    low, high, start = multipliers.width, multipliers.width, official
    precision = MEASURED_PRECISION if budget.needs_measuring else PRECISION
    while high / low < 2:
        high *= 2
        wide = widened(official, baseline, high)
        if wide is not None and used(wide) <= 1:
            low, start = high, wide
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        wide = widened(official, baseline, middle)
        if wide is not None and used(wide) <= 1:
            low, start = middle, wide
        else:
            high = middle
    if not budget.analytic:
        return start
    trimmed = trim(start, budget)
    # A trim is chosen by analytic cost alone; it stands only where the measured limits hold too.
    return trimmed if used(trimmed) <= 1 else start
