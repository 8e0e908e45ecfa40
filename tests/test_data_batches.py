"""What `Batches` promises: order, augmentation, memory format and speed."""

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from triscale.data import Augment, Batches, Images, Preprocess, prepare, read
from triscale.data.chance import permutation, sample, uniform
from triscale.data.pictures import Memory
from triscale.errors import UserError

Bytes = npt.NDArray[np.uint8]
SMALL = Augment(shift=0.25, flip=True)
PHOTO = Augment(flip=True, crop_scale=(0.35, 1.0))


def in_memory(n: int, h: int = 8, w: int = 8, c: int = 3, seed: int = 0) -> Images:
    values = np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)
    return Images(np.arange(n) % 3, tuple(f"train/{i}" for i in range(n)), (b"",) * n, Memory(values))


def shape(h: int = 8, w: int = 8, c: int = 3) -> Preprocess:
    return Preprocess((h, w), c, (0.5,) * c, (0.5,) * c)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Images:
    root = tmp_path_factory.mktemp("photographs")
    chance = np.random.default_rng(0)
    for i in range(30):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        h, w = chance.integers(20, 40, 2)
        Image.fromarray(chance.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(path)
    return read(root).train


def by_index(batches: Batches) -> dict[int, torch.Tensor]:
    return {int(i): x[k] for x, _, index in batches for k, i in enumerate(index)}


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        all(torch.equal(a, b) for a, b in zip(left, right, strict=True)) for left, right in zip(one, other, strict=True)
    )


def test_a_batch_is_pixels_labels_and_positions() -> None:
    images = in_memory(10)
    batches = Batches(images, shape(), 4)
    parts = list(batches)
    assert len(parts) == len(batches) == 3
    assert [len(y) for _, y, _ in parts] == [4, 4, 2]
    held = images.array()
    assert held is not None
    for x, y, index in parts:
        assert x.dtype == torch.uint8
        assert x.shape[1:] == (3, 8, 8)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert y.dtype == index.dtype == torch.int64
        assert np.array_equal(x.permute(0, 2, 3, 1).numpy(), held[index.numpy()])
        assert np.array_equal(y.numpy(), images.labels[index.numpy()])
    assert (
        len(Batches(images, shape(), 4, drop_last=True)) == len(list(Batches(images, shape(), 4, drop_last=True))) == 2
    )


def test_an_epoch_sees_every_picture_once_in_an_order_of_its_own() -> None:
    images = in_memory(50)
    orders = [
        [int(i) for _, _, index in Batches(images, shape(), 8, shuffle=True, seed=seed, epoch=epoch) for i in index]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(50))]}) == 4


@pytest.mark.parametrize("augment", [None, SMALL, PHOTO])
@pytest.mark.parametrize("limit", [0, 2**20])
def test_threads_change_nothing(photographs: Images, augment: Augment | None, limit: int) -> None:
    prepared = [prepare(photographs, shape(12, 16), augment, limit=limit, threads=t) for t in (1, 4)]
    assert (prepared[0].cache is None) == (limit == 0)
    one, four = (
        Batches(p, shape(12, 16), 5, shuffle=True, augment=augment, seed=3, epoch=2, threads=t)
        for p, t in zip(prepared, (1, 4), strict=True)
    )
    assert same(one, four)
    assert same(one, one), "and it may be iterated again"


@pytest.mark.parametrize("augment", [SMALL, PHOTO])
@pytest.mark.parametrize("limit", [0, 2**20])
def test_augmentation_does_not_depend_on_the_rest_of_the_batch(
    photographs: Images, augment: Augment, limit: int
) -> None:
    prepared = prepare(photographs, shape(12, 16), augment, limit=limit)
    seen = [
        by_index(Batches(prepared, shape(12, 16), batch, shuffle=shuffle, augment=augment, seed=1, epoch=4))
        for batch, shuffle in ((4, True), (7, True), (20, False))
    ]
    for i, x in seen[0].items():
        assert torch.equal(x, seen[1][i])
        assert torch.equal(x, seen[2][i])


