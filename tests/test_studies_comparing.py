"""Arms against each other: noise, paired differences, Holm's correction, ties, and what a study can see."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from triscale.errors import UserError
from triscale.studies.comparing import Values, compare_arms, holm, noise, paired_seeds, seeds_to_tell
from triscale.studies.power import detectable, power

STUDIES = st.tuples(st.integers(2, 8), st.integers(2, 6), st.integers(0, 10_000))


def study(arms: int, seeds: int, seed: int, spread: float = 0.01) -> Values:
    rng = np.random.default_rng(seed)
    found: Values = 0.7 + spread * (rng.normal(size=(arms, 1)) + rng.normal(size=(1, seeds)))
    return found + 0.01 * rng.normal(size=(arms, seeds))


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_two_arms_are_compared_as_by_the_paired_t_test(seeds: int, seed: int) -> None:
    y = study(2, seeds, seed)
    (pair,) = compare_arms(y).pairs
    theirs = stats.ttest_rel(y[0], y[1])
    interval = theirs.confidence_interval(0.95)
    assert pair.p == pytest.approx(theirs.pvalue)
    assert pair.corrected == pair.p
    assert pair.difference.value == pytest.approx(np.mean(y[0] - y[1]))
    assert pair.difference.interval() == pytest.approx((interval.low, interval.high))


def test_the_noise_is_the_residual_of_a_two_way_analysis_of_variance() -> None:
    # Arms' means 3, 5, 7 and seeds' means 4, 5, 6; what is left by hand: ±1 in four cells.
    left = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    y = np.array([[2.0, 3.0, 4.0], [4.0, 5.0, 6.0], [6.0, 7.0, 8.0]]) + left
    assert noise(y) == (pytest.approx(1.0), 4)  # 4 squares over (3 - 1)(3 - 1)
    found = compare_arms(y)
    assert (found.sigma, found.df) == (pytest.approx(1.0), 4)
    first = found.pairs[0]
    assert (first.first, first.second, first.difference.value) == (0, 1, pytest.approx(-2.0))
    assert first.difference.high + 2 == pytest.approx(2.776445 * np.sqrt(2 / 3), rel=1e-6)  # t(4) of tables: 2.776


def test_holms_correction_is_that_of_the_hand_example() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 4·0.005, 3·0.01, 2·0.03, then no less than that
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holms_correction_keeps_the_order_and_lies_between_none_and_bonferroni(p: list[float]) -> None:
    one = np.array(p)
    held = holm(one)
    assert (held >= one).all()
    assert (held <= np.minimum(1, len(p) * one) + 1e-15).all()
    assert held[np.argmin(one)] == min(1, len(p) * one.min())
    assert (np.diff(held[np.argsort(one)]) >= 0).all()


@given(STUDIES)
def test_neither_the_order_of_arms_and_seeds_nor_what_a_seed_adds_to_all_changes_the_answer(
    size: tuple[int, int, int],
) -> None:
    y = study(*size)
    rng = np.random.default_rng(1)
    arms = rng.permutation(size[0])
    one, shuffled = compare_arms(y), compare_arms(y[arms][:, rng.permutation(size[1])])
    shifted = compare_arms(y + rng.normal(size=size[1]))
    assert shifted.pairs[0].p == pytest.approx(one.pairs[0].p)
    assert shifted.best == one.best == arms[shuffled.best]
    assert shifted.tied == one.tied == tuple(sorted(arms[list(shuffled.tied)].tolist()))
    assert sorted(pair.p for pair in shuffled.pairs) == pytest.approx(sorted(pair.p for pair in one.pairs))
    for ours, theirs in zip(one.pairs, shifted.pairs, strict=True):
        assert theirs.difference.interval() == pytest.approx(ours.difference.interval(), abs=1e-9)


@given(STUDIES)
def test_the_tied_are_the_best_and_all_that_it_does_not_beat_after_holm(size: tuple[int, int, int]) -> None:
    y = study(*size, spread=0.03)
    found = compare_arms(y)
    assert len(found.pairs) == size[0] * (size[0] - 1) // 2
    assert found.best == int(np.argmax(y.mean(1)))
    assert found.best in found.tied
    for pair in found.pairs:
        assert pair.p <= pair.corrected
        if found.best in (pair.first, pair.second):
            other = pair.first + pair.second - found.best
            assert (other in found.tied) == (pair.corrected >= 0.05)


def test_equal_arms_are_all_tied_in_at_least_95_of_100_studies() -> None:
    rng = np.random.default_rng(3)
    studies = [compare_arms(rng.normal(size=(5, 3)) + rng.normal(size=3)) for _ in range(400)]
    assert np.mean([len(found.tied) == 5 for found in studies]) >= 0.95
    assert np.mean([min(pair.corrected for pair in found.pairs) >= 0.05 for found in studies]) >= 0.93


@pytest.mark.parametrize("seed_effect", [0.0, 0.5, 5.0])
def test_intervals_of_means_and_differences_hold_the_truth_as_often_as_they_say(seed_effect: float) -> None:
    rng, means, differences = np.random.default_rng(4), [], []
    for _ in range(1000):
        found = compare_arms(rng.normal(size=(4, 3)) + seed_effect * rng.normal(size=3))
        means.append(found.means[0].low <= 0 <= found.means[0].high)
        differences.append(found.pairs[0].difference.low <= 0 <= found.pairs[0].difference.high)
    assert 0.93 <= np.mean(differences) <= 0.97
    assert 0.92 <= np.mean(means) <= 0.98


def test_seeds_that_agree_to_the_bit_make_no_difference_of_rounding_errors() -> None:
    same = compare_arms(np.full((3, 3), 0.1) + np.array([0.2, 0.0, 0.1]))
    assert same.tied == (0, 1, 2)
    assert all(pair.corrected > 0.05 for pair in same.pairs)
    apart = compare_arms(np.repeat([[0.7], [0.8]], 3, axis=1))
    assert (apart.best, apart.tied) == (1, (1,))


def test_two_arms_may_be_compared_with_the_noise_of_a_whole_study() -> None:
    y = study(6, 3, 0)
    found = compare_arms(y)
    alone = paired_seeds(y[0], y[1], found.sigma, found.df)
    assert alone == found.pairs[0].difference
    assert alone.value == pytest.approx(y[0].mean() - y[1].mean())


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.zeros((1, 3)), "two arms"),
        (np.zeros((3, 1)), "two seeds"),
        (np.zeros(3), "two arms"),
        (np.array([[0.1, 0.2], [0.3, np.nan]]), "arm 1 has the accuracy nan with seed 1"),
    ],
)
def test_a_study_that_is_not_complete_is_refused_in_words(y: Values, says: str) -> None:
    with pytest.raises(UserError, match=says):
        compare_arms(y)


@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (5, 3), (10, 2)])
def test_a_difference_called_detectable_is_seen_in_80_of_100_studies(arms: int, seeds: int) -> None:
    rng, repeats = np.random.default_rng(6), 2000
    y = 0.02 * rng.normal(size=(repeats, arms, seeds)) + rng.normal(size=(repeats, 1, seeds))
    y[:, 0] += detectable(arms, seeds, 0.02)
    seen = [
        2 * stats.t.sf(abs((one[0] - one[1]).mean()) / (noise(one)[0] * np.sqrt(2 / seeds)), noise(one)[1]) for one in y
    ]
    assert np.mean(np.array(seen) < 0.05) == pytest.approx(0.8, abs=0.03)


@given(st.integers(2, 30), st.integers(2, 30), st.floats(0.001, 10))
def test_what_is_detectable_grows_with_noise_and_correction_and_shrinks_with_seeds(
    arms: int, seeds: int, sigma: float
) -> None:
    found = detectable(arms, seeds, sigma)
    assert found == pytest.approx(sigma * detectable(arms, seeds, 1.0))
    assert detectable(arms, seeds + 1, sigma) < found
    corrected = detectable(arms, seeds, sigma, corrected=True)
    assert corrected == found if arms == 2 else corrected > found
    shift = found / (sigma * np.sqrt(2 / seeds))
    assert power(shift, (arms - 1) * (seeds - 1)) == pytest.approx(0.8, abs=1e-6)


def test_with_many_seeds_what_is_detectable_is_that_of_the_normal_distribution() -> None:
    assert detectable(2, 20_000, 1.0) == pytest.approx((1.959964 + 0.841621) * np.sqrt(2 / 20_000), rel=1e-3)


@given(st.floats(0.1, 50), st.integers(2, 12), st.booleans())
def test_the_seeds_to_tell_a_difference_are_the_fewest_that_make_it_detectable(
    ratio: float, arms: int, corrected: bool
) -> None:
    difference = 0.01 * ratio
    found = seeds_to_tell(difference, 0.01, arms, corrected)
    assert found is not None
    assert detectable(arms, found, 0.01, corrected) <= difference
    assert found == 2 or detectable(arms, found - 1, 0.01, corrected) > difference
    assert seeds_to_tell(-difference, 0.01, arms, corrected) == found


def test_so_many_seeds_as_would_tell_the_best_two_arms_end_their_tie_four_times_in_five() -> None:
    rng, repeats, gap, sigma = np.random.default_rng(8), 300, 0.02, 0.01
    seeds = seeds_to_tell(gap, sigma, 5, corrected=True)
    assert seeds is not None
    means = np.array([gap, 0.0, 0.0, -0.001, -0.002])[:, None]
    ended = [1 not in compare_arms(means + sigma * rng.normal(size=(5, seeds))).tied for _ in range(repeats)]
    assert np.mean(ended) >= 0.8


def test_no_number_of_seeds_tells_what_does_not_differ() -> None:
    assert seeds_to_tell(0.0, 0.01) is None
    assert seeds_to_tell(1e-9, 0.01) is None
    assert seeds_to_tell(0.01, 0.0) == 2


@pytest.mark.parametrize(("arms", "seeds", "sigma"), [(1, 3, 0.1), (3, 1, 0.1), (3, 3, -0.1), (3, 3, float("nan"))])
def test_a_study_that_can_see_nothing_is_refused(arms: int, seeds: int, sigma: float) -> None:
    with pytest.raises(UserError):
        detectable(arms, seeds, sigma)


@given(STUDIES)
def test_what_the_best_beats_it_beats_by_more_than_its_interval(size: tuple[int, int, int]) -> None:
    found = compare_arms(study(*size, spread=0.05))
    beaten = [pair for pair in found.pairs if pair.corrected < 0.05]
    assume(beaten)
    assert all(pair.difference.low > 0 or pair.difference.high < 0 for pair in beaten)


def test_an_interval_that_is_picked_as_the_best_of_several_still_holds() -> None:
    rng, wrong, bare, times = np.random.default_rng(0), 0, 0, 2000
    for _ in range(times):
        y = rng.normal(size=(6, 3))  # the reference first; all are equal
        sigma, df = noise(y)
        best = y[1 + int(y[1:].mean(1).argmax())]
        wrong += paired_seeds(best, y[0], sigma, df, out_of=5).low > 0
        bare += paired_seeds(best, y[0], sigma, df).low > 0
    assert wrong / times < 0.025 < 0.05 < bare / times
