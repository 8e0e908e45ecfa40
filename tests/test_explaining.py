"""Maps that add up to the logit, that lie where the network looked, and that do not survive random weights."""

import copy
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from triscale.arch import Architecture, Conv, Head, MBConv, Norm, Stage, Stem, adapt, multiply, published
from triscale.data import Preprocess
from triscale.data.preprocessing import resample
from triscale.errors import UserError
from triscale.explaining import (
    Explained,
    Gallery,
    Maps,
    check_sanity,
    choose,
    class_activation_maps,
    explain,
    grad_cam,
    named,
    overlay,
    rank_correlation,
    sanity_check,
)
from triscale.explaining.drawing import paint, whole
from triscale.explaining.seeing import around, seen_box, show, spread, window
from triscale.explaining.sheets import CELL, capacity, sheet
from triscale.fitting import Fitted
from triscale.models import Model, load, predict
from triscale.models.model import new
from triscale.nn.network import Network, build

TINY = Architecture(
    (Stage(MBConv(3, 2), 8, 2, 2), Stage(MBConv(3, 2), 16, 1, 2)),
    stem=Stem(8),
    head=Head(3, 16),
    resolution=(48, 64),
    name="tiny-network",
)
LOOK = Preprocess((48, 64), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), crop=0.9)
CLASSES = ("great white shark", "tiger", "$x^2$ 狗")


def small(name: str) -> Network:
    """A published network, as narrow, shallow and blind as it gets, with biases that are not 0."""
    network = build(multiply(adapt(published(name), resolution=(32, 40), classes=5), depth=0.2, width=0.25), seed=1)
    nn.init.normal_(network.head.classifier.bias, generator=torch.Generator().manual_seed(0))
    return network.eval()


def tiny(seed: int = 0, architecture: Architecture = TINY, look: Preprocess = LOOK) -> Model:
    model = new(architecture, CLASSES, look, seed=seed).eval()
    model.trained = True
    return model


def noise(n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).resize((160, 107)).save(place / f"{name}.png")
    return place


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


LOOKS = [LOOK, replace(LOOK, crop=1.0), replace(LOOK, squash=True), replace(LOOK, interpolation="bilinear", crop=0.5)]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("size", [(107, 160), (30, 20), (200, 90)])
def test_what_is_shown_is_what_the_network_sees(look: Preprocess, size: tuple[int, int]) -> None:
    picture = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(size[::-1]))
    box = seen_box(look, size)
    assert np.array_equal(resample(picture, box, look.resolution, 3, look.interpolation), look.fit(picture))
    shown = show(picture, box)
    assert min(shown.shape[:2]) >= 320
    again = np.asarray(Image.fromarray(shown).resize(look.resolution[::-1], Image.Resampling.BOX), np.float32)
    assert np.abs(again - look.fit(picture)).mean() < 8, "the same part, on the same scale"


def bright(look: Preprocess) -> Model:
    """A network whose map for its second class is the brightness of its input, pixel by pixel."""
    architecture = Architecture(
        (Stage(Conv(1, "none"), 1),), stem=Stem(1, 1, 1, activation="none"), head=Head(3, None), resolution=(48, 64)
    )
    model = tiny(0, architecture, look)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0 if parameter.ndim == 4 else 0.0)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.fill_(1)
        model.head.classifier.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0]]))
    return model


