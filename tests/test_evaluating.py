import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import digit_folder
from tables import four_columns, made_run, predictions

from triscale.data import read
from triscale.errors import UserError
from triscale.evaluating import Predictions, evaluate, measure, read_table
from triscale.fitting import Fitted

SOURCES = str(Path(__file__).parent.parent / "src")


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


def with_a_test_split(fitted: Fitted, place: Path) -> tuple[Path, Path]:
    """A run with the fitted model, whose data brings its own test split, and that data."""
    data = place / "digits"
    digit_folder(data / "test", each=4, first=20)
    digit_folder(data / "train", each=4)
    images = read(data, seed=None)
    held, learned = images.test, images.train
    shares = np.eye(3, dtype=np.float32)[held.labels]
    table = Predictions(held.names, held.labels, shares, images.classes, held.digests).table
    run = made_run(place / "run", table, data=data, learned=dict(zip(learned.names, learned.digests, strict=True)))
    shutil.copy(fitted.run.model, run)
    return run, data


def test_images_of_the_own_test_split_that_are_gone_or_changed_are_counted(fitted: Fitted, tmp_path: Path) -> None:
    run, data = with_a_test_split(fitted, tmp_path)
    whole = evaluate(run)
    assert (whole.which, whole.missing) == ("test", 0)
    first, second, third, *_ = sorted((data / "test" / "digit-0").iterdir())
    first.unlink()
    second.write_bytes(third.read_bytes())
    assert evaluate(run).missing == 2
    data.rename(tmp_path / "moved")
    assert evaluate(run, tmp_path / "moved").missing == 2


def test_where_nothing_that_was_held_out_is_left_all_of_it_is_missing(fitted: Fitted, tmp_path: Path) -> None:
    run, data = with_a_test_split(fitted, tmp_path)
    shutil.rmtree(data / "test")
    found = evaluate(run)
    assert (found.which, found.missing, found.learned) == ("all", 12, 12)


def test_nothing_is_missing_of_other_images(fitted: Fitted, tmp_path: Path) -> None:
    run, _ = with_a_test_split(fitted, tmp_path)
    digit_folder(tmp_path / "other" / "test", each=4, first=40)
    found = evaluate(run, tmp_path / "other")
    assert (found.which, found.missing) == ("test", 0)


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


def test_what_a_run_stored_measures_as_what_it_is_evaluated_anew(fitted: Fitted) -> None:
    stored = evaluate(fitted.run.predictions)
    assert (stored.which, stored.learned) == ("stored", 0)
    assert stored.table.classes == fitted.model.classes
    assert stored.measures == measure(fitted.test.table)
    assert stored.table.to_csv() == fitted.test.to_csv() == fitted.run.predictions.read_text()


