"""What the paper's w is on these images: by how much accuracy grows with cost, along the reference's own family."""

import math
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.errors import HopelessError, UserError
from triscale.scaling import Budget, scale_to
from triscale.scaling.budget import ANALYTIC
from triscale.searching.setup import Setup
from triscale.training import regularised
from triscale.trials import Entry, Executor, Ledger, Outcome, run_trials
from triscale.trials.driving import OnProgress

FACTORS = (0.5, 1.0, 2.0)  # of the limit
SEEDS = 3
CONFIDENCE = 0.95
FACTOR = "factor"  # the parameter that sets these trials apart from a search's


@dataclass(frozen=True)
class Calibrated:
    """w with its 95 % interval. points: (cost, mean accuracy) of each network."""

    exponent: float
    low: float
    high: float
    points: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "exponent": self.exponent,
            "low": self.low,
            "high": self.high,
            "points": [list(point) for point in self.points],
        }


def calibrate(setup: Setup, ledger: Ledger, executor: Executor, told: OnProgress) -> Calibrated:
    """The w at which a network of the reference's family at half the limit, at it and at twice the limit are worth the
    same: the slope of log accuracy over log cost, less than zero where accuracy grows.

    So w = -0.07 says that twice the cost brings 5 % more (2^0.07 = 1.05), and a candidate that is to win at another
    cost has to beat that exchange. Trains each network fully with three seeds. Raises `HopelessError` where one learns
    nothing: epochs and images are those of the whole search.
    """
    (term,) = setup.objective.limits
    members = list(zip(family(setup), FACTORS, strict=True))
    entries = [_entry(setup, network, factor, seed) for network, factor in members for seed in range(SEEDS)]
    expected = {entry.trial.key: setup.seconds(entry.trial.architecture, setup.top) for entry in entries}
    outcomes = run_trials(ledger, executor, entries, expected, told)
    return slope([(_costs(entry.trial.architecture, term), outcomes[entry.trial.key]) for entry in entries])


def family(setup: Setup) -> list[Architecture]:
    """The networks that are trained, by `FACTORS`. Raises `UserError` where the reference cannot be scaled to one."""
    (term,) = setup.objective.limits
    try:
        return [_member(setup, term, factor) for factor in FACTORS]
    except UserError as error:
        raise UserError(
            f"--calibrate trains the reference at half the limit and at twice of it, which this one does not reach "
            f"({error}); choose another --reference or limit, or name a w as --exponent"
        ) from None


def slope(runs: list[tuple[float, Outcome]]) -> Calibrated:
    """From (cost, outcome) of every run, by least squares."""
    if not all(outcome.selection > 0 for _, outcome in runs):
        raise HopelessError(
            "a network of the calibration learned nothing; begin another search, in another --out, with more --epochs "
            "or --images"
        )
    costs = [math.log(c) for c, _ in runs]
    accuracies = [math.log(outcome.selection) for _, outcome in runs]
    fitted = stats.linregress(costs, accuracies)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(runs) - 2)) * float(fitted.stderr)
    levels = sorted({c for c, _ in runs})
    means = tuple((c, sum(o.selection for x, o in runs if x == c) / sum(x == c for x, _ in runs)) for c in levels)
    return Calibrated(-float(fitted.slope), -float(fitted.slope) - half, -float(fitted.slope) + half, means)


def _member(setup: Setup, term: str, factor: float) -> Architecture:
    if factor == 1.0:
        return setup.reference
    counted = term if term in ANALYTIC else "macs"
    budget = Budget({counted: factor * _costs(setup.reference, term)})
    grown = replace(scale_to(setup.reference, None, budget).architecture, name=f"reference-x{factor:g}")
    return regularised(grown, setup.reference)


def _costs(network: Architecture, term: str) -> float:
    """By the term where it can be counted; measured ones go with the MACs."""
    return float(getattr(cost(network), term if term in ANALYTIC else "macs"))


def _entry(setup: Setup, network: Architecture, factor: float, seed: int) -> Entry:
    parameters = {FACTOR: factor, "epochs": float(setup.top), "seed": float(seed)}
    return Entry(setup.trial(network, setup.top, seed), f"reference ×{factor:g}, seed {setup.seed + seed}", parameters)
