import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import digit_folder
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

from triscale.errors import UserError
from triscale.evaluating import Predictions, evaluate
from triscale.fitting import Fitted


def table(n: int, classes: int, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), n).astype(np.float32)
    names = tuple(f"{i}.png" for i in range(n))
    return Predictions(names, rng.integers(0, classes, n), probabilities, tuple(f"c{i}" for i in range(classes)))


@given(st.integers(1, 60), st.integers(3, 8), st.integers(0, 1000))
def test_figures_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    predictions = table(n, classes, seed)
    labels, every = predictions.labels, list(range(classes))
    assert predictions.top().value == accuracy_score(labels, predictions.predicted)
    assert predictions.top(2).value == top_k_accuracy_score(labels, predictions.probabilities, k=2, labels=every)
    expected = confusion_matrix(labels, predictions.predicted, labels=every)
    assert (predictions.confusion() == expected).all()


def test_top_one_is_what_is_predicted_even_when_classes_tie() -> None:
    predictions = Predictions(("a", "b"), np.array([1, 0]), np.full((2, 2), 0.5, np.float32), ("x", "y"))
    assert predictions.predicted.tolist() == [0, 0]
    assert predictions.top().count == 1


def test_the_table_names_every_image_its_class_and_the_answer() -> None:
    predictions = table(5, 3, 0)
    rows = list(csv.DictReader(io.StringIO(predictions.to_csv())))
    assert [row["name"] for row in rows] == list(predictions.names)
    assert [row["label"] for row in rows] == [f"c{i}" for i in predictions.labels]


def test_a_run_is_evaluated_on_what_it_held_out(fitted: Fitted, digits: Path) -> None:
    for found in (evaluate(fitted.run.path), evaluate(fitted.run.path, digits)):
        assert found.which == "held out"
        assert found.learned == 0
        assert found.predictions.top() == fitted.test.top()
        assert set(found.predictions.names) == set(fitted.test.names)


def test_a_copied_run_works_elsewhere(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted.run.path, tmp_path / "copy")
    assert evaluate(tmp_path / "copy", digits).predictions.top() == fitted.test.top()


def test_other_images_are_evaluated_all_and_matched_by_name(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "other", classes=2, each=30, first=20)
    learned = [name for name, (split, _) in fitted.run.splits().items() if split == "train" and "digit-0" in name][:4]
    for index, name in enumerate(learned):
        shutil.copy(digits / name, folder / "digit-0" / f"copied-{index}.png")
    found = evaluate(fitted.run.path, folder)
    assert (found.which, found.predictions.top().n, found.learned) == ("all", 64, 4)


def test_one_class_alone_can_be_evaluated(fitted: Fitted, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "one", classes=1, each=4)
    assert evaluate(fitted.run.path, folder).predictions.top().n == 4


def test_a_class_that_the_model_does_not_know_is_named(fitted: Fitted, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "more", classes=4, each=4)
    with pytest.raises(UserError, match="digit-3"):
        evaluate(fitted.run.path, folder)


def test_random_weights_are_not_evaluated(digits: Path) -> None:
    with pytest.raises(UserError, match="random weights"):
        evaluate("efficientnet_b0", digits)


def test_held_out_images_that_are_gone_are_counted_and_the_others_evaluated(
    fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits, tmp_path / "digits")
    (tmp_path / "digits" / fitted.test.names[0]).unlink()
    found = evaluate(fitted.run.path, tmp_path / "digits")
    assert (found.which, found.missing, found.learned) == ("held out", 1, 0)
    assert found.predictions.top().n == len(fitted.test.names) - 1


def test_a_run_that_lost_its_splits_is_not_evaluated_on_what_it_learned(fitted: Fitted, tmp_path: Path) -> None:
    shutil.copytree(fitted.run.path, tmp_path / "run")
    (tmp_path / "run" / "splits.csv").unlink()
    with pytest.raises(UserError, match="splits"):
        evaluate(tmp_path / "run")


def test_a_model_without_a_run_does_not_say_that_nothing_was_learned(fitted: Fitted, digits: Path) -> None:
    found = evaluate(fitted.model, digits)
    assert found.which == "all"
    assert found.learned is None


@pytest.mark.parametrize("text", ["{}", '{"data": 5}', '{"data": {}}', "[]", "torn"])
def test_an_edited_run_is_named(fitted: Fitted, tmp_path: Path, text: str) -> None:
    shutil.copytree(fitted.run.path, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        evaluate(tmp_path / "run")


def test_a_folder_with_a_test_split_alone_can_be_evaluated(fitted: Fitted, tmp_path: Path) -> None:
    digit_folder(tmp_path / "later" / "test", classes=2, each=5)
    found = evaluate(fitted.run.path, tmp_path / "later")
    assert (found.which, found.predictions.top().n) == ("test", 10)