def test_json_keeps_its_keys_and_has_every_class(fitted: Fitted, triscale) -> None:  # noqa: ANN001
    code, out, _ = triscale("eval", fitted.run.path, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["accuracy"] == fitted.test.top().value
    assert found["accuracy_interval_95"] == list(fitted.test.top().interval())
    assert found["top5"] is None
    assert found["evaluated"] == "held out"
    assert found["precision"] == "fp32"
    assert {"images", "data", "missing", "learned", "skipped", "log_loss", "calibration_error"} <= found.keys()
    for label, row in found["classes"].items():
        i = fitted.test.classes.index(label)
        assert row["images"] == int((fitted.test.labels == i).sum())
        assert row["called"] == int((fitted.test.predicted == i).sum())


def test_out_writes_the_table_whole_and_it_measures_the_same(fitted: Fitted, tmp_path: Path, triscale) -> None:  # noqa: ANN001
    place = tmp_path / "table.csv"
    code, out, _ = triscale("eval", fitted.run.path, "--out", place, "--json")
    assert code == 0
    again = json.loads(triscale("eval", place, "--json")[1])
    for key, value in json.loads(out).items():
        if key not in ("data", "evaluated", "learned", "precision", "table"):
            assert again[key] == value, key


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["eval", "RUN", "--out", "table.txt"], [".csv"]),
        (["eval", "RUN", "--out", "missing/table.csv"], ["missing"]),
        (["eval", "RUN", "--out", "RUN/predictions.csv"], ["exists"]),
        (["eval", "RUN/predictions.csv", "RUN"], ["run instead"]),
        (["eval", "missing.csv"], ["missing.csv", "cannot be read"]),
        (["eval", "RUN/predictions.csv", "--precision", "banana"], ["--precision banana", "holds answers", "leave it"]),
        (["eval", "RUN/predictions.csv", "--precision", "bf16"], ["--precision bf16", "holds answers", "leave it out"]),
        (["eval", "RUN/predictions.csv", "--device", "cpu"], ["--device cpu", "holds answers", "leave it out"]),
        (["eval", "RUN/splits.csv"], ["splits.csv", "name,split,sha256"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line_and_exit_code_two(
    fitted: Fitted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    triscale,  # noqa: ANN001
    words: list[str],
    named: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(fitted.run.path)
    before = fitted.run.predictions.read_bytes()
    code, _, err = triscale(*words)
    assert code == 2
    assert all(text in err for text in named)
    assert err.count("\n") == 1
    assert fitted.run.predictions.read_bytes() == before


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"precision": "banana"}, "--precision banana: is none of fp32"), ({"device": "banana"}, "--device 'banana'")],
)
def test_device_and_precision_are_looked_at_before_any_image(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], named: str
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("images were read")

    monkeypatch.setattr(sys.modules["triscale.evaluating.evaluate"], "read", read)  # a function has the name too
    with pytest.raises(UserError, match=named):
        evaluate(fitted.run.path, **asked)


def test_an_older_table_says_what_it_lacks_and_gives_the_rest(tmp_path: Path, triscale) -> None:  # noqa: ANN001
    found = predictions(50, 8, 1)
    place = tmp_path / "old.csv"
    place.write_text(four_columns(found.to_csv()))
    code, out, _ = triscale("eval", place)
    assert code == 0
    assert "earlier version" in out
    values = json.loads(triscale("eval", place, "--json")[1])
    assert values["accuracy"] == found.top().value
    assert (values["top5"], values["log_loss"]) == (None, None)
    assert values["calibration_error"] == pytest.approx(measure(found.table).calibration.error.value, abs=1e-3)


def test_a_table_in_a_run_knows_the_runs_classes_and_digests(tmp_path: Path) -> None:
    found = predictions(4, 9, 2)
    run = made_run(tmp_path / "run", found.table, data=tmp_path)
    table = run / "predictions.csv"
    table.write_text(four_columns(found.to_csv()))
    stored = evaluate(table)
    assert stored.table.classes == found.classes
    assert stored.table.digests == found.digests
    assert set(read_table(table).classes) < set(found.classes)


def test_a_stored_table_is_measured_without_torch(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(predictions(20, 3, 0).to_csv())
    code = (
        "import sys, json; from triscale.cli.main import run; "
        "codes = []\n"
        "for words in (['eval', 'a.csv'], ['compare', 'a.csv', 'a.csv']):\n"
        "    sys.argv = ['triscale', *words]; codes.append(run())\n"
        "assert codes == [0, 0], codes\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_many_classes_show_the_worst_ten_and_json_all(tmp_path: Path, triscale) -> None:  # noqa: ANN001
    found = predictions(400, 30, 3)
    (tmp_path / "many.csv").write_text(found.to_csv())
    _, out, _ = triscale("eval", tmp_path / "many.csv")
    shown = [line for line in out.splitlines() if line.startswith("c") and line.split()[0][1:].isdecimal()]
    assert len(shown) == 10
    classes = json.loads(triscale("eval", tmp_path / "many.csv", "--json")[1])["classes"]
    assert len(classes) == 30
    worst = max(float(line.split()[-1]) for line in shown)
    assert sum(row["f1"] < worst - 0.001 for row in classes.values()) <= 10
