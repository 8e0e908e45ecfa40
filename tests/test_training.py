from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from tiny import CPU, FAIR, LOOK, TINY, Seen, some_digits
from torch import nn

from triscale.arch import published
from triscale.costing import cost
from triscale.data import prepare
from triscale.errors import TriscaleError, UserError
from triscale.evaluating import predict_images
from triscale.models import Model
from triscale.models.model import new
from triscale.training import (
    EpochMetrics,
    Recipe,
    fastest_machine,
    rehearse,
    steady_allocator,
    train,
)
from triscale.training.average import Average
from triscale.training.machine import find_device
from triscale.training.optimizers import make_optimizer
from triscale.training.recipe import B7_FACTOR, Cosine, regularised
from triscale.training.session import class_weights


def trained(
    recipe: Recipe, seed: int = 0, images: int = 96, precision: str = "fp32"
) -> tuple[Model, list[EpochMetrics]]:
    model = new(TINY, ("0", "1", "2", "3"), LOOK, seed=seed)
    seen = Seen()
    result = train(
        model,
        prepare(some_digits(images), LOOK),
        recipe,
        replace(CPU, precision=precision),
        seed=seed,
        validate=lambda model: FAIR,
        watch=seen,
    )
    return result, seen.rows


def test_training_learns() -> None:
    _, seen = trained(Recipe(epochs=12, batch=16))
    assert seen[-1].loss < 0.6 * seen[0].loss


def test_the_same_seed_gives_the_same_weights() -> None:
    recipe = Recipe(epochs=2, batch=16)
    first, second, other = trained(recipe)[0], trained(recipe)[0], trained(recipe, seed=1)[0]
    same = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    differing = zip(first.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in differing)


def test_fewer_images_than_a_batch_still_train() -> None:
    result, seen = trained(Recipe(epochs=2, batch=64), images=10)
    assert [metrics.step for metrics in seen] == [1, 2]
    assert all(parameter.isfinite().all() for parameter in result.parameters())


def test_a_single_image_is_no_batch_that_could_be_raised() -> None:
    with pytest.raises(UserError, match=r"^a single image to train on: normalisation needs at least two; give more$"):
        trained(Recipe(epochs=1, batch=2), images=1)


def test_bf16_trains_too() -> None:
    _, seen = trained(Recipe(epochs=8, batch=16), precision="bf16")
    assert seen[-1].loss < seen[0].loss


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    with pytest.raises(TriscaleError, match="rate"):
        trained(Recipe(epochs=3, batch=16, rate=Cosine(peak=1e30), clip=None))


