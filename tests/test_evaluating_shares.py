"""Several processes, a share of the images each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import predictions

from triscale.arch import adapt, published
from triscale.data import Images, Preprocess, prepare
from triscale.data.pictures import Memory
from triscale.evaluating import Predictions, merge, predict_images
from triscale.models.model import Model, new


def share_of(found: Predictions, rank: int, world: int) -> Predictions:
    at = range(rank, len(found.names), world)
    return Predictions(
        tuple(found.names[i] for i in at),
        found.labels[rank::world],
        found.probabilities[rank::world],
        found.classes,
        tuple(found.digests[i] for i in at),
    )


@given(st.integers(0, 40), st.integers(1, 9), st.integers(2, 5))
def test_shares_join_to_exactly_what_they_were_taken_from(n: int, world: int, classes: int) -> None:
    found = predictions(n, classes, n)
    joined = merge([share_of(found, rank, world) for rank in range(world)])
    assert joined.names == found.names
    assert joined.digests == found.digests
    assert joined.labels.tolist() == found.labels.tolist()
    assert joined.probabilities.tobytes() == found.probabilities.tobytes()
    if n:
        assert joined.to_csv() == found.to_csv()


def test_what_is_no_set_of_shares_is_refused() -> None:
    found = predictions(7, 3, 0)
    parts = [share_of(found, rank, 3) for rank in range(3)]
    for wrong in ([], [parts[1], parts[0], parts[2]], [parts[0], parts[0], parts[2]], [parts[0], parts[1], parts[1]]):
        with pytest.raises(ValueError, match="shares"):
            merge(wrong)


@pytest.fixture(scope="module")
def model() -> Model:
    architecture = adapt(published("resnet18"), resolution=(8, 8), channels=1, classes=3)
    preprocess = Preprocess(resolution=(8, 8), channels=1, mean=(0.5,), std=(0.5,))
    return new(architecture, ("a", "b", "c"), preprocess, seed=0)


def pictures(n: int) -> Images:
    rng = np.random.default_rng(n)
    names = tuple(f"{i}.png" for i in range(n))
    digests = tuple(bytes([i]) * 32 for i in range(n))
    return Images(rng.integers(0, 3, n), names, digests, Memory(rng.integers(0, 256, (n, 8, 8, 1), np.uint8)))


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_any_number_of_processes_predicts_what_one_does(model: Model, world: int, prepared: bool) -> None:
    split = pictures(5)
    images = prepare(split, model.preprocess) if prepared else split
    alone = predict_images(model, images)
    parts = [predict_images(model, images, rank=rank, world=world) for rank in range(world)]
    assert [len(part.names) for part in parts] == [len(range(rank, 5, world)) for rank in range(world)]
    joined = merge(parts)
    assert joined.names == alone.names == split.names
    assert joined.digests == split.digests
    assert (joined.labels == split.labels).all()
    # The same network on the same pixels; kernels may sum in another order for batches of another size.
    np.testing.assert_allclose(joined.probabilities, alone.probabilities, rtol=0, atol=1e-5)


def test_a_rank_outside_the_world_is_a_mistake(model: Model) -> None:
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="rank"):
            predict_images(model, pictures(3), rank=rank, world=world)
