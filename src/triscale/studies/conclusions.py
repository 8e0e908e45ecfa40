"""What came out of a study: a pure function of its setup, its design and the outcomes of its trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from triscale.errors import UserError
from triscale.scaling import Exponents
from triscale.stats import Estimate
from triscale.studies.comparing import Comparisons, compare_arms, paired_seeds, seeds_to_tell
from triscale.studies.designs import COMPOUND, FITTED, Arm
from triscale.studies.growing import Grown
from triscale.studies.planning import BEST
from triscale.studies.power import detectable
from triscale.studies.setup import Setup
from triscale.studies.surface import Surface, fit_surface
from triscale.trials import Outcome, unpack

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArmResult:
    """A network at a factor. arms: the mix, and others that rounding made the same network. selection, test: accuracies
    by seed; test is None while it is sealed. mean, test_mean: with t intervals over seeds. seconds: of its trials."""

    grown: Grown
    arms: tuple[Arm, ...]
    selection: Values
    test: Values | None
    mean: Estimate
    test_mean: Estimate | None
    seconds: float

    @property
    def name(self) -> str:
        """As people see it."""
        return " = ".join(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each alone."""
        return tuple(arm.name for arm in self.arms)

    @property
    def single(self) -> Arm | None:
        """The mix that moves one dimension alone, if one of these does."""
        return next((arm for arm in self.arms if arm.single), None)


@dataclass(frozen=True, eq=False)
class AtFactor:
    """All arms of one factor. chosen: comparisons on the selection images; test: on the test images, once unsealed.

    detects: the smallest true difference of two arms, chosen beforehand, that so many seeds show. needed: seeds with
    which the next one is no longer tied with the best, four times in five, if their means differ as they seem to; None
    where no number does, or more than a million.
    """

    factor: float
    arms: tuple[ArmResult, ...]
    chosen: Comparisons
    test: Comparisons | None
    detects: float
    needed: int | None

    @property
    def best(self) -> ArmResult:
        """The highest mean on the selection images."""
        return self.arms[self.chosen.best]

    @property
    def tied(self) -> tuple[ArmResult, ...]:
        """Those that are statistically tied with it, itself included."""
        return tuple(self.arms[place] for place in self.chosen.tied)

    def arm(self, name: str) -> ArmResult | None:
        """The one of that name, alone or together with others."""
        return next((arm for arm in self.arms if name in arm.names), None)

    def single(self) -> ArmResult | None:
        """The best of those that move one dimension alone."""
        alone = [arm for arm in self.arms if arm.single is not None]
        return max(alone, key=lambda arm: arm.mean.value, default=None)

    def difference(self, first: ArmResult, second: ArmResult) -> Estimate | None:
        """By how much the first is better on the test images, over seeds. The best of the single dimensions was picked
        by these very runs, and what chance gave to them it gave on the test images too: its differences hold although
        it was."""
        if self.test is None or first.test is None or second.test is None or first is second:
            return None
        best = self.single()
        picked = sum(arm.single is not None for arm in self.arms) if best is first or best is second else 1
        return paired_seeds(first.test, second.test, self.test.sigma, self.test.df, out_of=picked)


@dataclass(frozen=True, eq=False)
class Fit:
    """The accuracy over the mixes at the first factor, where the cost differs corrected by slope: accuracy for a
    doubling of MACs, from the baseline to the arms. optimum: shares. compatible: shares [m, 3] that may be the best."""

    surface: Surface
    slope: float
    optimum: Exponents
    compatible: Values

    @property
    def shares(self) -> tuple[float, float, float]:
        """(depth, width, resolution) of the optimum."""
        return self.optimum.depth, self.optimum.width, self.optimum.resolution


@dataclass(frozen=True, eq=False)
class Conclusions:
    """What is known so far, or in the end. baseline: accuracies by seed, selection and test."""

    baseline: Values
    baseline_test: Values | None
    factors: tuple[AtFactor, ...]
    fit: Fit | None
    why_no_fit: str | None = None


def baseline_accuracies(setup: Setup, outcomes: Mapping[str, Outcome], seeds: int) -> list[Outcome]:
    """Outcomes of the baseline that are there, of at most so many seeds."""
    keys = (setup.trial(setup.baseline, seed).key for seed in range(seeds))
    return [outcomes[key] for key in keys if key in outcomes]