@given(st.integers(1, 5000))
def test_the_rate_rises_to_its_height_once_and_falls_towards_zero(steps: int) -> None:
    rate = Cosine(peak=1e-2)
    rates = [rate.at((step + 0.5) / steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) <= 1e-2
    assert rate.at(rate.warmup) == pytest.approx(1e-2)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0


@given(st.integers(1, 100_000), st.integers(0, 100_000))
def test_the_average_keeps_less_early_and_never_everything(steps: int, step: int) -> None:
    decay = Recipe(epochs=1).average_decay(step, steps)
    assert 0 <= decay < 1
    assert decay <= (1 + step) / (10 + step)


def test_the_average_is_the_weighted_mean_of_weights_and_statistics() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    average = Average(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    average.update(0.75)
    for name, value in average.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, before[name] + 0.25)
        else:
            assert torch.equal(value, before[name] + 1)


def test_decay_is_for_convolutions_and_the_linear_layer_only() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    others, decayed = make_optimizer(model, Recipe(epochs=1)).param_groups
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert {id(p) for p in decayed["params"]} == {id(weight) for weight in weights}
    assert others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_below_the_baseline_regularisation_falls_in_proportion_to_the_macs() -> None:
    b0 = published("efficientnet_b0")
    assert regularised(b0, b0) == b0
    small = regularised(TINY, b0)
    assert small.stochastic_depth < 0.01
    assert small.head.dropout < 0.01


def test_above_the_baseline_dropout_grows_as_the_papers_from_b0_to_b7_and_no_further() -> None:
    b0 = published("efficientnet_b0")
    grown = [regularised(published(f"efficientnet_b{number}"), b0) for number in range(8)]
    dropouts = [network.head.dropout for network in grown]
    assert dropouts == sorted(dropouts)
    assert dropouts[0] == 0.2
    assert dropouts[7] == pytest.approx(0.5, abs=0.01)  # the paper's, section 5.2; B7_FACTOR is nominal
    assert all(network.stochastic_depth == b0.stochastic_depth for network in grown)
    huge = replace(b0, resolution=(8192, 8192))
    assert cost(huge).macs > B7_FACTOR * cost(b0).macs
    assert regularised(huge, b0).head.dropout == 0.5
    without = replace(b0, head=replace(b0.head, dropout=0.0))
    assert regularised(huge, without).head.dropout == 0


def test_measuring_draws_nothing_from_the_runs_generator_and_leaves_the_network() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    machine = fastest_machine(model, 8, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert f"{machine.precision}, {machine.threads} threads" in machine.step
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_allocator_is_made_steady_where_glibc_is() -> None:
    import platform

    assert steady_allocator() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("values", [{"epochs": 0}, {"epochs": 1, "batch": 1}])
def test_a_recipe_that_cannot_train_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(UserError):
        Recipe(**values)


@pytest.mark.parametrize("name", ["tpu", "mps", "cuda:999", "cuda:-1", "cpu:x"])
def test_a_device_that_is_none_is_named(name: str) -> None:
    with pytest.raises(UserError, match=name):
        find_device(name)


@pytest.mark.parametrize(
    ("count", "says"), [(0, "sees no CUDA device here; take cpu$"), (2, "sees cuda:0, cuda:1 here; take one")]
)
def test_only_devices_that_are_there_are_offered(monkeypatch: pytest.MonkeyPatch, count: int, says: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=says):
        find_device("cuda:7")


def test_evaluation_uses_statistics_of_the_averaged_weights() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    average = Average(model)
    pixels = torch.from_numpy(some_digits(64).array()).permute(0, 3, 1, 2)  # type: ignore[arg-type]
    look = torch.nn.functional.interpolate(pixels.float(), (16, 16)).to(torch.uint8)
    average.refresh_statistics([look])
    first = next(module for module in average.model.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        made = average.model.stem.conv.conv(LOOK.normalise(look))
    torch.testing.assert_close(first.running_mean, made.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, made.var((0, 2, 3)))
    assert not average.model.training
    assert not first.training
    assert first.momentum == pytest.approx(1 - TINY.norm.momentum)


def test_a_rehearsal_leaves_the_model_and_the_runs_draws_as_they_were() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    validated = []
    pace = rehearse(
        model,
        prepare(some_digits(96), LOOK),
        Recipe(epochs=3, batch=16),
        CPU,
        validate=lambda average: validated.append(average) or FAIR,
        seconds=0.1,
    )
    assert pace.step > 0
    assert pace.epoch_end > 0
    assert pace.epoch(10) == pytest.approx(10 * pace.step + pace.epoch_end)
    assert len(validated) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_rehearsal_of_a_single_step_has_a_pace_too() -> None:
    model = new(TINY, ("0", "1", "2", "3"), LOOK)
    images = prepare(some_digits(6), LOOK)
    pace = rehearse(model, images, Recipe(epochs=1, batch=16), CPU, validate=lambda _: FAIR, seconds=0.1)
    assert pace.step > 0


def test_every_class_weighs_the_same_when_balanced() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    weights = class_weights(labels, 4)
    # scikit-learn's "balanced": n / (classes · images); the fourth class has no image and no weight.
    oracle = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    torch.testing.assert_close(weights[:3], torch.from_numpy(oracle).float() * 3 / 4)
    assert weights[3] == 0
    assert weights[0] * 90 == pytest.approx(float(weights[2]))


def test_balance_brings_a_rare_class_back() -> None:
    digits = some_digits(160)
    rare = np.flatnonzero(digits.labels == 3)[4:]
    images = digits.select(np.setdiff1d(np.arange(160), rare))
    first: dict[bool, float] = {}
    for balance in (False, True):
        model = new(TINY, ("0", "1", "2", "3"), LOOK, seed=0)
        recipe = Recipe(epochs=8, batch=16, balance=balance, smoothing=0.0)
        result = train(model, prepare(images, LOOK), recipe, CPU, seed=0, validate=lambda _: FAIR)
        shares = predict_images(result, digits.select(rare)).probabilities[:, 3]
        first[balance] = float(shares.mean())
    assert first[True] > first[False]
