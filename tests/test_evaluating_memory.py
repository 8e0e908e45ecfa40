"""Where memory does not suffice for as many images at a time, fewer are looked at, and nothing is lost."""

from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from torch import Tensor

from triscale.data import read
from triscale.evaluating import predict_images
from triscale.fitting import Fitted, fit
from triscale.models import load
from triscale.nn import Network

MOST = 8


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine on which networks take at most 8 images at a time; how many they were given."""
    given, forward = [], Network.forward

    def limited(self: Network, x: Tensor) -> Tensor:
        given.append(len(x))
        if len(x) > MOST:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, x)

    monkeypatch.setattr(Network, "forward", limited)
    return given


def test_all_images_are_answered_in_their_order(fitted: Fitted, digits: Path, little: list[int]) -> None:
    model, images = load(fitted.run.path), read(digits, seed=3).train
    found = predict_images(model, images, batch=36)
    assert sum(count for count in little if count <= MOST) == len(images) > MOST
    assert little.count(36) == 1, "what did not fit once is not tried again"
    alone = predict_images(model, images, batch=1)
    np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-5)
    assert found.names == alone.names


def test_memory_is_given_back_once_nothing_holds_what_the_failed_pass_had_made(
    fitted: Fitted, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, made, held = Network.forward, [], []

    def limited(self: Network, x: Tensor) -> Tensor:
        logits = forward(self, x)
        if not made:
            made.append(ref(logits))
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logits

    monkeypatch.setattr(Network, "forward", limited)
    monkeypatch.setattr("triscale.training.machine.give_back", lambda device: held.append(made[0]()))
    predict_images(load(fitted.run.path), read(digits, seed=3).train)
    assert held == [None]


def test_what_fails_for_a_single_image_fails(fitted: Fitted, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Network, x: Tensor) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(Network, "forward", refuse)
    with pytest.raises(MemoryError):
        predict_images(load(fitted.run.path), read(digits, seed=3).train)


def test_a_run_validates_and_tests_by_as_few_as_it_trains_by(digits: Path, tmp_path: Path, little: list[int]) -> None:
    run = fit(digits, out=tmp_path / "run", macs=400_000, baseline="resnet18", epochs=2)
    assert max(little) > MOST, "the machine had too little for some"
    assert len(run.metrics) == 2
    assert run.run.model.is_file()
