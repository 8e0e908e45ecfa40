"""Which changes leave a picture the same picture, and that pictures that merely look alike are not taken for copies."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from doctored import picture
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

from triscale.doctoring.likeness import Sketch, near_pairs, sketch

Change = Callable[[Image.Image], Image.Image]


def photographs() -> list[Image.Image]:
    """Parts of two photographs, none of which overlap."""
    parts = []
    for whole in load_sample_images().images:
        for top in range(0, 400, 200):
            parts += [Image.fromarray(whole[top : top + 200, left : left + 200]) for left in range(0, 600, 200)]
    return parts


def sketches(images: list[Image.Image]) -> list[Sketch]:
    return [sketch(np.asarray(image)[:, :, None] if image.mode == "L" else np.asarray(image)) for image in images]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "jpeg", quality=quality)
    return Image.open(out).convert("RGB")


CHANGES: dict[str, Change] = {
    "jpeg": lambda image: jpeg(image, 50),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: image.point(lambda level: min(255, round(level * 1.1))),
    "darker": lambda image: image.point(lambda level: round(level * 0.9)),
    "cropped": lambda image: image.crop((2, 2, image.width - 2, image.height - 2)),
    "at one side": lambda image: image.crop((0, 0, image.width - 4, image.height - 4)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "gray": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_no_other_pair(change: str) -> None:
    images = photographs()
    n = len(images)
    pairs = near_pairs(sketches([*images, *map(CHANGES[change], images)]))
    found = {(i, j) for i, j, _ in pairs}
    assert found <= {(i, i + n) for i in range(n)}
    assert len(found) >= n - 1
    assert all(0.96 <= likeness <= 1 for _, _, likeness in pairs)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.point(lambda level: 255 - level),
        lambda image: Image.fromarray(np.asarray(image)[:, :, [2, 0, 1]]),
    ],
    ids=["mirrored", "rotated", "negative", "other colours"],
)
def test_another_picture_is_no_copy(change: Change) -> None:
    images = [picture(seed) for seed in range(12)]
    assert near_pairs(sketches([*images, *map(change, images)])) == []


def test_all_pictures_of_a_series_are_found() -> None:
    whole = Image.fromarray(load_sample_images().images[0])
    series = [whole.crop((shift, 0, 400 + shift, 400)) for shift in range(0, 12, 2)]
    pairs = near_pairs(sketches([*photographs(), *series]))
    first = len(photographs())
    assert {i for pair in pairs for i in pair[:2]} >= set(range(first, first + 6))


def test_drawings_that_look_alike_are_no_flood() -> None:
    digits = [Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)) for image in load_digits().images]
    assert len(near_pairs(sketches(digits))) <= 2


def test_a_copy_among_drawings_that_look_alike_is_found() -> None:
    digits = [Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)) for image in load_digits().images]
    copies = [image.point(lambda level: round(level * 0.9)) for image in digits[:20]]
    found = {(i, j) for i, j, _ in near_pairs(sketches([*digits, *copies]))}
    assert {(i, len(digits) + i) for i in range(20)} <= found


def test_flat_pictures_have_no_near_duplicates() -> None:
    chance = np.random.default_rng(0)
    noisy = [chance.integers(100, 103, (40, 40, 3), dtype=np.uint8) for _ in range(6)]
    assert near_pairs([sketch(pixels) for pixels in noisy]) == []
    assert near_pairs([]) == []
    assert near_pairs([sketch(noisy[0])]) == []


def test_copies_are_found_over_many_leaves() -> None:
    """More pictures than lie in one leaf of the tree: none is lost between two of them."""
    chance = np.random.default_rng(0)
    images = [np.kron(chance.integers(0, 256, (8, 8, 1)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(3000)]
    copies = [np.clip(image.astype(int) + 9, 0, 255).astype(np.uint8) for image in images[::3]]
    pairs = near_pairs([sketch(pixels) for pixels in [*images, *copies]])
    assert {(i, j) for i, j, _ in pairs} == {(3 * k, 3000 + k) for k in range(1000)}
