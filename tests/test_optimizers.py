"""Optimizers against independent transcriptions, and which parameters they move at which rate."""

from dataclasses import replace

import numpy as np
import peers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import CPU, FAIR, LOOK, TINY, some_digits
from torch import nn

from triscale.data import prepare
from triscale.errors import UserError
from triscale.models import Model
from triscale.models.model import new
from triscale.training import Recipe, named, train
from triscale.training.optimizers import TensorFlowRMSProp, make_optimizer
from triscale.training.recipe import NO_DECAY, SGD, AdamW, ByName, RMSProp

KINDS = (AdamW(), SGD(), SGD(momentum=0.0), SGD(nesterov=False), RMSProp(), RMSProp(momentum=0.0))


def fresh() -> Model:
    return new(TINY, ("0", "1", "2", "3"), LOOK)


def _quadratic(weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((weight - target) ** 2).sum() + (weight**4).sum() / 7


@given(
    rho=st.floats(0, 0.99),
    momentum=st.floats(0, 0.95),
    epsilon=st.floats(1e-8, 1e-1),
    decay=st.floats(0, 0.1),
    seed=st.integers(0, 99),
)
def test_rmsprop_is_tensorflows(rho: float, momentum: float, epsilon: float, decay: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, target = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    made = TensorFlowRMSProp([{"params": [weight]}], 0.05, rho=rho, momentum=momentum, epsilon=epsilon, decay=decay)
    # tf.raw_ops.ApplyRMSProp: ms <- rho ms + (1-rho) grad²; mom <- momentum mom + lr grad / sqrt(ms + epsilon);
    # var <- var - mom; the slot ms is made of ones (tf.compat.v1.train.RMSPropOptimizer).
    ms, mom, var = np.ones((3, 4)), np.zeros((3, 4)), start.copy()
    for step in range(6):
        rate = 0.05 / (1 + step)
        made.param_groups[0]["lr"] = rate
        made.zero_grad()
        _quadratic(weight, torch.from_numpy(target)).backward()
        made.step()
        grad = 2 * (var - target) + 4 * var**3 / 7 + decay * var
        ms = rho * ms + (1 - rho) * grad**2
        mom = momentum * mom + rate * grad / np.sqrt(ms + epsilon)
        var = var - mom
        np.testing.assert_allclose(weight.detach().numpy(), var, rtol=1e-12, atol=1e-14)


def test_rmsprop_is_timms_where_timm_can_be_had() -> None:
    timm = peers.load("timm.optim")
    generator = torch.Generator().manual_seed(0)
    start, target = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    pair = (
        TensorFlowRMSProp([{"params": [ours]}], 0.016, rho=0.9, momentum=0.9, epsilon=1e-3, decay=1e-5),
        timm.RMSpropTF([theirs], lr=0.016, alpha=0.9, eps=1e-3, weight_decay=1e-5, momentum=0.9, lr_in_momentum=True),
    )
    for step in range(20):
        for weight, optimizer in zip((ours, theirs), pair, strict=True):
            optimizer.param_groups[0]["lr"] = 0.016 * 0.97**step
            optimizer.zero_grad()
            _quadratic(weight, target).backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert (ours - start).abs().max() > 0.1


def test_a_first_step_of_rmsprop_is_no_multiple_of_the_rate_whatever_the_gradient() -> None:
    moved = []
    for scale in (1e-3, 1e-2):
        weight = nn.Parameter(torch.zeros(1))
        made = TensorFlowRMSProp([{"params": [weight]}], 0.1, rho=0.9, momentum=0.9, epsilon=1e-3, decay=0)
        weight.grad = torch.full((1,), scale)
        made.step()
        moved.append(weight.item())
    assert moved[1] == pytest.approx(10 * moved[0], rel=1e-4)


@pytest.mark.parametrize("optimizer", KINDS, ids=repr)
def test_every_optimizer_is_made_as_the_recipe_says(optimizer: AdamW | SGD | RMSProp) -> None:
    made = make_optimizer(fresh(), Recipe(epochs=1, optimizer=optimizer))
    names = {"beta1": "betas", "beta2": "betas", "epsilon": "eps", "decay": "weight_decay"}
    if isinstance(optimizer, RMSProp):
        names = {"decay": "weight_decay"}
    decayed = made.param_groups[-1]
    for name in optimizer.__dataclass_fields__:
        if name == "kind":
            continue
        found = decayed[names.get(name, name)]
        if name in ("beta1", "beta2"):
            found = found[int(name[-1]) - 1]
        expected = getattr(optimizer, name)
        if name == "nesterov":
            expected = expected and optimizer.momentum > 0  # type: ignore[union-attr]
        assert found == expected, name


def groups(model: Model, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Of each parameter that learns: the scale of its rate, and its decay."""
    made = make_optimizer(model, recipe)
    where = {id(parameter): group for group in made.param_groups for parameter in group["params"]}
    assert len(where) == sum(len(group["params"]) for group in made.param_groups), "none is in two groups"
    return {name: where[id(p)] for name, p in model.named_parameters() if id(p) in where}


def test_a_pattern_changes_rate_and_decay_of_the_parameters_it_matches_alone() -> None:
    recipe = Recipe(epochs=1, optimizer=AdamW(decay=0.2), by_name=(ByName("stages.1.*", rate=0.1, decay=0.5),))
    for name, group in groups(fresh(), recipe).items():
        inside = name.startswith("stages.1.")
        assert group["scale"] == (0.1 if inside else 1), name
        assert group["weight_decay"] == (0.1 if inside else 0.2), name


def test_where_several_patterns_match_their_factors_multiply_with_the_depths() -> None:
    patterns = (ByName("*.weight", rate=0.5), ByName("stem.*", rate=0.5, decay=0.0))
    found = groups(fresh(), Recipe(epochs=1, by_name=patterns, depth_decay=0.5))
    assert found["stem.conv.conv.weight"]["scale"] == 0.5 * 0.5 * 0.5**4
    assert found["stem.conv.conv.weight"]["weight_decay"] == 0
    assert found["head.classifier.weight"]["scale"] == 0.5
    assert found["head.classifier.bias"]["scale"] == 1


def test_by_default_normalisation_and_biases_do_not_decay_and_in_the_paper_only_normalisation() -> None:
    model = fresh()
    norms = {
        f"{name}.{part}"
        for name, m in model.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    biases = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    for recipe, bare in ((Recipe(epochs=1), biases), (named("paper").recipe, set())):
        found = groups(model, recipe)
        assert {name for name, group in found.items() if group["weight_decay"] == 0} == norms | bare
        assert len(found) == len(list(model.parameters()))


@pytest.mark.parametrize("optimizer", KINDS, ids=repr)
def test_a_rate_of_zero_freezes_and_the_rest_learns(optimizer: AdamW | SGD | RMSProp) -> None:
    model = fresh()
    before = {name: value.clone() for name, value in model.named_parameters()}
    patterns = (*NO_DECAY, ByName("stem.*", rate=0.0), ByName("stages.0.*", rate=0.0))
    recipe = Recipe(epochs=2, batch=16, by_name=patterns, optimizer=optimizer)
    train(model, prepare(some_digits(32), LOOK), recipe, CPU, seed=0, validate=lambda _: FAIR)
    for name, value in model.named_parameters():
        frozen = name.startswith(("stem.", "stages.0."))
        assert torch.equal(value, before[name]) == frozen, name


def test_a_rate_by_name_is_what_a_step_moves_by() -> None:
    moved = {}
    for rate in (1.0, 0.1):
        model = fresh()
        before = model.head.classifier.weight.detach().clone()
        patterns = (ByName("head.classifier.weight", rate=rate, decay=0.0),)
        recipe = Recipe(epochs=1, batch=32, by_name=patterns, optimizer=SGD(decay=0.0, momentum=0.0), clip=None)
        train(model, prepare(some_digits(32), LOOK), recipe, CPU, seed=0, validate=lambda _: FAIR)
        moved[rate] = model.head.classifier.weight.detach() - before
    torch.testing.assert_close(moved[0.1], 0.1 * moved[1.0], rtol=1e-3, atol=1e-7)


def test_a_pattern_that_matches_nothing_is_named_with_the_names_there_are() -> None:
    recipe = Recipe(epochs=1, by_name=(ByName("stages.7.*", rate=0.1),))
    with pytest.raises(
        UserError, match=r"by_name 'stages\.7\.\*' matches no parameter .* stem\.conv\.conv\.weight"
    ) as e:
        make_optimizer(fresh(), recipe)
    assert "\n" not in str(e.value)


def test_a_recipe_in_which_nothing_would_learn_is_refused() -> None:
    with pytest.raises(UserError, match="nothing would learn"):
        make_optimizer(fresh(), Recipe(epochs=1, by_name=(ByName("*", rate=0.0),)))


@given(depth=st.floats(0.1, 1), peak=st.floats(1e-5, 1))
def test_with_any_depth_decay_the_head_learns_at_the_full_rate_and_the_stem_slowest(depth: float, peak: float) -> None:
    recipe = Recipe(epochs=1, depth_decay=depth)
    found = groups(fresh(), replace(recipe, rate=replace(recipe.rate, peak=peak)))
    scales = [group["scale"] for group in found.values()]
    assert found["head.classifier.weight"]["scale"] == 1
    assert scales == sorted(scales)  # named_parameters goes from the stem to the head
    assert scales[0] == pytest.approx(depth**4)
