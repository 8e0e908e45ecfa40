"""What mixup, cutmix and random erasing promise."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from triscale.data import Augment, Batch, Batches, Images, Preprocess
from triscale.data.chance import uniform
from triscale.data.erasing import erase
from triscale.data.mixing import beta_quantile, mix, partners
from triscale.data.pictures import Memory

Bytes = npt.NDArray[np.uint8]
LOOK = Preprocess((10, 12), 3, (0.5,) * 3, (0.5,) * 3)


def noise(n: int, h: int = 10, w: int = 12, c: int = 3) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def only(n: int, batch: int, augment: Augment, epoch: int = 0) -> list[Batch]:
    images = Images(np.arange(n, dtype=np.int64), tuple(map(str, range(n))), (b"",) * n, Memory(noise(n)))
    return list(Batches(images, LOOK, batch, augment=augment, epoch=epoch))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.5, 0.9, 1.0, 1.3, 2.0, 8.0, 32.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    u = np.concatenate([np.linspace(0, 1, 2001), [1e-6, 1e-4, 1 - 1e-6]])
    expected = stats.beta(alpha, alpha).ppf(u)
    found = beta_quantile(alpha, u)
    # In the tails of large α the quantile is nearly upright, and one of 4,096 points is the answer.
    assert np.abs(found - expected).max() < 2e-4
    assert np.abs(found[(u > 0.001) & (u < 0.999)] - expected[(u > 0.001) & (u < 0.999)]).max() < 2e-5


@given(alpha=st.floats(0.01, 100), u=st.integers(0, 1024).map(lambda k: k / 1024))
def test_quantiles_are_shares_and_symmetric(alpha: float, u: float) -> None:
    below, above = beta_quantile(alpha, np.array([u, 1 - u]))
    assert 0 <= below <= 1
    assert below + above == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_partners_are_neighbours_and_an_odd_last_one_has_none(n: int) -> None:
    assert partners(n).tolist() == [1, 0, 3, 2, 5, 4, 7, 6][:n] if n % 2 == 0 else [*partners(n - 1), n - 1]


def test_mixup_is_the_weighted_mean_of_two_pictures() -> None:
    pictures = noise(9)
    for part in only(9, 9, Augment(shift=0.0, mixup=0.8)):
        x, y, _, other, share = (tensor.numpy() for tensor in part)
        partner = [1, 0, 3, 2, 5, 4, 7, 6, 8]
        assert other.tolist() == partner
        assert y.tolist() == list(range(9))
        assert 0 < share[:8].min() < share[:8].max() < 1
        assert share[8] == 1
        weight = share.astype(float)[:, None, None, None]
        expected = weight * pictures + (1 - weight) * pictures[partner]
        assert np.abs(x.transpose(0, 2, 3, 1) - expected).max() <= 0.5 + 1e-3


def test_cutmix_counts_the_pixels_of_each_picture() -> None:
    pictures = noise(9)
    boxes = 0
    for epoch in range(20):
        for part in only(9, 9, Augment(shift=0.0, cutmix=1.0), epoch):
            x = part.x.permute(0, 2, 3, 1).numpy()
            for k, partner in enumerate((1, 0, 3, 2, 5, 4, 7, 6, 8)):
                own = (x[k] == pictures[k]).all(axis=2)
                assert ((x[k] == pictures[partner]).all(axis=2) | own).all()
                rows, columns = np.flatnonzero(~own.all(axis=1)), np.flatnonzero(~own.all(axis=0))
                assert not own[np.ix_(rows, columns)].any(), "one box"
                assert part.share[k].item() == pytest.approx(own.mean(), abs=1e-6)
                assert part.other[k].item() == partner
                boxes += bool(len(rows))
    assert boxes > 100


def test_a_box_has_the_area_drawn_unless_the_edge_cuts_it_off() -> None:
    n = 4_000
    share = mix(np.zeros((n, 50, 50, 1), np.uint8), np.arange(n), 0, 0, 0.0, 1.0)
    asked = beta_quantile(1.0, uniform((0, 5, 0), np.arange(n), 4)[:, 1])
    assert (share >= asked - 1e-6).all()
    assert np.mean(share - asked < 0.05) > 0.25


def test_both_kinds_are_equally_likely() -> None:
    pictures = np.zeros((4_000, 8, 8, 1), np.uint8)
    pictures[::2] = 200
    mix(pictures, np.arange(4_000), 1, 2, 1.0, 1.0)
    blended = [not set(np.unique(picture)) <= {0, 200} for picture in pictures]
    assert abs(np.mean(blended) - 0.5) < 0.04


def test_a_share_is_drawn_for_the_position_not_for_the_place_in_the_batch() -> None:
    augment = Augment(shift=0.0, mixup=0.4)
    wide = {int(i): float(s) for part in only(8, 8, augment) for i, s in zip(part.index, part.share, strict=True)}
    narrow = {int(i): float(s) for part in only(8, 2, augment) for i, s in zip(part.index, part.share, strict=True)}
    assert wide == narrow


@given(n=st.integers(1, 9), size=st.tuples(st.integers(1, 6), st.integers(1, 6)), epoch=st.integers(0, 50))
def test_equal_pictures_mix_to_themselves(n: int, size: tuple[int, int], epoch: int) -> None:
    pictures = np.repeat(noise(1, *size), n, axis=0)
    before = pictures.copy()
    share = mix(pictures, np.arange(n), 0, epoch, 0.3, 0.7)
    assert np.array_equal(pictures, before)
    assert ((share >= 0) & (share <= 1)).all()


def test_erasing_covers_the_published_areas_with_noise() -> None:
    n, side = 2_000, 64
    pictures = np.zeros((n, side, side, 1), np.uint8)
    erase(pictures, np.arange(n), 0, 0, 0.25)
    gone = [np.flatnonzero(picture) for picture in pictures]
    assert abs(np.mean([len(found) > 0 for found in gone]) - 0.25) < 0.04
    areas, aspects = [], []
    for picture in pictures:
        rows, columns = np.flatnonzero(picture.any(axis=(1, 2))), np.flatnonzero(picture.any(axis=(0, 2)))
        if len(rows):
            box = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.mean() == pytest.approx(127.5, abs=40)
            assert (picture.astype(bool).sum() - box.astype(bool).sum()) == 0
            areas.append(box.size / side**2)
            aspects.append(box.shape[1] / box.shape[0])
    assert 0.015 < min(areas) < 0.05
    assert 0.28 < max(areas) < 0.35
    assert 0.25 < min(aspects) < 0.45 < 2.2 < max(aspects) < 4
    assert abs(np.mean(np.log(aspects))) < 0.15, "flat as often as narrow"


def test_noise_is_every_pixels_own_and_decided_by_position() -> None:
    first, again, later = (np.zeros((6, 30, 30, 3), np.uint8) for _ in range(3))
    erase(first, np.arange(6), 4, 1, 1.0)
    erase(again[2:4], np.arange(2, 4), 4, 1, 1.0)
    erase(later, np.arange(6), 4, 2, 1.0)
    assert np.array_equal(first[2:4], again[2:4])
    assert not np.array_equal(first, later)
    colours = first[0][first[0].any(axis=2)]
    assert len(np.unique(colours, axis=0)) > 0.99 * len(colours)


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_erasing_stays_within_any_picture(size: tuple[int, int], seed: int) -> None:
    pictures = np.zeros((3, *size, 3), np.uint8)
    erase(pictures, np.arange(3), seed, 0, 1.0)
    assert pictures.shape == (3, *size, 3)


def test_a_probability_of_none_erases_nothing() -> None:
    pictures = np.zeros((50, 8, 8, 1), np.uint8)
    erase(pictures, np.arange(50), 0, 0, 0.0)
    assert not pictures.any()
