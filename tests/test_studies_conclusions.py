"""What a study concludes from its trials, whose truth is made up here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from triscale.arch import resolve
from triscale.costing import cost
from triscale.errors import UserError
from triscale.stats import Estimate
from triscale.studies.comparing import Comparisons, paired_seeds, seeds_to_tell
from triscale.studies.conclusions import ArmResult, arms_again, conclude
from triscale.studies.designs import COMPOUND, FITTED, TEN
from triscale.studies.planning import Effort, Fidelity
from triscale.studies.setup import Setup
from triscale.studies.values import surface_values
from triscale.training import named
from triscale.trials import How, Outcome, pack

BASELINES = Path(__file__).parent.parent / "examples" / "baselines"


def made_up(noise: float, best: tuple[float, float, float], seeds: int = 3) -> tuple[Setup, dict[str, Outcome]]:
    """A study of the ten arms whose true accuracies fall with the distance from a mix, and its outcomes."""
    mini = resolve(BASELINES / "efficientnet_mini.json")
    effort = Effort(1e-3, (2e-3,), (4e-3,), 1.0, 0.0)
    recipe = named("quick").recipe
    setup = Setup(mini, 2.0, recipe, Fidelity(1000, 1), How(), 2, 0, "images", (28, 28), effort)
    draw = np.random.default_rng(0)
    outcomes = {}
    for arm in (None, *TEN.arms):
        grown = None if arm is None else setup.grow(arm, 2.0)
        shares = None if grown is None else grown.shares
        for seed in range(seeds):
            value = (
                0.8
                if shares is None
                else 0.9
                - sum((a - b) ** 2 for a, b in zip((shares.depth, shares.width, shares.resolution), best, strict=True))
                * 0.1
            )
            right = draw.random(10_000) < value + noise * draw.normal()
            trial = setup.trial(mini if grown is None else grown.network, seed)
            outcomes[trial.key] = Outcome(
                selection=value + noise * draw.normal(),
                loss=0.5,
                test=pack(right),
                losses=(1.0,),
                macs=cost(mini).macs,
                seconds=1.0,
                preparing=0.0,
                worker="",
                memory=0,
            )
    return setup, outcomes


def test_the_fitted_optimum_is_near_the_true_one_and_in_its_set() -> None:
    best = (0.2, 0.5, 0.3)
    setup, outcomes = made_up(0.0005, best)
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    found = conclude(setup, grown, 3, outcomes, unseal=False)
    assert found.fit is not None
    assert np.abs(np.array(found.fit.shares) - best).max() < 0.15
    nearest = np.abs(found.fit.compatible - np.array(best)).max(1).min()
    assert nearest < 0.051


def test_test_answers_are_not_read_before_everything_is_chosen() -> None:
    setup, outcomes = made_up(0.001, (0.2, 0.5, 0.3))
    sealed = {key: replace(outcome, test="no record at all") for key, outcome in outcomes.items()}
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    found = conclude(setup, grown, 3, sealed, unseal=False)
    assert all(arm.test is None and arm.test_mean is None for arm in found.factors[0].arms)
    assert len(arms_again(found.factors[0], found.fit)) == 4
    with pytest.raises(UserError):
        conclude(setup, grown, 3, sealed, unseal=True)


def test_the_best_again_are_the_fitted_the_papers_the_best_single_and_the_best_others() -> None:
    setup, outcomes = made_up(0.0005, (0.0, 0.9, 0.1))
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    found = conclude(setup, grown, 3, outcomes, unseal=False)
    names = [arm.name for arm in arms_again(found.factors[0], found.fit)]
    assert names[0] == FITTED
    assert {"width", COMPOUND} < set(names)
    assert len(names) == len(set(names)) == 4


def test_a_fitted_optimum_that_is_a_dimension_alone_takes_no_others_place() -> None:
    setup, outcomes = made_up(0.0005, (0.0, 3.0, -2.0))
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    found = conclude(setup, grown, 3, outcomes, unseal=False)
    assert found.fit is not None
    assert found.fit.shares == pytest.approx((0, 1, 0))
    arms = arms_again(found.factors[0], found.fit)
    assert [arm.name for arm in arms[:2]] == [FITTED, "width"]
    assert len(arms) == 5


def test_arms_that_rounding_made_one_network_count_once() -> None:
    setup, outcomes = made_up(0.001, (0.3, 0.3, 0.4))
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    found = conclude(setup, grown, 3, outcomes, unseal=False).factors[0]
    networks = {setup.trial(one.network, 0).key for one in grown}
    assert len(found.arms) == len(networks)
    assert sum(len(arm.names) for arm in found.arms) == len(TEN.arms)


def test_a_cost_that_differs_is_corrected_by_what_doubling_brings() -> None:
    setup, outcomes = made_up(1e-9, (1 / 3, 1 / 3, 1 / 3))
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    found = conclude(setup, grown, 3, outcomes, unseal=False)
    assert found.fit is not None
    mean = np.mean([arm.mean.value for arm in found.factors[0].arms])
    assert found.fit.slope == pytest.approx(float(mean - 0.8), abs=0.01)


def test_a_study_without_all_seeds_of_two_arms_says_nothing_yet() -> None:
    setup, outcomes = made_up(0.001, (0.3, 0.3, 0.4))
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    some = {setup.trial(grown[0].network, seed).key for seed in range(3)}
    found = conclude(setup, grown, 3, {key: outcomes[key] for key in some}, unseal=False)
    assert found.factors == ()
    assert found.fit is None


def test_the_seeds_that_are_said_to_tell_the_best_two_are_those_of_the_test_that_judges_ties() -> None:
    setup, outcomes = made_up(0.002, (0.3, 0.3, 0.4))
    at = conclude(setup, [setup.grow(arm, 2.0) for arm in TEN.arms], 3, outcomes, unseal=False).factors[0]
    best, second = sorted((arm.mean.value for arm in at.arms), reverse=True)[:2]
    assert at.needed == seeds_to_tell(best - second, at.chosen.sigma, len(at.arms), corrected=True)


def test_differences_to_the_best_single_dimension_allow_for_its_having_been_picked() -> None:
    setup, outcomes = made_up(0.002, (0.3, 0.3, 0.4))
    grown = [setup.grow(arm, 2.0) for arm in TEN.arms]
    at = conclude(setup, grown, 3, outcomes, unseal=True).factors[0]
    compound, single = at.arm(COMPOUND), at.single()
    assert compound is not None
    assert at.test is not None
    others = [arm for arm in at.arms if arm.single is not None]
    assert len(others) == 3
    for second in others:
        found, plain = at.difference(compound, second), paired(compound, second, at.test)
        assert found is not None
        assert found.value == plain.value
        assert (found.high - found.low > plain.high - plain.low) == (second is single)
        turned = at.difference(second, compound)
        assert turned is not None
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def paired(first: ArmResult, second: ArmResult, test: Comparisons) -> Estimate:
    assert first.test is not None
    assert second.test is not None
    return paired_seeds(first.test, second.test, test.sigma, test.df)


@pytest.mark.parametrize("best", [(0.31, 0.33, 0.36), (0.02, 0.04, 0.94), (0.52, 0.01, 0.47)])
@pytest.mark.parametrize("noise", [0.0002, 0.002])
def test_the_fitted_optimum_lies_within_its_ranges(noise: float, best: tuple[float, float, float]) -> None:
    setup, outcomes = made_up(noise, best)
    fit = conclude(setup, [setup.grow(arm, 2.0) for arm in TEN.arms], 3, outcomes, unseal=False).fit
    assert fit is not None
    said = surface_values(fit)
    for key, (low, high) in said["ranges"].items():
        assert low <= said["optimum"].get(key, said.get(key)) <= high
    assert set(said["ranges"]) == {"depth", "width", "resolution", "alpha", "beta", "gamma"}
