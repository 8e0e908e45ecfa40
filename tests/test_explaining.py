"""Maps that add up to the logit, that lie where the network looked, and that do not survive random weights."""

import copy
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explained import CLASSES, LOOK, TINY, tiny
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor, nn

from triscale.arch import Norm, adapt, multiply, published
from triscale.errors import UserError
from triscale.explaining import (
    Maps,
    Sanity,
    check_sanity,
    choose,
    class_activation_maps,
    explain,
    explain_files,
    grad_cam,
    named,
    rank_correlation,
    sanity_check,
)
from triscale.explaining.sanity import MapMaker
from triscale.explaining.seeing import spread
from triscale.fitting import Fitted
from triscale.models import Model, predict
from triscale.models.model import new
from triscale.nn.network import Network, build


def small(name: str) -> Network:
    """A published network, as narrow, shallow and blind as it gets, with biases that are not 0."""
    network = build(multiply(adapt(published(name), resolution=(32, 40), classes=5), depth=0.2, width=0.25), seed=1)
    nn.init.normal_(network.head.classifier.bias, generator=torch.Generator().manual_seed(0))
    return network.eval()


def noise(n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))


FAMILIES = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet18", "resnet50")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_map_sums_to_the_logit_without_its_bias(name: str) -> None:
    network, x = small(name), noise(4, (32, 40))
    with torch.no_grad():
        logits = network(x)
    for classes in (None, [0, 3, 4, 1]):
        found = class_activation_maps(network, x, classes)
        expected = logits.argmax(1) if classes is None else torch.tensor(classes)
        torch.testing.assert_close(found.logits, logits)
        assert torch.equal(found.classes, expected)
        bias = network.head.classifier.bias.detach()[expected]
        torch.testing.assert_close(found.values.sum((1, 2)), logits.gather(1, expected[:, None])[:, 0] - bias)
        assert found.values[0].std() > 0, "positions differ"


@pytest.mark.parametrize("name", FAMILIES)
def test_grad_cam_at_the_last_features_is_the_positive_part_of_the_exact_map(name: str) -> None:
    network, x = small(name), noise(3, (32, 40))
    last = network.stages[-1] if network.architecture.head.channels is None else network.head.conv
    exact = class_activation_maps(network, x, [4, 2, 0])
    found = grad_cam(network, last, x, [4, 2, 0])
    assert exact.values.min() < 0 < exact.values.max()
    torch.testing.assert_close(found.values, exact.values.relu())
    torch.testing.assert_close(found.logits, exact.logits)


