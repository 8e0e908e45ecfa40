import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from markup import Outline, check_self_contained
from pictures import digit_folder

from triscale.data import Images
from triscale.data.pictures import Files, Memory
from triscale.evaluating import Predictions, measure
from triscale.evaluating.calibration import Bin
from triscale.fitting import Fitted, fit
from triscale.reporting import write_report
from triscale.reporting.mistakes import MOST, worst_mistakes
from triscale.reporting.plots import Tried, curve, reliability, tradeoff
from triscale.runs import RunDirectory


def page_of(run: RunDirectory) -> str:
    return run.report.read_text(encoding="utf-8")


def test_the_page_fetches_nothing_and_runs_nothing(fitted: Fitted) -> None:
    check_self_contained(page_of(fitted.run))


def test_the_page_shows_what_was_asked_realised_planned_and_reached(fitted: Fitted) -> None:
    text = Outline(page_of(fitted.run)).text
    low, high = fitted.test.top().interval()
    for share in (fitted.test.top().value, low, high):
        assert f"{100 * share:.2f} %" in text
    assert "400k" in text
    plan = fitted.run.settings()["plan"]
    for candidate in plan["candidates"]:
        assert candidate["name"] in text
    assert plan["why"] in text
    assert "asked" in text
    assert "nominal" in text
    assert "realised" in text
    assert "none of them is a copy" in text


def test_the_page_draws_two_curves_accuracy_against_macs_and_how_sure_it_may_be(fitted: Fitted) -> None:
    assert Outline(page_of(fitted.run)).tags.count("svg") == 4


def test_the_page_shows_calibration_and_precision_with_their_intervals(fitted: Fitted) -> None:
    text = Outline(page_of(fitted.run)).text
    measures = measure(fitted.test.table)
    error = measures.calibration.error
    for share in (error.value, error.low, error.high, measures.calibration.by_chance):
        assert f"{100 * share:.2f} %" in text
    for one in measures.classes:
        assert one.precision is not None
        low, high = one.precision.interval()
        assert f"{100 * low:.1f} % to {100 * high:.1f} %" in text


def test_the_page_is_for_dark_mode_and_phones_too(fitted: Fitted) -> None:
    page = page_of(fitted.run)
    assert "color-scheme: light dark" in page
    assert "width=device-width" in page
    assert "#01020" not in page


def test_names_of_blocks_are_not_broken_on_a_phone(fitted: Fitted) -> None:
    page = page_of(fitted.run)
    assert "td.block { white-space: nowrap; }" in page
    blocks = re.findall(r"<tr><td>(?:stem|\d+|head)</td><td class=\"([a-z ]+)\">", page)
    assert blocks == ["text block"] * (2 + len(fitted.plan.architecture.stages))


def wrong_answers(n: int) -> tuple[Predictions, Images]:
    """n pictures of class a, each named b a little more surely than the one before."""
    sure = np.linspace(0.55, 0.95, n, dtype=np.float32)
    names = tuple(f"{i}.png" for i in range(n))
    test = Predictions(names, np.zeros(n, np.int64), np.stack([1 - sure, sure], 1), ("a", "b"))
    pixels = np.arange(n, dtype=np.uint8)[:, None, None, None] + np.zeros((n, 8, 8, 1), np.uint8)
    return test, Images(test.labels, names, tuple(b"" for _ in names), Memory(pixels))


def test_the_surest_mistakes_come_first_and_are_not_endless() -> None:
    found = worst_mistakes(*wrong_answers(60))
    assert len(found) == MOST
    assert [one.name for one in found[:2]] == ["59.png", "58.png"]
    assert [one.confidence for one in found] == sorted((one.confidence for one in found), reverse=True)
    assert found[0].label == "a"
    assert found[0].called == "b"


def test_a_picture_that_is_gone_is_left_out(tmp_path: Path) -> None:
    test, images = wrong_answers(3)
    gone = Images(images.labels, images.names, images.digests, Files((tmp_path / "x.png",) * 3, 1))
    assert worst_mistakes(test, gone) == []