def conclude(
    setup: Setup, grown: Sequence[Grown], seeds: int, outcomes: Mapping[str, Outcome], *, unseal: bool
) -> Conclusions:
    """The arms' results wherever all seeds of at least two arms are there. unseal: the test images' answers are read;
    before everything is chosen they are not looked at."""
    own = baseline_accuracies(setup, outcomes, max(seeds, 3))
    baseline = np.array([one.selection for one in own])
    factors = sorted({one.factor for one in grown})
    found = [_at(setup, [g for g in grown if g.factor == f], f, seeds, outcomes, unseal) for f in factors]
    at = tuple(one for one in found if one is not None)
    fit, why = None, None
    if at and at[0].factor == setup.factor and len(baseline):
        try:
            fit = _fit(at[0], float(baseline.mean()))
        except UserError as error:
            why = str(error)
    test = np.array([unpack(one.test).mean() for one in own]) if unseal else None
    return Conclusions(baseline, test, at, fit, why)


def _at(
    setup: Setup, grown: list[Grown], factor: float, seeds: int, outcomes: Mapping[str, Outcome], unseal: bool
) -> AtFactor | None:
    rows: dict[str, list[Grown]] = {}
    for one in grown:
        rows.setdefault(setup.trial(one.network, 0).key, []).append(one)
    complete = []
    for same in rows.values():
        keys = [setup.trial(same[0].network, seed).key for seed in range(seeds)]
        if all(key in outcomes for key in keys):
            complete.append((same, [outcomes[key] for key in keys]))
    if len(complete) < 2 or seeds < 2:
        return None
    y = np.array([[one.selection for one in outs] for _, outs in complete])
    chosen = compare_arms(y)
    test_y = np.array([[unpack(one.test).mean() for one in outs] for _, outs in complete]) if unseal else None
    test = None if test_y is None else compare_arms(test_y)
    arms = tuple(
        ArmResult(
            grown=same[0],
            arms=tuple(one.arm for one in same),
            selection=y[place],
            test=None if test_y is None else test_y[place],
            mean=chosen.means[place],
            test_mean=None if test is None else test.means[place],
            seconds=sum(one.seconds for one in outs),
        )
        for place, (same, outs) in enumerate(complete)
    )
    order = sorted((mean.value for mean in chosen.means), reverse=True)
    needed = seeds_to_tell(order[0] - order[1], chosen.sigma, len(arms), corrected=True)  # as ties are judged
    return AtFactor(factor, arms, chosen, test, detectable(len(arms), seeds, chosen.sigma), needed)


def _fit(at: AtFactor, baseline: float) -> Fit:
    """Points are the shares that were realised; accuracies are corrected to the cost that was asked."""
    doublings = np.array([math.log2(arm.grown.scaled.realised) for arm in at.arms])
    y = np.array([arm.selection for arm in at.arms])
    slope = float((y.mean() - baseline) / doublings.mean())
    corrected = y - slope * (doublings - math.log2(at.factor))[:, None]
    points = np.array([_point(arm.grown.shares) for arm in at.arms])
    surface = fit_surface(points, corrected)
    best = np.clip(surface.optimum(), 0.0, 1.0)
    return Fit(surface, slope, Exponents(*(float(share) for share in best / best.sum())), surface.confidence_set())


def _point(shares: Exponents) -> tuple[float, float, float]:
    return shares.depth, shares.width, shares.resolution


def arms_again(at: AtFactor, fit: Fit | None) -> tuple[Arm, ...]:
    """The arms to train at the squared factor: the fitted optimum, the paper's mix, the best single dimension, and the
    best of the others until there are four different mixes."""
    chosen = [Arm(FITTED, fit.optimum)] if fit is not None else []
    single, compound = at.single(), at.arm(COMPOUND)
    if single is not None and single.single is not None:
        chosen.append(single.single)
    if compound is not None:
        chosen.append(next(arm for arm in compound.arms if arm.name == COMPOUND))
    for result in sorted(at.arms, key=lambda one: -one.mean.value):
        if _different(chosen) < BEST and all(arm.name not in result.names for arm in chosen):
            chosen.append(result.grown.arm)
    return tuple(chosen)


def _different(arms: Sequence[Arm]) -> int:
    """How many mixes there are among the arms: a fitted optimum may be a dimension alone."""
    return len({tuple(round(share, 6) for share in arm.point) for arm in arms})
