"""What a single step computes: its loss, its gradients in parts, and what it sees of the pictures."""

from collections.abc import Callable
from dataclasses import replace
from weakref import ref

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import CPU, FAIR, LOOK, TINY, Seen, some_digits
from torch import Tensor

from triscale.data import Augment, Batch, Batches, prepare
from triscale.models import Model
from triscale.models.model import new
from triscale.training import ALONE, InMemory, Recipe, train
from triscale.training.session import Session, class_weights, steps_per_epoch

Floats = npt.NDArray[np.float64]
CLASSES = ("0", "1", "2", "3")
QUIET = Recipe(epochs=1, batch=16, frozen_norm=True)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


def begun(recipe: Recipe, images: int = 40, note: Callable[[str], None] = lambda text: None) -> Session:
    digits = some_digits(images)
    model = new(TINY, CLASSES, LOOK, seed=2)
    return Session.start(model, prepare(digits, LOOK, recipe.augment), recipe, CPU, 0, ALONE, None, note)


def first_batch(session: Session) -> Batch:
    return next(iter(session._batches(0, start=0, all_of_it=True)))


def gradients(session: Session, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    loss = float(session._gradients(batch))
    found = {name: p.grad.clone() for name, p in session.model.named_parameters() if p.grad is not None}
    session.optimizer.zero_grad(set_to_none=True)
    return loss, found


def surprise(logits: Floats, labels: npt.NDArray[np.int64], weights: Floats, smoothing: float) -> Floats:
    """Cross-entropy with a target of 1 - smoothing for the class and smoothing shared by all (1512.00567, section 7),
    times the weight of the image's class."""
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full_like(logits, smoothing / logits.shape[1])
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return -(target * logs).sum(1) * weights[labels]


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize(
    "augment", [Augment(mixup=1.0), Augment(cutmix=1.0), Augment(mixup=0.4, cutmix=0.4), Augment()]
)
def test_the_loss_of_mixed_pictures_is_that_of_both_classes_each_with_its_share(
    augment: Augment, balance: bool
) -> None:
    session = begun(replace(QUIET, augment=augment, balance=balance, smoothing=0.1))
    batch = first_batch(session)
    assert bool((batch.share < 1).any()) == augment.mixes
    loss, _ = gradients(session, batch)
    with torch.no_grad():
        logits = session.model(LOOK.normalise(batch.x)).double().numpy()
    y, other, share = batch.y.numpy(), batch.other.numpy(), batch.share.double().numpy()
    weights = class_weights(session.images.images.labels, 4).double().numpy() if balance else np.ones(4)
    each = share * surprise(logits, y, weights, 0.1) + (1 - share) * surprise(logits, other, weights, 0.1)
    assert loss == pytest.approx(each.mean(), rel=1e-5)


class Narrow:
    """Memory for so many images of a training step at a time, and who asked for how many."""

    def __init__(self, patch: pytest.MonkeyPatch, most: int) -> None:
        self.seen: list[int] = []
        real = Model.forward

        def forward(model: Model, x: Tensor) -> Tensor:
            if model.training and torch.is_grad_enabled():
                self.seen.append(len(x))
                if len(x) > most:
                    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(model, x)

        patch.setattr(Model, "forward", forward)


@settings(max_examples=15)
@example(most=3, batch=7, mixup=0.0, balance=False)
@given(most=st.integers(2, 20), batch=st.integers(2, 21), mixup=st.sampled_from((0.0, 0.5)), balance=st.booleans())
def test_where_memory_runs_out_a_step_is_made_in_parts_with_the_gradients_of_the_whole(
    most: int, batch: int, mixup: float, balance: bool
) -> None:
    recipe = replace(QUIET, batch=batch, augment=Augment(mixup=mixup), balance=balance)
    whole = begun(recipe)
    loss, expected = gradients(whole, first_batch(whole))
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        narrow = Narrow(patch, most=max(3, most) if batch % 2 else most)  # an odd number has a part of three
        parts = begun(recipe, note=notes.append)
        found_loss, found = gradients(parts, first_batch(parts))
        again = narrow.seen.copy()
        gradients(parts, first_batch(parts))
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    later = narrow.seen[len(again) :]
    assert sum(later) == batch, "the step is still made of all its images"
    assert min(later) >= 2, "normalisation needs two"
    refused = [n for n in again if n > (max(3, most) if batch % 2 else most)]
    assert len(notes) == min(1, len(refused)), "said once, however often it was halved"
    for note in notes:
        assert f"a step is still made of {batch}" in note


def test_a_training_in_parts_says_so_once_and_is_the_training_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(QUIET, epochs=2, smoothing=0.0)
    digits, ended = prepare(some_digits(40), LOOK), {}
    for most in (16, 8):
        narrow, seen = Narrow(monkeypatch, most), Seen()
        model = train(new(TINY, CLASSES, LOOK), digits, recipe, CPU, seed=0, validate=lambda _: FAIR, watch=seen)
        ended[most] = model.state_dict()
        assert len(seen.notes) == (most == 8)
        assert [row.step for row in seen.rows] == [2, 4]
        assert narrow.seen == [16] * 4 if most == 16 else narrow.seen == [16] + [8] * 8
    for name, value in ended[16].items():
        torch.testing.assert_close(ended[8][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_memory_for_not_even_two_images_is_an_error_and_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    Narrow(monkeypatch, 1)
    session = begun(QUIET)
    with pytest.raises(RuntimeError, match="out of memory"):
        session.step(first_batch(session))


def test_memory_is_given_back_once_nothing_holds_what_the_failed_pass_had_made(monkeypatch: pytest.MonkeyPatch) -> None:
    session, real, made, held = begun(QUIET), Model.forward, [], []

    def forward(model: Model, x: Tensor) -> Tensor:
        logits = real(model, x)
        if not made:
            made.append(ref(logits))
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logits

    monkeypatch.setattr(Model, "forward", forward)
    monkeypatch.setattr("triscale.training.session.give_back", lambda device: held.append(made[0]()))
    session._gradients(first_batch(session))
    assert held == [None]


def test_an_error_of_another_kind_is_no_reason_for_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Model, x: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Model, "forward", broken)
    session = begun(QUIET)
    with pytest.raises(RuntimeError, match="shapes"):
        session.step(first_batch(session))
    assert session.micro == 16


@pytest.mark.parametrize(
    ("share", "epochs", "sides"),
    [
        (1.0, 3, [48, 48, 48]),
        (0.5, 3, [24, 36, 48]),
        (0.5, 2, [24, 48]),
        (0.5, 1, [48]),
        (0.1, 5, [16, 16, 26, 37, 48]),
    ],
)
def test_progressive_pictures_grow_from_epoch_to_epoch_to_their_whole_size(
    monkeypatch: pytest.MonkeyPatch, share: float, epochs: int, sides: list[int]
) -> None:
    look, seen, real = replace(LOOK, resolution=(48, 48)), [], Model.forward

    def forward(model: Model, x: Tensor) -> Tensor:
        if model.training and torch.is_grad_enabled():
            seen.append(tuple(x.shape[-2:]))
        return real(model, x)

    monkeypatch.setattr(Model, "forward", forward)
    model = new(replace(TINY, resolution=(48, 48)), CLASSES, look)
    recipe = Recipe(epochs=epochs, batch=10, progressive=share)
    train(model, prepare(some_digits(20), look), recipe, CPU, seed=0, validate=lambda _: FAIR)
    assert seen == [(side, side) for side in sides for _ in range(2)]


def test_pictures_of_two_sides_shrink_in_proportion_but_none_below_sixteen_pixels() -> None:
    session = begun(Recipe(epochs=3, batch=16, progressive=0.5))
    assert session._seen(torch.zeros(2, 1, 40, 20, dtype=torch.uint8)).shape[-2:] == (20, 16)
    assert session._seen(torch.zeros(2, 1, 40, 12, dtype=torch.uint8)).shape[-2:] == (20, 12)


@given(st.integers(1, 2000), st.integers(2, 300))
def test_an_epoch_is_as_many_whole_batches_as_are_made_of_its_images(images: int, batch: int) -> None:
    steps = steps_per_epoch(images, batch)
    assert steps == max(1, images // batch)


def test_dropout_and_stochastic_depth_of_a_step_depend_on_seed_and_step_alone() -> None:
    noisy = replace(TINY, head=replace(TINY.head, dropout=0.5), stochastic_depth=0.5)
    recipe, losses = replace(QUIET, augment=Augment(shift=0.0)), []
    for seed, done, before in ((0, 3, 1), (0, 3, 99), (0, 4, 1), (1, 3, 1)):
        model = new(noisy, CLASSES, LOOK, seed=2)
        session = Session.start(model, prepare(some_digits(40), LOOK), recipe, CPU, seed, ALONE, None)
        batch = next(iter(Batches(session.images, LOOK, 16)))
        torch.manual_seed(before)
        session.schedule.done = done
        losses.append(gradients(session, batch)[0])
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_going_back_twice_goes_back_to_the_same() -> None:
    """What a step changes in place is never the snapshot's own: neither weights nor the optimizer's count of steps."""
    session, keeper = begun(Recipe(epochs=1, batch=16)), InMemory()
    session.step(first_batch(session))
    keeper.save(session.snapshot())
    ends = []
    for _ in range(2):
        kept = keeper.newest()
        assert kept is not None
        session.restore(kept)
        session.step(first_batch(session))
        ends.append({name: value.clone() for name, value in session.snapshot().tensors.items()})
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=0, atol=0, msg=name)