def test_other_runs_on_the_same_images_stand_beside_and_strangers_do_not(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    other = digit_folder(tmp_path / "others", classes=2, each=8, first=10)
    asked = {"macs": 300_000, "epochs": 1, "baseline": "resnet18"}
    fit(folder, out=tmp_path / "runs" / "first", seed=3, **asked)
    fit(other, out=tmp_path / "runs" / "stranger", **asked)
    shutil.copytree(tmp_path / "runs" / "first", tmp_path / "runs" / "torn")
    (tmp_path / "runs" / "torn" / "run.json").write_text('{"data": {"fingerprint')
    unfinished = json.loads((tmp_path / "runs" / "first" / "run.json").read_text())
    del unfinished["result"]
    (tmp_path / "runs" / "unfinished").mkdir()
    (tmp_path / "runs" / "unfinished" / "run.json").write_text(json.dumps(unfinished))
    fit(folder, out=tmp_path / "runs" / "elsewhere", seed=4, **asked)  # another seed holds out other images
    shutil.copytree(tmp_path / "runs" / "first", tmp_path / "runs" / os.fsdecode(b"no-text-\xff"))
    last = fit(folder, out=tmp_path / "runs" / "last", seed=3, **asked)
    text = Outline(page_of(last.run)).text
    assert "first" in text
    assert "no-text-?" in text
    assert not any(name in text for name in ("stranger", "torn", "unfinished", "elsewhere"))


def test_runs_of_another_seed_stand_beside_where_the_test_images_are_given(tmp_path: Path) -> None:
    digit_folder(tmp_path / "digits" / "train", classes=2, each=12)
    digit_folder(tmp_path / "digits" / "test", classes=2, each=8, first=20)
    for seed in (0, 1):
        asked = {"macs": 300_000, "epochs": 1, "baseline": "resnet18", "seed": seed}
        last = fit(tmp_path / "digits", out=tmp_path / "runs" / f"seed-{seed}", **asked)
    assert "seed-0" in Outline(page_of(last.run)).text


def test_copies_of_learned_images_are_counted_beside_the_accuracy(tmp_path: Path) -> None:
    for split in ("train", "test"):
        digit_folder(tmp_path / "digits" / split, classes=2, each=8)
    fitted = fit(tmp_path / "digits", out=tmp_path / "run", macs=300_000, epochs=1, baseline="resnet18")
    assert fitted.leaks == 16
    assert "16 of them are exact copies" in Outline(page_of(fitted.run)).text


def test_uneven_classes_are_reported_with_the_mean_recall(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=40)
    for path in sorted((folder / "digit-1").iterdir())[8:]:
        path.unlink()
    fitted = fit(folder, out=tmp_path / "run", macs=300_000, epochs=1, baseline="resnet18", balance=True)
    text = Outline(page_of(fitted.run)).text
    assert fitted.imbalance >= 3
    assert "uneven" in text
    assert "weighed the same" in text
    matrix = fitted.test.confusion()
    assert fitted.test.balanced() == pytest.approx((matrix.diagonal() / matrix.sum(1)).mean())


def test_names_cannot_write_into_the_plots() -> None:
    drawing = tradeoff([Tried("<script>$x^2$</script>", 1e6, 0.9, 0.8, 0.95, own=True)])
    assert "<script>" not in drawing
    assert "$x^2$" in drawing


def test_a_name_in_letters_that_the_font_lacks_is_drawn_without_a_warning() -> None:
    assert "名前" in tradeoff([Tried("名前", 1e6, 0.9, 0.8, 0.95, own=True)])  # warnings are errors here


def test_a_training_of_one_epoch_has_no_parts_of_epochs() -> None:
    drawn = curve([0.5], "validation accuracy", percent=True)
    assert "0.990" not in drawn
    assert re.search(r">1</text>", drawn)


def test_the_same_values_draw_the_same_plot() -> None:
    assert curve([0.5, 0.7], "x", percent=True) == curve([0.5, 0.7], "x", percent=True)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_a_perfect_and_a_hopeless_run_can_be_drawn(accuracy: float) -> None:
    assert "<svg" in tradeoff([Tried("run", 1e6, accuracy, accuracy, accuracy, own=True)])
    drawing = curve([accuracy], "validation accuracy", percent=True)
    shares = [float(text) for text in re.findall(r">(-?[\d.]+) ?%<", drawing.replace("−", "-"))]
    assert shares
    assert all(0 <= share <= 100 for share in shares)


@pytest.mark.parametrize("right", [0, 1])
def test_one_image_that_is_right_or_wrong_can_be_drawn(right: int) -> None:
    bins = [Bin(i / 15, (i + 1) / 15, 0, 0, None) for i in range(14)]
    assert "<svg" in reliability([*bins, Bin(14 / 15, 1.0, 1, right, 1.0)])


def test_many_classes_and_long_names_make_a_page(tmp_path: Path, fitted: Fitted) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(fitted.run.path, run.path)
    classes = tuple(f"{'long ' * 20}{i}" for i in range(60))
    settings = run.settings()
    settings["data"]["counts"] = {"train": dict.fromkeys(classes, 3), "test": dict.fromkeys(classes, 1)}
    run.write_settings(settings)
    shares = np.full((60, 60), 1 / 60, np.float32)
    names = tuple(map(str, range(60)))
    test = Predictions(names, np.arange(60), shares, classes)
    images = Images(np.arange(60), names, tuple(b"" for _ in names), Memory(np.zeros((60, 8, 8, 3), np.uint8)))
    write_report(run, test, images)
    assert "matrix" not in re.sub(r"<style>.*?</style>", "", page_of(run), flags=re.DOTALL)