class Foreign(nn.Module):
    """A network of another kind: activations that write into their input, a head of two layers, one part used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6))
        self.activation = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 4, 3)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 5 * 5, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        out: Tensor = self.head(self.activation(self.second(x)))
        return out


def test_grad_cam_is_the_paper_s_equation_for_any_module_at_any_layer() -> None:
    torch.manual_seed(0)
    module, x = Foreign().eval(), noise(2, (15, 15))
    features = module.first(x).detach().requires_grad_()
    logits = module.head(module.activation(module.second(features.relu())))
    gradient = torch.autograd.grad(logits[0, 2] + logits[1, 1], features)[0]
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
    for context in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
        with context:
            found = grad_cam(module, module.first, x, [2, 1])
        torch.testing.assert_close(found.values, expected)
        torch.testing.assert_close(found.logits, logits.detach())
    assert expected.max() > 0


def test_grad_cam_leaves_a_module_as_it_was() -> None:
    module = Foreign().train()
    module.first[1].eval()
    module.second.weight.requires_grad_(False)
    module.first[0].weight.grad = torch.ones_like(module.first[0].weight)
    before = copy.deepcopy(module)
    before.first[0].weight.grad = torch.ones_like(module.first[0].weight)  # a copy has none
    grad_cam(module, module.second, noise(2, (15, 15)))
    with pytest.raises(UserError):
        grad_cam(module, module.head, noise(2, (15, 15)))
    for part, was in zip(module.modules(), before.modules(), strict=True):
        assert part.training == was.training
        assert not part._forward_hooks
    for (name, tensor), (_, was) in zip(module.named_parameters(), before.named_parameters(), strict=True):
        assert torch.equal(tensor, was), name
        assert tensor.requires_grad == was.requires_grad, name
        assert (tensor.grad is None) == (was.grad is None), name
        assert tensor.grad is None or torch.equal(tensor.grad, was.grad), name
    for one, two in zip(module.buffers(), before.buffers(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda module: nn.Conv2d(3, 3, 1), "no part"),
        (lambda module: module.unused, "not at all"),
        (lambda module: module.activation, "2 times"),
        (lambda module: module.head, "2-d"),
    ],
)
def test_a_layer_that_has_no_map_is_refused(layer, named: str) -> None:  # noqa: ANN001
    module = Foreign()
    with pytest.raises(UserError, match=named) as caught:
        grad_cam(module, layer(module), noise(1, (15, 15)))
    assert "\n" not in str(caught.value)


def test_classes_that_do_not_fit_are_refused() -> None:
    network, x = tiny(), noise(2, (48, 64))
    for classes in ([0], [0, 3], [-1, 0]):
        with pytest.raises(UserError):
            class_activation_maps(network, x, classes)
        with pytest.raises(UserError):
            grad_cam(network, network.stages[0], x, classes)


def test_a_network_in_training_is_looked_at_as_it_would_answer_and_goes_on_training() -> None:
    network, x = tiny(), noise(2, (48, 64))
    expected = class_activation_maps(network, x)
    network.train()
    network.stem.eval()
    found = class_activation_maps(network, x)
    assert torch.equal(found.values, expected.values)
    assert network.training
    assert network.head.training
    assert not network.stem.training


def test_explanations_agree_with_what_predict_says(fitted: Fitted, digits: Path) -> None:
    guesses = list(predict(fitted.run.path, digits, top=1))
    found = list(explain(fitted.run.path, digits))
    assert len(found) == 60
    for one, guess in zip(found, guesses, strict=True):
        [each] = one.explanations
        assert one.path == guess.path
        assert (each.label, each.probability) == (guess.classes[0][0], pytest.approx(guess.classes[0][1], abs=1e-4))
        assert each.likeliest == (each.label, each.probability)
        assert each.total == pytest.approx(each.logit - each.bias, abs=1e-4)


def test_a_named_class_is_explained_beside_the_likeliest(photos: Path) -> None:
    for one in explain({"a": tiny(0), "b": tiny(1)}, photos, label="tiger"):
        assert [each.label for each in one.explanations] == ["tiger", "tiger"]
        for each in one.explanations:
            assert each.index == 1
            assert each.probability <= each.likeliest[1]


def test_an_earlier_stage_is_explained_by_grad_cam(photos: Path) -> None:
    [one, _] = explain(tiny(), photos, stage=0)
    [each] = one.explanations
    assert (each.method, each.stage) == ("grad-cam", 0)
    assert each.values.shape == (12, 16)
    assert each.values.min() >= 0


def test_a_picture_that_cannot_be_read_does_not_hide_the_others(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    found = list(explain(tiny(), [tmp_path / "torn.png", photos]))
    assert [one.error is None for one in found] == [False, True, True]
    assert "torn.png" in (found[0].error or "")
    assert found[0].explanations == ()


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"label": "shark"}, ["shark", "'great white shark'"]),
        ({"label": "tigre"}, ["tigre", "'tiger'"]),
        ({"label": "螃蟹"}, ["螃蟹", "'tiger'"]),
        ({"label": ""}, ["''", "'tiger'"]),
        ({"stage": 2}, ["2", "0 to 1"]),
        ({"stage": -1}, ["-1", "0 to 1"]),
    ],
)
def test_a_class_or_a_stage_that_is_not_there_is_named_with_those_that_are(
    photos: Path, how: dict[str, str | int], named: Sequence[str]
) -> None:
    with pytest.raises(UserError) as caught:
        explain(tiny(), photos, **how)
    assert all(part in str(caught.value) for part in named)
    assert "\n" not in str(caught.value)


def test_networks_that_cannot_be_explained_are_refused(photos: Path) -> None:
    for network in (new(TINY, CLASSES, LOOK), []):
        with pytest.raises(UserError):
            explain(network, photos)
    many = tiny(0, replace(TINY, channels=5), replace(LOOK, channels=5, mean=(0.5,) * 5, std=(0.2,) * 5))
    with pytest.raises(UserError, match="5 channels"):
        explain(many, photos)


def test_networks_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    places = []
    for folder in ("a/run", "b/run", "c"):
        (tmp_path / folder).mkdir(parents=True)
        tiny().save(tmp_path / folder / "model.safetensors")
        places.append(tmp_path / folder)
    assert list(named(places[0])) == ["run"]
    assert list(named([places[0], places[2]])) == ["run", "c"]
    assert list(named(places[:2])) == [str(places[0]), str(places[1])]
    assert list(named([tiny(), tiny()])) == ["tiny-network", "tiny-network (2)"]


def test_a_picture_that_goes_after_it_was_found_does_not_hide_the_others(photos: Path, tmp_path: Path) -> None:
    files, _ = choose(shutil.copytree(photos, tmp_path / "copy"))
    files[0].unlink()
    first, *others = explain_files(tiny(), files)
    assert "no such file" in (first.error or "")
    assert others
    assert all(one.explanations for one in others)


def test_pictures_beyond_the_most_are_left_out_evenly(digits: Path) -> None:
    every, left = choose(digits)
    assert (len(every), left) == (60, 0)
    some, left = choose(digits, 7)
    assert (len(some), left) == (7, 53)
    assert {path.parent.name for path in some} == {"digit-0", "digit-1", "digit-2"}


def edges(network: Network, x: Tensor, classes: Sequence[int]) -> Maps:
    """A map that looks convincing and asks the network nothing."""
    values = nn.functional.avg_pool2d(x.std(1, keepdim=True), 8)[:, 0]
    return Maps(values, network(x), torch.tensor(classes))


def test_a_map_that_ignores_the_network_is_called_out() -> None:
    found = sanity_check(tiny(), noise(4, (48, 64)), [0, 1, 2, 0], maps=edges)
    assert (found.correlation, found.low, found.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert found.signed == pytest.approx(1)
    assert found.other < 0.5, "the map of another picture is another one"
    assert not found.explains_network
    assert "explain the picture, not the network" in found.verdict


def test_a_map_that_only_turns_its_sign_with_the_weights_is_called_out() -> None:
    def flipping(network: Network, x: Tensor, classes: Sequence[int]) -> Maps:
        found = edges(network, x, classes)
        return found._replace(values=found.values * network.head.classifier.weight[0, 0].sign())

    found = sanity_check(tiny(), noise(4, (48, 64)), [0, 1, 2, 0], maps=flipping)
    assert not found.explains_network


def squares(n: int, seed: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Noise with a square of 16 pixels that is red, green or blue, the class of each, and the square's middle."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 * torch.randn(n, 3, 48, 64, generator=generator)
    classes = torch.randint(0, 3, (n,), generator=generator)
    middles = []
    for one, colour in zip(x, classes, strict=True):
        top, left = (int(torch.randint(0, most, (1,), generator=generator)) for most in (32, 48))
        one[colour, top : top + 16, left : left + 16] += 3
        middles.append((top + 8, left + 8))
    return x, classes, middles


@pytest.fixture(scope="module")
def learned(one_thread: None) -> Model:
    """A network that has learned to tell squares by their colour, wherever they lie."""
    model = tiny(0, replace(TINY, norm=Norm(1e-3, 0.8))).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(40):
        x, classes, _ = squares(24, step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), classes).backward()
        optimiser.step()
    return model.eval()


def test_the_evidence_for_what_was_learned_lies_where_it_is(learned: Model) -> None:
    x, classes, middles = squares(24, 1000)
    maps = class_activation_maps(learned, x, classes.tolist())
    assert (maps.logits.argmax(1) == classes).float().mean() > 0.9
    stronger = []
    for values, (row, column) in zip(maps.values.numpy(), middles, strict=True):
        wide = spread(values, (48, 64))
        inside = np.zeros_like(wide, bool)
        inside[row - 8 : row + 8, column - 8 : column + 8] = True
        stronger.append((wide[inside].mean() - wide[~inside].mean()) / wide.std())
    assert np.median(stronger) > 0.5, "in deviations of the map: more evidence in the square than beside it"


def test_exact_maps_of_what_was_learned_are_not_called_out(learned: Model) -> None:
    before = {name: tensor.clone() for name, tensor in learned.state_dict().items()}
    x, classes, _ = squares(12, 1001)
    found = sanity_check(learned, x, classes.tolist())
    assert found.explains_network
    assert 0 <= found.low <= found.correlation <= found.high
    assert abs(found.signed) <= found.correlation
    assert 0 < found.other < 1
    assert (found.seeds, found.pictures) == (5, 12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learned.state_dict().items())
    assert not sanity_check(learned, x, classes.tolist(), maps=edges).explains_network


def test_what_was_explained_is_checked_for_every_network(photos: Path) -> None:
    models = {"a": tiny(0), "b": tiny(1)}
    found = list(explain(models, photos))
    checks = check_sanity(models, found, seeds=2)
    for name, place in (("a", 0), ("b", 1)):
        x = torch.stack([LOOK(one.path) for one in found])
        expected = sanity_check(models[name], x, [one.explanations[place].index for one in found], seeds=2)
        assert checks[name] == expected
    assert checks["a"] != checks["b"]


def test_a_map_of_one_value_is_no_evidence_and_one_picture_has_no_other() -> None:
    def flat(network: Network, x: Tensor, classes: Sequence[int]) -> Maps:
        return Maps(torch.zeros(len(x), 3, 3), network(x), torch.tensor(classes))

    found = sanity_check(tiny(), noise(1, (48, 64)), [0], maps=flat, seeds=2)
    assert math.isnan(found.correlation)
    assert math.isnan(found.other)
    assert "nothing" in found.verdict
    assert not found.explains_network
    assert "nan" not in str(found)


def partly_flat(flat: int, value: float) -> MapMaker:
    """Maps that do not survive random weights, but of the first few pictures those of the network hold one value."""
    asked = 0

    def maps(network: Network, x: Tensor, classes: Sequence[int]) -> Maps:
        nonlocal asked
        asked += 1
        values = noise(len(x), (8, 8), asked)[:, 0]
        if asked == 1:
            values[:flat] = value
        return Maps(values, network(x), torch.tensor(classes))

    return maps


@pytest.mark.parametrize("value", [0.0, 0.3])
@pytest.mark.parametrize("flat", [3, 4])
def test_maps_that_are_mostly_flat_show_nothing_whatever_random_weights_give(flat: int, value: float) -> None:
    found = sanity_check(tiny(), noise(4, (48, 64)), [0, 1, 2, 0], maps=partly_flat(flat, value), seeds=2)
    assert found.flat == flat
    assert "show nothing" in found.verdict
    assert not found.explains_network


def test_a_flat_map_among_others_is_counted_neither_for_nor_against_them() -> None:
    found = sanity_check(tiny(), noise(4, (48, 64)), [0, 1, 2, 0], maps=partly_flat(1, 0.0), seeds=2)
    assert (found.flat, found.explains_network) == (1, True)
    assert "1 of the maps hold" in str(found)

    def mostly_edges(network: Network, x: Tensor, classes: Sequence[int]) -> Maps:
        maps = edges(network, x, classes)
        maps.values[0] = 0
        return maps

    found = sanity_check(tiny(), noise(3, (48, 64)), [0, 1, 2], maps=mostly_edges, seeds=2)
    assert found.correlation == pytest.approx(1), "the flat one is not taken for one that random weights change"


@given(
    correlation=st.floats(0, 1) | st.just(math.nan),
    other=st.floats(0, 1) | st.just(math.nan),
    flat=st.integers(0, 4),
)
def test_the_flag_claims_no_more_than_the_sentence(correlation: float, other: float, flat: int) -> None:
    found = Sanity(correlation, correlation, correlation, correlation, other, seeds=1, pictures=4, flat=flat)
    assert found.explains_network == ("depend on what the network has learned" in found.verdict)
    if math.isnan(other) and correlation >= 0.4:
        assert not found.explains_network


def test_a_check_of_nothing_is_refused() -> None:
    with pytest.raises(UserError):
        sanity_check(tiny(), noise(0, (48, 64)), [])
    with pytest.raises(UserError):
        check_sanity(tiny(), [])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30))
def test_rank_correlation_is_spearman_s(pairs: list[tuple[int, int]]) -> None:
    one, two = np.array(pairs).T
    found = rank_correlation(one, two)
    constant = [np.ptp(values) == 0 for values in (one, two)]
    if all(constant):
        assert math.isnan(found)
    elif any(constant):
        assert found == 0
    else:
        assert found == pytest.approx(spearmanr(one, two).statistic)
        assert rank_correlation(np.exp(one), 3 * two + 1) == pytest.approx(found), "only ranks count"
