"""What `Batches` promises: order, augmentation, memory format, and the same for any workers, ranks and starts."""

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from triscale.data import Augment, Batch, Batches, Images, Preprocess, prepare, read
from triscale.data.augmenting import Draws, shift_and_flip
from triscale.data.chance import permutation, sample, uniform
from triscale.data.pictures import Memory
from triscale.errors import UserError

Bytes = npt.NDArray[np.uint8]
SMALL = Augment(shift=0.25, flip=True)
PHOTO = Augment(flip=True, crop_scale=(0.35, 1.0))
CHANGED = [
    Augment(shift=0.0, policy="autoaugment"),
    Augment(flip=True, policy="randaugment", layers=3, magnitude=12, erase=0.6),
    Augment(crop_scale=(0.35, 1.0), policy="trivialaugment"),
]
MIXED = [
    Augment(flip=True, mixup=0.4),
    Augment(shift=0.0, cutmix=1.0),
    Augment(flip=True, crop_scale=(0.35, 1.0), policy="randaugment", erase=0.5, mixup=0.2, cutmix=1.0),
]


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
    return {int(i): x[k] for x, _, index, *_ in batches for k, i in enumerate(index)}


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        all(torch.equal(a, b) for a, b in zip(left, right, strict=True)) for left, right in zip(one, other, strict=True)
    )


def test_a_batch_is_pixels_labels_and_positions() -> None:
    images = in_memory(10)
    batches = Batches(images, shape(), 4)
    parts = list(batches)
    assert len(parts) == len(batches) == 3
    assert [len(y) for _, y, *_ in parts] == [4, 4, 2]
    held = images.array()
    assert held is not None
    for part in parts:
        x, y, index, other, share = part
        assert part.x is x
        assert part.share is share
        assert torch.equal(other, y)
        assert share.dtype == torch.float32
        assert bool((share == 1).all())
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
        [int(i) for _, _, index, *_ in Batches(images, shape(), 8, shuffle=True, seed=seed, epoch=epoch) for i in index]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(50))]}) == 4


@pytest.mark.parametrize("augment", [None, SMALL, PHOTO, *CHANGED, *MIXED])
@pytest.mark.parametrize("limit", [0, 2**20])
def test_workers_change_nothing(photographs: Images, augment: Augment | None, limit: int) -> None:
    prepared = [prepare(photographs, shape(12, 16), augment, limit=limit, threads=t) for t in (1, 1, 4)]
    assert (prepared[0].cache is None) == (limit == 0)
    none, one, four = (
        Batches(p, shape(12, 16), 9, shuffle=True, augment=augment, seed=3, epoch=2, workers=t)
        for p, t in zip(prepared, (0, 1, 4), strict=True)
    )
    assert same(none, one)
    assert same(one, four)
    assert same(one, one), "and it may be iterated again"


@pytest.mark.parametrize("augment", [SMALL, PHOTO, *CHANGED])
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


@given(
    n=st.integers(0, 40),
    batch=st.integers(1, 17),
    world=st.integers(1, 6),
    augment=st.sampled_from([None, SMALL, *MIXED]),
    drop_last=st.booleans(),
)
def test_the_shares_of_all_ranks_are_the_whole_batch(
    n: int, batch: int, world: int, augment: Augment | None, drop_last: bool
) -> None:
    images = in_memory(n)
    prepared = prepare(images, shape(), augment)

    def batches(rank: int, world: int) -> list[Batch]:
        options = {"shuffle": True, "drop_last": drop_last, "workers": 0, "seed": 2}
        return list(Batches(prepared, shape(), batch, augment=augment, rank=rank, world=world, **options))  # type: ignore[arg-type]

    shares = [batches(rank, world) for rank in range(world)]
    for whole, *parts in zip(batches(0, 1), *shares, strict=True):
        for tensor, *pieces in zip(whole, *parts, strict=True):
            assert torch.equal(tensor, torch.cat(pieces))
        sizes = [len(part.y) for part in parts]
        assert max(sizes) - min(sizes) <= 2
        assert all(sum(sizes[:rank]) % 2 == 0 for rank in range(world) if sizes[rank])


