import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from tables import predictions, random_predictions

from triscale.evaluating import Predictions, measure
from triscale.evaluating.calibration import BINS, calibration, calibration_difference, errors, reliability
from triscale.evaluating.measures import sampled
from triscale.evaluating.resampling import bootstrap, draws


@given(st.integers(1, 60), st.integers(3, 12), st.integers(0, 1000))
def test_accuracies_and_log_loss_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    found = predictions(n, classes, seed)
    labels, every = found.labels, list(range(classes))
    measures = measure(found.table, resamples=5)
    assert measures.top1.value == accuracy_score(labels, found.predicted)
    assert found.top(2).value == top_k_accuracy_score(labels, found.probabilities, k=2, labels=every)
    if classes > 5:
        assert measures.top5 is not None
        assert measures.top5.value == top_k_accuracy_score(labels, found.probabilities, k=5, labels=every)
    assert measures.log_loss is not None
    exact = found.probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    assert measures.log_loss.value == pytest.approx(log_loss(labels, exact, labels=every), rel=1e-5)
    assert (found.confusion() == confusion_matrix(labels, found.predicted, labels=every)).all()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(random_predictions())
def test_figures_of_classes_and_their_means_are_those_of_scikit_learn(found: Predictions) -> None:
    measures, every = measure(found.table, resamples=5), list(range(len(found.classes)))
    precision, recall, f1, images = precision_recall_fscore_support(
        found.labels, found.predicted, labels=every, zero_division=np.nan
    )
    for i, one in enumerate(measures.classes):
        assert one.images == images[i]
        for ours, theirs in ((one.precision, precision[i]), (one.recall, recall[i])):
            assert (ours is None) == np.isnan(theirs)
            assert ours is None or ours.value == theirs
        assert one.f1 is None or one.f1 == pytest.approx(0.0 if np.isnan(f1[i]) else f1[i])
    there = sorted(set(found.labels.tolist()))
    means = precision_recall_fscore_support(
        found.labels, found.predicted, labels=there, average="macro", zero_division=0.0
    )
    ours = (measures.macro_precision, measures.balanced.value, measures.macro_f1.value)
    assert ours == pytest.approx(means[:3])
    assert measures.balanced.value == pytest.approx(balanced_accuracy_score(found.labels, found.predicted))
    assert found.balanced() == measures.balanced.value


@given(random_predictions())
def test_the_calibration_error_is_the_one_of_the_paper_written_out(found: Predictions) -> None:
    confidence, right = found.probabilities.max(1), found.predicted == found.labels
    expected = 0.0
    for i in range(BINS):
        inside = [j for j, sure in enumerate(confidence.astype(float)) if i / BINS < sure <= (i + 1) / BINS]
        if inside:
            expected += len(inside) / len(confidence) * abs(right[inside].mean() - confidence[inside].mean(dtype=float))
    assert measure(found.table, resamples=5).calibration.error.value == pytest.approx(expected, abs=1e-12)


@given(random_predictions())
def test_the_reliability_table_is_the_curve_of_scikit_learn(found: Predictions) -> None:
    right = found.predicted == found.labels
    share, mean = calibration_curve(right, found.table.confidence.astype(np.float64).clip(0, 1), n_bins=BINS)
    filled = [one for one in reliability(found.table) if one.images]
    assert [one.accuracy.value for one in filled if one.accuracy] == pytest.approx(share.tolist())
    assert [one.confidence for one in filled] == pytest.approx(mean.tolist())
    assert sum(one.images for one in filled) == len(right)


@given(random_predictions(), st.integers(1, 200))
def test_chunks_change_nothing(found: Predictions, at_once: int) -> None:
    n = len(found.labels)
    whole = np.concatenate(list(draws(n, 7, seed=3)))
    parts = np.concatenate(list(draws(n, 7, seed=3, at_once=at_once)))
    assert (whole == parts).all()
    statistics = sampled(found.table)
    single = np.concatenate([statistics(row[None]) for row in whole])
    assert (statistics(whole) == single).all()


@given(random_predictions(30))
def test_a_resample_is_measured_as_a_table_of_the_drawn_images(found: Predictions) -> None:
    (row,) = next(iter(draws(len(found.labels), 1, seed=1)))
    values = sampled(found.table)(row[None])[0]
    drawn = measure(found.table.select(row), resamples=2)
    measured = (
        drawn.balanced.value,
        drawn.macro_precision,
        drawn.macro_f1.value,
        drawn.calibration.error.value,
        drawn.log_loss.value if drawn.log_loss else None,
    )
    # Means over classes add up in another order: the last digit may differ.
    assert values.tolist() == [None if one is None else pytest.approx(one, rel=1e-12) for one in measured]


def test_the_same_table_gives_the_same_intervals() -> None:
    found = predictions(80, 4, 0)
    assert measure(found.table) == measure(found.table)
    assert measure(found.table) != measure(found.table, seed=1)


@given(random_predictions())
def test_intervals_are_in_order_and_within_what_can_be(found: Predictions) -> None:
    measures = measure(found.table, resamples=50)
    for estimate in (measures.balanced, measures.macro_f1, measures.calibration.error):
        assert 0 <= estimate.low <= estimate.high
    assert measures.calibration.error.low <= measures.calibration.error.value <= measures.calibration.error.high
    assert measures.balanced.high <= 1
    assert 0 <= measures.calibration.by_chance <= 1


def calibrated(rng: np.random.Generator, n: int, shift: float) -> Predictions:
    """Two classes, named right so much less often than the model is sure."""
    sure = rng.beta(5, 1, n) * 0.5 + 0.5
    right = rng.random(n) < np.clip(sure - shift, 0, 1)
    shares = np.stack([sure, 1 - sure], 1).astype(np.float32)
    return Predictions(tuple(map(str, range(n))), np.where(right, 0, 1), shares, ("a", "b"))


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.1])
def test_the_interval_of_the_calibration_error_holds_the_truth(shift: float) -> None:
    """Its percentiles would hold it in none of a hundred cases where the model is well calibrated."""
    rng = np.random.default_rng(0)
    truth = measure(calibrated(rng, 400_000, shift).table, resamples=1).calibration.error.value if shift else 0.0
    held = 0
    for _ in range(60):
        error = measure(calibrated(rng, 300, shift).table, resamples=200).calibration.error
        held += error.low <= truth <= error.high
    assert held / 60 > 0.8


def test_a_calibrated_model_seldom_shows_more_than_by_chance() -> None:
    rng = np.random.default_rng(1)
    found = [measure(calibrated(rng, 300, 0.0).table, resamples=200).calibration for _ in range(60)]
    assert sum(one.error.value > one.by_chance for one in found) < 12


def test_a_difference_of_calibration_errors_allows_for_errors_that_are_chance() -> None:
    rng = np.random.default_rng(2)
    tables = [calibrated(rng, 300, shift).table for shift in (0.0, 0.2)]
    (own, drawn), (other, others) = (bootstrap(sampled(table), 300, 200) for table in tables)
    one, two = calibration(tables[0], drawn[:, 3]), calibration(tables[1], others[:, 3])
    apart = calibration_difference(one, two, (own - other)[3], (drawn - others)[:, 3])
    assert apart.low <= -two.error.high
    assert apart.value == pytest.approx(one.error.value - two.error.value)


def test_the_error_of_rows_is_the_error_of_each() -> None:
    rng = np.random.default_rng(0)
    bins, gap = rng.integers(0, BINS, (5, 40)), rng.normal(size=(5, 40))
    assert errors(bins, gap).tolist() == [errors(bins[i : i + 1], gap[i : i + 1])[0] for i in range(5)]