@pytest.mark.parametrize(
    "look", [replace(LOOK, mean=(0.0,) * 3, crop=0.5), replace(LOOK, mean=(0.0,) * 3, squash=True)]
)
def test_evidence_lies_where_it_is_in_the_picture(look: Preprocess, tmp_path: Path) -> None:
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[90:130, 230:270] = 255  # (110, 250) is its middle
    Image.fromarray(picture).save(tmp_path / "square.png")
    [found] = explain(bright(look), tmp_path / "square.png", label="tiger")
    [each] = found.explanations
    drawn = overlay(found, each).astype(np.float64)
    orange = drawn[:, :, 0] - drawn[:, :, 2]
    rows, columns = np.indices(orange.shape)
    left, top, right, bottom = each.box
    y = top + ((orange * (rows + 0.5)).sum() / orange.sum()) / orange.shape[0] * (bottom - top)
    x = left + ((orange * (columns + 0.5)).sum() / orange.sum()) / orange.shape[1] * (right - left)
    assert y == pytest.approx(110, abs=4)
    assert x == pytest.approx(250, abs=4)
    [against] = explain(bright(look), tmp_path / "square.png", label=CLASSES[2])
    blue = overlay(against, against.explanations[0]).astype(np.float64)
    assert (blue[:, :, 2] - blue[:, :, 0]).max() > 100
    assert (blue[:, :, 0] - blue[:, :, 2]).max() <= 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_a_map_that_is_spread_keeps_its_range_its_sides_and_its_positions(
    h: int, w: int, height: int, width: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    wide = spread(values, (height, width))
    assert wide.shape == (height, width)
    assert values.min() - 1e-5 <= wide.min() <= wide.max() <= values.max() + 1e-5
    np.testing.assert_allclose(spread(values[::-1, ::-1], (height, width)), wide[::-1, ::-1], atol=1e-5)
    np.testing.assert_allclose(spread(values, (3 * h, 5 * w))[1::3, 2::5], values, atol=1e-5)


@given(st.integers(0, 255), st.floats(0.25, 1))
def test_evidence_against_never_looks_like_evidence_for(shade: int, strength: float) -> None:
    picture = np.full((1, 3, 3), shade, np.uint8)
    (against, nothing, support) = paint(picture, np.array([[-strength, 0, strength]], np.float32))[0].astype(int)
    assert nothing[0] == nothing[1] == nothing[2]
    assert support[0] - support[2] > 30 * strength
    assert against[2] - against[0] > 30 * strength


def test_what_a_network_did_not_see_carries_no_colour(photos: Path) -> None:
    models = {"narrow": tiny(0, look=replace(LOOK, crop=0.5)), "wide": tiny(1, look=replace(LOOK, crop=1.0))}
    found = next(explain(models, photos))
    narrow, wide = found.explanations
    assert found.picture is not None
    drawn = whole(found, narrow).astype(int)
    assert overlay(found, wide).shape == found.picture.shape
    assert overlay(found, narrow).shape[0] == pytest.approx(found.picture.shape[0] / 2, abs=1)
    outside = np.ones(drawn.shape[:2], bool)
    outside[narrow.seen] = False
    assert (np.ptp(drawn[outside], axis=1) == 0).all()
    assert np.ptp(drawn[narrow.seen], axis=2).max() > 0


@given(st.lists(st.floats(0, 100), min_size=2, max_size=2, unique=True), st.integers(1, 300))
def test_a_window_holds_at_least_a_pixel_within_what_is_shown(edges: list[float], pixels: int) -> None:
    low, high = sorted(edges)
    rows, columns = window((low, low, high, high), (0, 0, 100, 100), (pixels, pixels))
    assert 0 <= rows.start < rows.stop <= pixels
    assert rows == columns
    assert around([(3, 4, 5, 6), (1, 5, 4, 9)]) == (1, 4, 5, 9)


def test_explanations_agree_with_what_predict_says(fitted: Fitted, digits: Path) -> None:
    guesses = list(predict(fitted.run.path, digits, top=1))
    found = list(explain(fitted.run.path, digits))
    assert len(found) == 60
    for one, guess in zip(found, guesses, strict=True):
        [each] = one.explanations
        assert one.path == guess.path
        assert (each.label, each.probability) == (guess.classes[0][0], pytest.approx(guess.classes[0][1], abs=1e-5))
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


def test_pictures_beyond_the_most_are_left_out_evenly(digits: Path) -> None:
    every, left = choose(digits)
    assert (len(every), left) == (60, 0)
    some, left = choose(digits, 7)
    assert (len(some), left) == (7, 53)
    assert {path.parent.name for path in some} == {"digit-0", "digit-1", "digit-2"}


def written(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the texts that are drawn from now on."""
    own = Figure.text

    def text(self: Figure, x: float, y: float, s: str, **how: object) -> object:
        drawn.append(s)
        return own(self, x, y, s, **how)

    monkeypatch.setattr(Figure, "text", text)


def test_a_sheet_says_which_network_finds_what_where_and_how_likely(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    written(drawn, monkeypatch)
    found = list(explain({"first": tiny(0), "second": tiny(1)}, photos))
    content = sheet(found, ["first", "second"])
    image = Image.open(io.BytesIO(content))
    assert image.width > 3 * CELL
    assert image.height > 2 * CELL * 48 / 64
    assert {"first", "second", "china.png", "flower.png", "48×64 pixels, map 6×8"} <= set(drawn)
    for one in found:
        for each in one.explanations:
            assert each.label in drawn
            assert f"{100 * each.probability:.1f} %, logit {each.logit:.1f}" in drawn
    assert sheet(found, ["first", "second"]) == content, "the same values give the same bytes"


def test_a_sheet_stands_any_name(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    written(drawn, monkeypatch)
    places = [tmp_path / name for name in (f"{'W' * 200}.png", "$a_$ 狗 \U0001f436.png", "two\nlines.png")]
    for place in places:
        Image.open(photos / "china.png").save(place)
    model = tiny()
    model.classes = ("", "an unusually long name of a class " * 20, "$x^2$ 狗")
    for label in model.classes:
        sheet(list(explain({"N" * 300: model}, places, label=label)), ["N" * 300])
    assert not any("\n" in text or len(text) > 100 for text in drawn)
    assert "$x^2$ 狗" in drawn
    assert sum(text.startswith("an unusually long") for text in drawn) == 3, "two lines each, the first of them"


def test_a_class_that_is_not_the_likeliest_stands_beside_what_is_said(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    written(drawn, monkeypatch)
    [one, _] = explain(tiny(), photos)
    said = one.explanations[0].label
    other = next(label for label in CLASSES if label != said)
    sheet(list(explain(tiny(), photos / "china.png", label=other)), ["net"])
    assert any(f"; says {said}"[:12] in text for text in drawn)


def test_files_of_a_gallery_never_share_a_name(photos: Path, tmp_path: Path) -> None:
    models = {"a/b": tiny(0), "a?b": tiny(1)}
    pictures = [photos / "china.png", photos / "china.png", photos / "flower.png"]
    gallery = Gallery(tmp_path / "out", list(models))
    files = [file for one in explain(models, pictures) for file in gallery.add(one)]
    sheets = gallery.finish()
    assert len({str(file).casefold() for file in (*files, *sheets)}) == 7
    assert sorted((tmp_path / "out").iterdir()) == sorted([*files, *sheets])
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) >= 320


def test_many_pictures_go_to_several_sheets(digits: Path, fitted: Fitted, tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "out", ["run"])
    pictures, _ = choose(digits, capacity(1) + 1)
    for one in explain({"run": load(fitted.run.path)}, pictures):
        gallery.add(one)
    assert [place.name for place in gallery.finish()] == ["sheet.png", "sheet-2.png"]


def test_a_gallery_without_pictures_leaves_nothing_and_overwrites_nothing(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "out", ["net"])
    assert gallery.add(Explained(tmp_path / "torn.png", error="torn")) == ()
    assert gallery.finish() == ()
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="full"):
        Gallery(tmp_path / "full", ["net"])


def edges(network: Network, x: Tensor, classes: Sequence[int]) -> Maps:
    """A map that looks convincing and asks the network nothing."""
    values = nn.functional.avg_pool2d(x.std(1, keepdim=True), 8)[:, 0]
    return Maps(values, network(x), torch.tensor(classes))


def test_a_map_that_ignores_the_network_is_called_out() -> None:
    found = sanity_check(tiny(), noise(4, (48, 64)), [0, 1, 2, 0], maps=edges)
    assert (found.correlation, found.low, found.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert found.signed == pytest.approx(1)
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
    distances = []
    for values, middle in zip(maps.values.numpy(), middles, strict=True):
        peak = np.unravel_index(spread(values, (48, 64)).argmax(), (48, 64))
        distances.append(math.dist(np.add(peak, 0.5), middle))
    assert np.median(distances) < 14, "in the square or beside it; the squares of other pictures are over 20 away"


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