@pytest.mark.parametrize("augment", [SMALL, PHOTO])
def test_epochs_and_seeds_augment_differently(photographs: Images, augment: Augment) -> None:
    prepared = prepare(photographs, shape(12, 16), augment)
    first, later, other = (
        by_index(Batches(prepared, shape(12, 16), 8, augment=augment, seed=seed, epoch=epoch))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    for changed in (later, other):
        assert sum(not torch.equal(first[i], changed[i]) for i in first) > len(first) // 2


def test_cached_and_decoded_batches_are_the_same_without_random_crops(photographs: Images) -> None:
    cached = Batches(prepare(photographs, shape(9, 7), SMALL), shape(9, 7), 4, augment=SMALL)
    decoded = Batches(photographs, shape(9, 7), 4, augment=SMALL)
    assert same(cached, decoded)


def test_a_shift_is_a_shift_with_replicated_edges() -> None:
    images = in_memory(200, 8, 6, 1)
    held = images.array()
    assert held is not None
    augment = Augment(shift=0.25, flip=True)
    padded = np.pad(held[..., 0], ((0, 0), (2, 2), (1, 1)), mode="edge")
    kinds = set()
    for i, x in by_index(Batches(images, shape(8, 6, 1), 64, augment=augment)).items():
        found = [
            (dy, dx, mirrored)
            for dy in range(5)
            for dx in range(3)
            for mirrored in (False, True)
            if np.array_equal(x[0].numpy(), padded[i, dy : dy + 8, dx : dx + 6][:, :: -1 if mirrored else 1])
        ]
        assert len(found) == 1
        kinds.add(found[0])
    assert len(kinds) == 30, "every shift and mirror occurs"


def test_no_flip_unless_asked() -> None:
    images = in_memory(40)
    still = by_index(Batches(images, shape(), 8, augment=Augment(shift=0.0)))
    assert all(torch.equal(x, still[i]) for i, x in by_index(Batches(images, shape(), 8)).items())


@given(low=st.floats(0.05, 1.0), size=st.tuples(st.integers(1, 60), st.integers(1, 60)), seed=st.integers(0, 99))
def test_random_boxes_stay_inside_the_picture(low: float, size: tuple[int, int], seed: int) -> None:
    images = in_memory(3, *size)
    augment = Augment(crop_scale=(low, 1.0))
    for x, _, _ in Batches(images, shape(5, 8), 3, augment=augment, seed=seed, threads=1):
        assert x.shape == (3, 3, 5, 8)


def test_random_boxes_take_the_area_asked_for(photographs: Images) -> None:
    """A box of the whole area of a picture of the target's aspect shows nearly the picture itself."""
    values = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None], 64, axis=1)
    images = Images(np.zeros(1, np.int64), ("x",), (b"",), Memory(values))
    spans = []
    for epoch in range(200):
        x = next(iter(Batches(images, shape(32, 32, 1), 1, augment=Augment(crop_scale=(0.25, 0.25)), epoch=epoch)))[0]
        row = x[0, 0, 16].numpy()
        spans.append((int(row[-1]) - int(row[0])) / 255)
    assert 0.4 < min(spans) < 0.5 < max(spans) < 0.6, "a quarter of the area is half the side, give or take the aspect"


def test_a_split_in_memory_is_not_copied() -> None:
    images = in_memory(5)
    assert prepare(images, shape()).cache is images.array()
    assert prepare(images, shape(4, 4)).cache is not images.array()


def test_batches_are_copies_of_what_is_held() -> None:
    images = in_memory(6)
    held = images.array()
    assert held is not None
    before = held.copy()
    for augment in (None, SMALL):
        for x, y, index in Batches(images, shape(), 6, augment=augment):
            x.zero_(), y.zero_(), index.zero_()
    assert np.array_equal(held, before)
    assert images.labels.any()


def test_a_prepared_split_serves_only_what_it_was_prepared_for(photographs: Images) -> None:
    prepared = prepare(photographs, shape(), PHOTO)
    assert prepared.cache is not None
    assert prepared.cache.shape[1:] == (10, 10, 3)
    with pytest.raises(UserError, match="random crops"):
        Batches(prepared, shape(), 4)
    with pytest.raises(UserError, match="prepare it again"):
        Batches(prepared, shape(9, 9), 4, augment=PHOTO)
    with pytest.raises(UserError, match="batch: 0"):
        Batches(photographs, shape(), 0)


@pytest.mark.parametrize(("options", "words"), [({"shift": 1.0}, "1.0"), ({"crop_scale": (0.5, 1.2)}, "1.2")])
def test_augmentations_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Augment(**options)  # type: ignore[arg-type]


def test_leaving_early_leaves_no_thread_behind(photographs: Images) -> None:
    for _ in Batches(photographs, shape(), 2, threads=3):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("triscale-batches")]


def test_a_file_gone_bad_stops_the_batches_by_name(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    data = read(tmp_path)
    (tmp_path / data.train.names[1]).write_bytes(b"gone")
    with pytest.raises(UserError, match=data.train.names[1]):
        list(Batches(data.train, shape(), 2))


def test_an_empty_split_has_no_batches() -> None:
    batches = Batches(in_memory(0), shape(), 4, shuffle=True, augment=SMALL)
    assert (len(batches), list(batches)) == (0, [])


def test_chance_is_uniform_and_by_position() -> None:
    index = np.arange(20_000)
    draws = uniform((1, 2), index, 3)
    assert draws.shape == (20_000, 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.03
    assert np.array_equal(uniform((1, 2), index[500:600], 3), draws[500:600])
    assert np.abs(np.corrcoef(draws[:, 0], uniform((2, 1), index, 1)[:, 0])[0, 1]) < 0.03


def test_chance_never_changes_between_versions() -> None:
    assert permutation((0, 1), 8).tolist() == [3, 4, 6, 2, 7, 0, 5, 1]
    assert [round(x, 12) for x in uniform((0, 1), np.arange(2), 2).ravel().tolist()] == [
        0.248460497838,
        0.653145149024,
        0.731960911764,
        0.854100707518,
    ]
    assert sample((0,), 5, 9).tolist() == [0, 1, 2, 3, 4]