@pytest.mark.parametrize("augment", [None, PHOTO, MIXED[2]])
def test_starting_later_gives_the_rest_of_the_same(photographs: Images, augment: Augment | None) -> None:
    whole = Batches(photographs, shape(), 4, shuffle=True, augment=augment, seed=5)
    every = list(whole)
    for start in (0, 1, 4, len(every)):
        rest = Batches(photographs, shape(), 4, shuffle=True, augment=augment, seed=5, start=start)
        assert len(rest) == len(list(rest)) == len(every) - start
        for one, other in zip(rest, every[start:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert np.array_equal(rest.order(), whole.order())


def test_what_lies_before_the_start_is_not_decoded(tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    train = read(tmp_path).train
    for name in train.names[:2]:
        (tmp_path / name).unlink()
    assert len(list(Batches(train, shape(), 2, start=1))) == len(train) // 2 - 1


@pytest.mark.parametrize("augment", [SMALL, PHOTO, *CHANGED, *MIXED])
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
    images = in_memory(200, 8, 4, 1)
    held = images.array()
    assert held is not None
    augment = Augment(shift=0.25, flip=True)
    padded = np.pad(held[..., 0], ((0, 0), (2, 2), (1, 1)), mode="edge")
    kinds = set()
    for i, x in by_index(Batches(images, shape(8, 4, 1), 64, augment=augment)).items():
        found = [
            (dy, dx, mirrored)
            for dy in range(5)
            for dx in range(3)
            for mirrored in (False, True)
            if np.array_equal(x[0].numpy(), padded[i, dy : dy + 8, dx : dx + 4][:, :: -1 if mirrored else 1])
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
    for x, *_ in Batches(images, shape(5, 8), 3, augment=augment, seed=seed, workers=1):
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
    for augment in (None, SMALL, *CHANGED, *MIXED):
        for batch in Batches(images, shape(), 6, augment=augment):
            for tensor in batch:
                tensor.zero_()
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
    with pytest.raises(UserError, match="workers: -1"):
        Batches(photographs, shape(), 4, workers=-1)
    with pytest.raises(UserError, match="rank 2"):
        Batches(photographs, shape(), 4, rank=2, world=2)
    with pytest.raises(UserError, match="start 9"):
        Batches(photographs, shape(), 4, start=9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shift": 1.0}, "1.0"),
        ({"crop_scale": (0.5, 1.2)}, "1.2"),
        ({"policy": "handaugment"}, "handaugment.*randaugment"),
        ({"layers": 0}, "layers 0"),
        ({"magnitude": 31}, "magnitude 31"),
        ({"magnitude": -1}, "magnitude -1"),
        ({"erase": 1.5}, "erase 1.5"),
        ({"mixup": -0.1}, "mixup -0.1"),
        ({"cutmix": float("inf")}, "cutmix inf"),
        ({"mixup": float("nan")}, "mixup nan"),
    ],
)
def test_augmentations_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Augment(**options)  # type: ignore[arg-type]


def test_policies_are_for_pictures() -> None:
    two = in_memory(4, 8, 8, 2)
    with pytest.raises(UserError, match="1 or 3 channels, not 2"):
        Batches(two, shape(c=2), 2, augment=Augment(policy="autoaugment"))
    assert len(list(Batches(two, shape(c=2), 2, augment=Augment(erase=1.0, mixup=0.2, cutmix=1.0)))) == 2


def test_leaving_early_leaves_no_thread_behind(photographs: Images) -> None:
    for _ in Batches(photographs, shape(), 2, workers=3):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("triscale-batches")]


@pytest.mark.parametrize("augment", [None, PHOTO])
def test_a_file_gone_bad_stops_the_batches_by_name(tmp_path: Path, augment: Augment | None) -> None:
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    data = read(tmp_path)
    (tmp_path / data.train.names[1]).write_bytes(b"gone")
    with pytest.raises(UserError, match=data.train.names[1]):
        list(Batches(data.train, shape(), 2, augment=augment))


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


@pytest.mark.parametrize("share", [0.05, 0.1, 0.125])
def test_pictures_of_neighbouring_sizes_move_by_the_same_share(share: float) -> None:
    moved = {}
    for side in (16, 18, 19, 20, 21, 26, 28, 37):
        ramp = np.broadcast_to(np.arange(100, 100 + side, dtype=np.uint8)[:, None, None], (side, side, 1))
        index = np.arange(20_000)
        shifted = shift_and_flip(ramp[None], index * 0, Augment(shift=share), Draws.at(0, 0, index))
        down = shifted[:, side // 2, 0, 0].astype(int) - 100 - side // 2
        assert down.mean() == pytest.approx(0, abs=0.05)
        assert abs(down).max() <= share * side + 1
        # of uniform steps in whole pixels: the half pixel to either side widens them, less at larger sides
        moved[side] = float(down.std()) / (share * side + 0.5)
    assert max(moved.values()) / min(moved.values()) < 1.15
