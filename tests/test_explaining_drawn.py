"""What `explain` draws: what the networks saw, under its evidence, on sheets and as pictures of their own."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explained import CLASSES, LOOK, tiny
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from triscale.arch import Architecture, Conv, Head, Stage, Stem
from triscale.data import Preprocess
from triscale.data.preprocessing import resample
from triscale.errors import UserError
from triscale.explaining import Explained, Gallery, choose, explain, overlay
from triscale.explaining.drawing import paint, whole
from triscale.explaining.gallery import _safe
from triscale.explaining.seeing import around, seen_box, show, spread, window
from triscale.explaining.sheets import CELL, capacity, sheet
from triscale.fitting import Fitted
from triscale.models import Model, load

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


def test_names_of_a_gallerys_files_are_short_in_bytes_too() -> None:
    assert _safe("a b/ü") == "a_b_ü"
    assert len(_safe("写" * 99).encode()) <= 80
    assert set(_safe("写" * 99)) == {"写"}


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
