"""Two models on the same images."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import digit_folder
from tables import four_columns, made_run, predictions

import triscale
from triscale.errors import UserError
from triscale.evaluating import Predictions, Table, compare, evaluate, measure
from triscale.evaluating.comparison import compared
from triscale.evaluating.matching import match
from triscale.fitting import Fitted, fit
from triscale.stats import PairedDifference


def two(n: int, classes: int, seed: int) -> tuple[Table, Table]:
    """Answers of two models to the same images."""
    one, other = predictions(n, classes, seed), predictions(n, classes, seed + 1)
    return one.table, replace(other, labels=one.labels).table


def stored(folder: Path, n: int = 60, classes: int = 4, seed: int = 0) -> tuple[Path, Path]:
    first, second = two(n, classes, seed)
    return made_run(folder / "a", first, data=folder), made_run(folder / "b", second, data=folder)


@pytest.fixture(scope="module")
def other(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The same images and the same split as `fitted`, another network."""
    return fit(
        digits, out=tmp_path_factory.mktemp("runs") / "other", macs=300_000, epochs=1, seed=3, baseline="resnet18"
    )


@pytest.fixture(scope="module")
def elsewhere(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The same images, split by another seed."""
    return fit(
        digits, out=tmp_path_factory.mktemp("runs") / "elsewhere", macs=300_000, epochs=1, seed=4, baseline="resnet18"
    )


@given(st.integers(1, 60), st.integers(2, 8), st.integers(0, 1000))
def test_the_four_kinds_of_images_and_the_flips_are_counted_one_by_one(n: int, classes: int, seed: int) -> None:
    first, second = two(n, classes, seed)
    found = compared(("a", "b"), (first, second), None, "stored", (None, None))
    pairs = list(zip(first.right.tolist(), second.right.tolist(), strict=True))
    assert found.both == pairs.count((True, True))
    assert found.neither == pairs.count((False, False))
    assert found.difference == PairedDifference(pairs.count((True, False)), pairs.count((False, True)), n)
    expected = {first.names[i] for i, (one, other) in enumerate(pairs) if one != other}
    assert {flip.names[0] for flip in found.flips} == expected
    assert len(found.flips) == len(expected)
    for flip in found.flips:
        i = first.names.index(flip.names[0])
        assert flip.answers[flip.right][0] == flip.label == first.classes[first.labels[i]]
        assert flip.answers[1 - flip.right][0] != flip.label
    assert [flip.surety for flip in found.flips] == sorted((flip.surety for flip in found.flips), reverse=True)


@given(st.integers(1, 60), st.integers(2, 8), st.integers(0, 1000))
def test_differences_are_those_of_the_two_measures_and_turn_with_the_order(n: int, classes: int, seed: int) -> None:
    first, second = two(n, classes, seed)
    found = compared(("a", "b"), (first, second), None, "stored", (None, None))
    back = compared(("b", "a"), (second, first), None, "stored", (None, None))
    one, other = measure(first), measure(second)
    assert found.measures == (one, other)
    assert found.log_loss is not None
    assert one.log_loss is not None
    assert other.log_loss is not None
    assert back.log_loss is not None
    assert found.log_loss.value == pytest.approx(one.log_loss.value - other.log_loss.value)
    assert found.log_loss.interval() == pytest.approx((-back.log_loss.high, -back.log_loss.low))
    assert found.calibration.value == pytest.approx(one.calibration.error.value - other.calibration.error.value)
    assert found.calibration.interval() == pytest.approx((-back.calibration.high, -back.calibration.low))
    assert found.balanced.value == pytest.approx(one.balanced.value - other.balanced.value)
    assert sum(item.images for item in found.classes) == n
    for item in found.classes:
        if item.difference is not None:
            assert item.difference.value == pytest.approx((item.right[0] - item.right[1]) / item.images)


def test_a_model_compared_with_itself_differs_in_nothing() -> None:
    first, _ = two(50, 5, 0)
    found = compared(("a", "a"), (first, first), None, "stored", (None, None))
    assert found.difference.value == 0
    assert found.flips == ()
    assert found.log_loss is not None
    assert found.log_loss.interval() == (0, 0)


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_images_are_matched_by_content_whatever_their_order_and_names(n: int, rng) -> None:  # noqa: ANN001
    first = predictions(n, 3, n).table
    order = list(range(n))
    rng.shuffle(order)
    second = first.select(order)
    assert match(first, second) == [(i, order.index(i)) for i in range(n)]
    renamed = replace(second, names=tuple(f"moved/{name}" for name in second.names))
    assert match(first, renamed) == [(i, order.index(i)) for i in range(n)]


def test_copies_of_one_picture_are_told_apart_by_name_and_never_matched_twice() -> None:
    first = replace(predictions(4, 3, 0).table, digests=(b"x" * 32,) * 4)
    second = replace(first.select([3, 1, 0, 2]), names=("3.png", "1.png", "new.png", "newer.png"))
    pairs = dict(match(first, second))
    assert (pairs[3], pairs[1]) == (0, 1)
    assert sorted(pairs.values()) == [0, 1, 2, 3]
    assert len(match(first, second.select([0, 1]))) == 2


def test_stored_runs_are_compared_and_named(tmp_path: Path) -> None:
    a, b = stored(tmp_path)
    found = triscale.compare(a, b)
    assert found.names == (str(a), str(b))
    assert (found.which, found.by_content, found.learned) == ("stored", True, (0, 0))
    tables = compare(a / "predictions.csv", b / "predictions.csv")
    assert tables.measures == found.measures
    assert tables.flips == found.flips


def test_other_images_are_an_error_that_counts_the_shared_ones_and_names_the_way_out(tmp_path: Path) -> None:
    first, second = two(30, 3, 0)
    made_run(tmp_path / "a", first, data=tmp_path)
    made_run(tmp_path / "b", second.select(range(10, 30)), data=tmp_path)
    with pytest.raises(UserError, match=r"20 are shared of 30 and 20; .*--data DATA") as caught:
        compare(tmp_path / "a", tmp_path / "b")
    assert "seed" not in str(caught.value)


def test_other_classes_are_named(tmp_path: Path) -> None:
    first, second = two(30, 3, 0)
    made_run(tmp_path / "a", first, data=tmp_path)
    made_run(tmp_path / "b", replace(second, classes=("c0", "c1", "cat")), data=tmp_path)
    with pytest.raises(UserError, match=r"only .*a knows 'c2' and only .*b knows 'cat'"):
        compare(tmp_path / "a", tmp_path / "b")


def test_the_same_classes_in_another_order_are_the_same(tmp_path: Path) -> None:
    first, second = two(30, 3, 0)
    made_run(tmp_path / "a", first, data=tmp_path)
    made_run(tmp_path / "b", second.among(("c2", "c0", "c1")), data=tmp_path)
    made_run(tmp_path / "same", second, data=tmp_path)
    one, other = compare(tmp_path / "a", tmp_path / "b"), compare(tmp_path / "a", tmp_path / "same")
    assert one.difference == other.difference
    assert one.measures == other.measures
    assert one.classes == other.classes


def test_images_that_were_labelled_anew_are_named(tmp_path: Path) -> None:
    first, second = two(30, 3, 0)
    labels = second.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    rank = np.where(second.predicted == labels, 1, 2)
    own = np.where(rank == 1, second.confidence, 0).astype(np.float32)
    made_run(tmp_path / "a", first, data=tmp_path)
    made_run(tmp_path / "b", replace(second, labels=labels, ranks=rank, probability=own), data=tmp_path)
    with pytest.raises(UserError, match=r"7\.png.*labelled anew"):
        compare(tmp_path / "a", tmp_path / "b")


def test_older_tables_are_matched_by_name_and_say_so(tmp_path: Path, triscale) -> None:  # noqa: ANN001
    first, second = two(30, 3, 0)
    (tmp_path / "a.csv").write_text(four_columns(first.to_csv()))
    (tmp_path / "b.csv").write_text(second.to_csv())
    code, out, _ = triscale("compare", tmp_path / "a.csv", tmp_path / "b.csv")
    assert code == 0
    assert "by their names alone" in out
    found = compare(tmp_path / "a.csv", tmp_path / "b.csv")
    assert found.log_loss is None
    assert found.difference == compared(("a", "b"), (first, second), None, "", (None, None)).difference


def test_a_models_own_training_images_are_counted(tmp_path: Path) -> None:
    first, second = two(30, 3, 0)
    made_run(tmp_path / "a", first, data=tmp_path, learned={"copy.png": first.digests[4]})
    made_run(tmp_path / "b", second, data=tmp_path)
    assert compare(tmp_path / "a", tmp_path / "b").learned == (1, 0)


def test_runs_of_different_networks_on_one_split_are_compared_as_their_tests_say(
    fitted: Fitted,
    other: Fitted,
    triscale,  # noqa: ANN001
) -> None:
    code, out, err = triscale("compare", fitted.run.path, other.run.path, "--json")
    assert code == 0
    values = json.loads(out)
    assert values["a"]["accuracy"] == fitted.test.top().value
    assert values["b"]["accuracy"] == other.test.top().value
    assert values["difference"]["points"] == pytest.approx(100 * (fitted.test.top().value - other.test.top().value))
    assert len(values["flipped"]) == values["difference"]["only_a"] + values["difference"]["only_b"]
    assert err == ""


def test_evaluated_anew_on_the_same_images_they_compare_as_stored(fitted: Fitted, other: Fitted, digits: Path) -> None:
    anew, kept = compare(fitted.run.path, other.run.path, digits), compare(fitted.run.path, other.run.path)
    assert (anew.which, anew.learned) == ("held out", (0, 0))
    assert anew.difference == kept.difference
    assert {flip.names for flip in anew.flips} == {flip.names for flip in kept.flips}


def test_runs_of_other_seeds_say_so_and_compare_on_what_both_held_out(
    fitted: Fitted, elsewhere: Fitted, digits: Path
) -> None:
    with pytest.raises(UserError, match=r"seeds 3 and 4.*--data DATA"):
        compare(fitted.run.path, elsewhere.run.path)
    held = [
        {name for name, (split, _) in run.splits().items() if split == "test"} for run in (fitted.run, elsewhere.run)
    ]
    found = compare(fitted.run.path, elsewhere.run.path, digits)
    assert set(found.tables[0].names) == held[0] & held[1]
    assert found.learned == (0, 0)


def test_images_that_each_learned_some_of_are_refused(
    fitted: Fitted, other: Fitted, digits: Path, tmp_path: Path
) -> None:
    shutil.copytree(other.run.path, tmp_path / "run")
    rows = (tmp_path / "run" / "splits.csv").read_text()
    swapped = rows.replace(",test,", ",?,").replace(",train,", ",test,").replace(",?,", ",train,")
    (tmp_path / "run" / "splits.csv").write_text(swapped)
    with pytest.raises(UserError, match="no image of it was held out by both"):
        compare(fitted.run.path, tmp_path / "run", digits)


def test_any_two_models_are_compared_on_images_that_are_named(fitted: Fitted, other: Fitted, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "new", classes=2, each=10, first=30)
    found = compare(fitted.model, other.run.model, folder)
    assert found.names == (fitted.model.architecture.name, str(other.run.model))
    assert found.tables[0].right.tolist() == evaluate(fitted.model, folder).table.right.tolist()
    assert found.learned == (None, 0)
    with pytest.raises(UserError, match="--data DATA"):
        compare(fitted.model, other.run.path)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["compare", "RUN", "missing"], ["missing", "--data DATA"]),
        (["compare", "RUN", "missing.csv"], ["missing.csv", "cannot be read"]),
        (["compare", "RUN", "efficientnet_b0"], ["efficientnet_b0", "--data DATA"]),
        (["compare", "RUN", "efficientnet_b0", "--data", "DIGITS"], ["random weights"]),
        (["compare", "RUN", "RUN/predictions.csv", "--data", "DIGITS"], ["name the run"]),
        (["compare", "RUN", "RUN", "--out", "page.txt"], [".html"]),
        (["compare", "RUN", "RUN", "--out", "missing/page.html"], ["missing"]),
        (["compare", "RUN", "RUN", "--out", "RUN/report.html"], ["exists"]),
        (["compare", "RUN", "RUN", "--on-bad", "maybe"], ["maybe"]),
        (["compare", "RUN", "RUN", "--data", "nowhere"], ["nowhere"]),
        (["compare", "RUN"], ["--help"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line_and_exit_code_two(
    fitted: Fitted,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    triscale,  # noqa: ANN001
    words: list[str],
    named: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(fitted.run.path)
    (tmp_path / "DIGITS").symlink_to(digits)
    code, out, err = triscale(*words)
    assert (code, out) == (2, "")
    assert all(text in err for text in named)
    assert len(err.strip().splitlines()) == 1


def test_help_has_an_example_and_every_comparison_ends_with_a_command(tmp_path: Path, triscale) -> None:  # noqa: ANN001
    code, out, _ = triscale("compare", "--help")
    assert code == 0
    assert "Example: triscale compare" in " ".join(out.split())
    a, b = stored(tmp_path)
    code, out, err = triscale("compare", a, b)
    assert code == 0
    assert f"next: triscale compare {a} {b} --out comparison.html" in err
    for text in ("McNemar", "calibration error", "log loss", "only A", "neither"):
        assert text in out


def test_a_digest_is_that_of_the_pictures_content(fitted: Fitted, digits: Path) -> None:
    table = fitted.test.table
    for name, digest in zip(table.names, table.digests, strict=True):
        assert hashlib.sha256((digits / name).read_bytes()).digest() == digest


def test_predictions_of_no_digests_still_make_a_table() -> None:
    found = Predictions(("a",), np.array([0]), np.array([[0.5, 0.5]], np.float32), ("x", "y"))
    assert found.table.digests == ()
    assert found.to_csv().splitlines()[1] == "a,x,x,0.5,1,0.5,"


def test_a_device_that_there_is_not_is_said_before_an_image_is_read(
    fitted: Fitted, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["triscale.evaluating.compare"]  # its name in the package is the function's
    monkeypatch.setattr(module, "read", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match="--device 'tpu7' is no device"):
        compare(fitted.run.path, fitted.run.path, digits, device="tpu7")
