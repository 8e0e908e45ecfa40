"""What the augmentation policies promise: the published tables, the pixels of each operation, chance by position."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import peers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from triscale.data import Augment, Batches, Images, Preprocess
from triscale.data.chance import uniform
from triscale.data.operations import OPERATIONS, Step, apply
from triscale.data.pictures import Memory
from triscale.data.policies import (
    AMOUNTS,
    AUTOAUGMENT,
    POLICIES,
    RANDAUGMENT,
    SIGNED,
    TRIVIAL_AMOUNTS,
    TRIVIAL_STRENGTHS,
    TRIVIALAUGMENT,
    draws_for,
    steps,
)

Bytes = npt.NDArray[np.uint8]
ALL = sorted({*OPERATIONS, "cutout"})


def theirs(name: str) -> str:
    """timm's and torchvision's name of an operation."""
    return "AutoContrast" if name == "autocontrast" else "".join(part.capitalize() for part in name.split("_"))


def photograph(mode: str = "RGB", h: int = 37, w: int = 50) -> Image.Image:
    rows, columns = np.mgrid[:h, :w]
    wave = 120 + 80 * np.sin(rows[..., None] / (5, 9, 13)) * np.cos(columns[..., None] / (11, 4, 7))
    noise = np.random.default_rng(0).normal(0, 12, wave.shape)
    return Image.fromarray(np.clip(wave + noise, 3, 249).astype(np.uint8)).convert(mode)


def bytes_of(image: Image.Image) -> Bytes:
    return np.asarray(image)


def test_autoaugment_is_the_published_table() -> None:
    peer = peers.load("timm.data.auto_augment")
    policy = peer.auto_augment_policy_v0({"translate_const": 250})
    assert len(policy) == len(AUTOAUGMENT) == 25
    for pair, published in zip(AUTOAUGMENT, policy, strict=True):
        found = [(op.name.removesuffix("Rel"), op.prob, op.magnitude) for op in published]
        assert [(theirs(name), probability, level) for name, probability, level in pair] == found


def test_the_operations_of_randaugment_and_trivialaugment_are_the_published_ones() -> None:
    assert len(RANDAUGMENT) == len(set(RANDAUGMENT)) == 16
    assert set(AMOUNTS) == set(RANDAUGMENT)
    peer = peers.load("torchvision.transforms.autoaugment").TrivialAugmentWide()
    space = peer._augmentation_space(TRIVIAL_STRENGTHS)
    assert {theirs(name) for name in TRIVIALAUGMENT} == set(space)
    assert {theirs(name) for name in TRIVIALAUGMENT if name in SIGNED} == {
        name for name, (_, signed) in space.items() if signed and name not in ("Brightness", "Color", "Contrast")
    } - {"Sharpness"}
    assert set(TRIVIAL_AMOUNTS) == set(TRIVIALAUGMENT)


@pytest.mark.parametrize("level", [0, 0.7, 1, 3, 5, 8, 9, 10, 15, 28])
def test_levels_are_those_of_the_official_code(level: float) -> None:
    """As timm has carried them over; its posterize may leave no bit, its solarize_add ends at 128."""
    peer = peers.load("timm.data.auto_augment")
    same = ("rotate", "shear_x", "shear_y", "color", "contrast", "brightness", "sharpness", "solarize")
    for name in same:
        expected = abs(peer.LEVEL_TO_ARG[theirs(name)](level, {})[0])
        assert AMOUNTS[name](level) == pytest.approx(expected) or (name == "solarize" and level > 10)
    assert AMOUNTS["posterize"](level) == min(8, max(1, peer.LEVEL_TO_ARG["Posterize"](level, {})[0]))
    assert min(128, AMOUNTS["solarize_add"](level)) == peer.LEVEL_TO_ARG["SolarizeAdd"](level, {})[0]


@pytest.mark.parametrize("strength", range(TRIVIAL_STRENGTHS))
def test_strengths_of_trivialaugment_are_within_a_step_of_the_peers(strength: int) -> None:
    """The authors' code counts enhancement from 0.01 to 2 and truncates; torchvision's from 1 - 0.99 to 1 + 0.99."""
    space = peers.load("torchvision.transforms.autoaugment").TrivialAugmentWide()._augmentation_space(TRIVIAL_STRENGTHS)
    for name, step in (("shear_x", 1e-6), ("shear_y", 1e-6), ("rotate", 1), ("posterize", 1), ("solarize", 9)):
        assert abs(TRIVIAL_AMOUNTS[name](strength) - float(space[theirs(name)][0][strength])) <= step
    moved = TRIVIAL_AMOUNTS["translate_x"](strength) * 224
    assert moved == pytest.approx(float(space["TranslateX"][0][strength]), abs=1e-4)
    for name in ("color", "contrast", "brightness", "sharpness"):
        assert TRIVIAL_AMOUNTS[name](strength) == pytest.approx(0.01 + 1.99 * strength / 30)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("name", "amount"),
    [
        *[("posterize", bits) for bits in (1, 3, 7, 8)],
        *[("solarize", lowest) for lowest in (0, 100, 256)],
        *[("solarize_add", added) for added in (0, 33, 110)],
        *[(name, factor) for name in ("color", "contrast", "brightness", "sharpness") for factor in (0.1, 1.0, 1.9, 5)],
        *[("rotate", degrees) for degrees in (-30, 12.5, 90)],
        *[(name, slope) for name in ("shear_x", "shear_y") for slope in (-0.3, 0.12)],
        *[(name, 0) for name in ("equalize", "autocontrast", "invert")],
    ],
)
def test_pixels_of_an_operation_are_those_of_timm(mode: str, name: str, amount: float) -> None:
    peer = peers.load("timm.data.auto_augment")
    image = photograph(mode)
    options = {"fillcolor": 128 if mode == "L" else (128, 128, 128), "resample": Image.Resampling.NEAREST}
    arguments = () if name in ("equalize", "autocontrast", "invert") else (amount,)
    expected = peer.NAME_TO_OP[theirs(name)](image, *arguments, **options)
    assert np.array_equal(bytes_of(apply(image, Step(name, amount))), bytes_of(expected))


@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
def test_a_translation_is_a_share_of_the_side(name: str) -> None:
    image = photograph()
    moved = bytes_of(apply(image, Step(name, 0.2)))
    if name == "translate_x":
        assert np.array_equal(moved[:, :40], bytes_of(image)[:, 10:])
        assert (moved[:, 40:] == 128).all()
    else:
        peer = peers.load("timm.data.auto_augment")
        options = {"fillcolor": (128,) * 3, "resample": Image.Resampling.NEAREST}
        assert np.array_equal(moved, bytes_of(peer.translate_y_rel(image, 0.2, **options)))


def test_no_level_moves_a_picture_out_of_sight() -> None:
    for level in (10, 15, 30):
        for name in ("translate_x", "translate_y"):
            assert AMOUNTS[name](level) == pytest.approx(100 / 224)
        assert AMOUNTS["cutout"](level) == pytest.approx(40 / 224)


def test_cutout_is_a_gray_square_cut_off_at_the_edges() -> None:
    image = Image.new("RGB", (40, 20), (1, 2, 3))
    gray = (bytes_of(apply(image, Step("cutout", 0.25, (0.5, 0.5)))) == 128).all(axis=2)
    assert (int(gray.sum()), gray[5:15, 15:25].all()) == (100, True)
    corner = (bytes_of(apply(image, Step("cutout", 0.25, (0.0, 0.99)))) == 128).all(axis=2)
    assert (int(corner.sum()), corner[14:, :5].all()) == (30, True)


@given(
    name=st.sampled_from(ALL),
    mode=st.sampled_from(["L", "RGB"]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    level=st.floats(0, 30),
    back=st.booleans(),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_operations_keep_mode_and_size_of_any_picture(
    name: str, mode: str, size: tuple[int, int], level: float, back: bool, place: tuple[float, float]
) -> None:
    image = photograph(mode, *size)
    before = bytes_of(image).copy()
    amount = AMOUNTS.get(name, lambda _: 0.0)(level)
    changed = apply(image, Step(name, -amount if back and name in SIGNED else amount, place))
    assert (changed.mode, changed.size) == (mode, size[::-1])
    assert np.array_equal(bytes_of(image), before), "what it is made of stays as it is"


@pytest.mark.parametrize("policy", POLICIES)
def test_every_choice_of_a_policy_is_as_likely(policy: str) -> None:
    n, layers = 20_000, 3
    rows = uniform((9,), np.arange(n), draws_for(policy, layers))  # type: ignore[arg-type]
    found = [steps(policy, layers, 9.0, row) for row in rows]  # type: ignore[arg-type]
    names = Counter(step.name for each in found for step in each)
    backward = np.mean([step.amount < 0 for each in found for step in each if step.name == "rotate" and step.amount])
    assert abs(backward - 0.5) < 0.05
    if policy == "autoaugment":
        published = Counter[str]()
        for pair in AUTOAUGMENT:
            for name, probability, _ in pair:
                published[name] += probability * n / 25  # type: ignore[assignment]
        assert all(abs(names[name] - published[name]) < 5 * published[name] ** 0.5 for name in published)
    else:
        known, each = (RANDAUGMENT, layers) if policy == "randaugment" else (TRIVIALAUGMENT, 1)
        assert {len(row) for row in found} == {each}
        assert set(names) == set(known)
        expected = n * each / len(known)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in names.values())


def test_trivialaugment_takes_every_strength() -> None:
    rows = uniform((9,), np.arange(20_000), 3)
    slopes = {step.amount for row in rows for step in steps("trivialaugment", 1, 0, row) if step.name == "shear_x"}
    assert len(slopes) == 2 * TRIVIAL_STRENGTHS - 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_batches_carry_the_policy_out(policy: str, channels: int) -> None:
    mode = "L" if channels == 1 else "RGB"
    values = np.repeat(bytes_of(photograph(mode, 28, 28)).reshape(1, 28, 28, channels), 12, axis=0)
    images = Images(np.zeros(12, np.int64), tuple(map(str, range(12))), (b"",) * 12, Memory(values))
    look = Preprocess((28, 28), channels, (0.5,) * channels, (0.5,) * channels)
    augment = Augment(shift=0.0, policy=policy, layers=2, magnitude=7.0)  # type: ignore[arg-type]
    (batch,) = Batches(images, look, 12, augment=augment, seed=3, epoch=1)
    rows = uniform((3, 4, 1), np.arange(12), draws_for(policy, 2))  # type: ignore[arg-type]
    for x, row in zip(batch.x, rows, strict=True):
        image = photograph(mode, 28, 28)
        for step in steps(policy, 2, 7.0, row):  # type: ignore[arg-type]
            image = apply(image, step)
        assert np.array_equal(x.permute(1, 2, 0).numpy(), bytes_of(image).reshape(28, 28, channels))
