"""A trial is a pure function of its values, wherever its images are."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from small_trials import LARGER, MADE, SHORT, SMALL, a_trial, found, trial
from specs import architectures

from triscale.data import Augment, Data, Images, fitting_preprocess, prepare, read
from triscale.data.pictures import Memory
from triscale.errors import UserError
from triscale.evaluating import predict_images
from triscale.models.model import new
from triscale.training import RECIPES, InMemory, Validation, find_recipe, train
from triscale.trials import (
    How,
    Outcome,
    Pictures,
    Trial,
    as_machine,
    pack,
    passes,
    run_trial,
    stratified,
    unpack,
)
from triscale.trials.shipping import shipped

trials = st.builds(
    Trial,
    architectures(),
    st.sampled_from([find_recipe(name).recipe for name in RECIPES]),
    st.text(),
    st.integers(1, 10**6),
    st.integers(0, 2**31),
    st.builds(How, st.sampled_from(("cpu", "cuda:1")), st.sampled_from(("fp32", "bf16")), st.integers(1, 64)),
    st.text(),
)


@given(trials)
@settings(max_examples=30)
def test_a_trial_read_back_from_json_is_the_same_and_has_the_same_key(one: Trial) -> None:
    back = Trial.from_json(json.loads(json.dumps(one.to_json())), "here")
    assert back == one
    assert back.key == one.key


@given(trials, st.text(max_size=10).filter(str.isprintable))
@settings(max_examples=30)
def test_equal_trials_have_equal_keys_and_the_networks_name_does_not_matter(one: Trial, name: str) -> None:
    assert replace(one, architecture=replace(one.architecture)).key == one.key
    with suppress(UserError):  # not every text is a name
        assert replace(one, architecture=replace(one.architecture, name=name)).key == one.key


def test_a_number_has_one_key_however_it_is_written() -> None:
    whole = a_trial(replace(SMALL, stochastic_depth=0), replace(SHORT, average_share=1))
    real = a_trial(replace(SMALL, stochastic_depth=0.0), replace(SHORT, average_share=1.0))
    assert whole == real
    assert whole.key == real.key


CHANGES: dict[str, Trial] = {
    "resolution": a_trial(replace(SMALL, resolution=(8, 9))),
    "input channels": a_trial(replace(SMALL, channels=3)),
    "channels": a_trial(replace(SMALL, stages=(replace(SMALL.stages[0], channels=9), *SMALL.stages[1:]))),
    "repeats": a_trial(replace(SMALL, stages=(replace(SMALL.stages[0], repeats=2), *SMALL.stages[1:]))),
    "what deepens": a_trial(replace(SMALL, stages=(replace(SMALL.stages[0], deepens=False), *SMALL.stages[1:]))),
    "stages": a_trial(replace(SMALL, stages=SMALL.stages[:1])),
    "stem": a_trial(replace(SMALL, stem=replace(SMALL.stem, channels=9))),
    "classes": a_trial(replace(SMALL, head=replace(SMALL.head, classes=4))),
    "dropout": a_trial(replace(SMALL, head=replace(SMALL.head, dropout=0.1))),
    "padding": a_trial(replace(SMALL, padding="symmetric")),
    "normalisation": a_trial(replace(SMALL, norm=replace(SMALL.norm, momentum=0.9))),
    "rounding": a_trial(replace(SMALL, rounding=replace(SMALL.rounding, divisor=4))),
    "stochastic depth": a_trial(replace(SMALL, stochastic_depth=0.1)),
    "epochs": a_trial(recipe=replace(SHORT, epochs=2)),
    "batch": a_trial(recipe=replace(SHORT, batch=17)),
    "rate": a_trial(recipe=replace(SHORT, rate=replace(SHORT.rate, peak=1e-3))),
    "augmenting": a_trial(recipe=replace(SHORT, augment=Augment(shift=0.1, flip=True))),
    "data": replace(a_trial(), data="1" * 64),
    "images": replace(a_trial(), images=31),
    "seed": replace(a_trial(), seed=1),
    "device": replace(a_trial(), how=How("cuda")),
    "precision": replace(a_trial(), how=How(precision="bf16")),
    "threads": replace(a_trial(), how=How(threads=2)),
    "kernels": replace(a_trial(), how=How(kernels=True)),
    "version": replace(a_trial(), version="2"),
}


def test_everything_but_the_name_is_part_of_the_key() -> None:
    keys = {"nothing": a_trial().key, **{what: changed.key for what, changed in CHANGES.items()}}
    assert len(set(keys.values())) == len(keys), keys
    assert all(len(key) == 64 for key in keys.values())


@pytest.mark.parametrize("values", [{}, {**a_trial().to_json(), "recipe": 7}, {**a_trial().to_json(), "how": {"x": 1}}])
def test_what_is_no_trial_is_refused_with_its_source(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^ledger\.db: "):
        Trial.from_json(values, "ledger.db")


def test_an_outcome_read_back_from_json_is_the_same() -> None:
    assert Outcome.from_json(json.loads(json.dumps(MADE.to_json())), "here") == MADE
    with pytest.raises(UserError, match="here: outcome"):
        Outcome.from_json({"selection": 1.0}, "here")


@given(arrays(np.bool_, st.integers(0, 70)))
def test_what_is_packed_comes_back(right: np.ndarray) -> None:
    assert unpack(pack(right)).tolist() == right.tolist()


@pytest.mark.parametrize("text", ["", "x", "3", "-1:AA==", "x:AA==", "3:A", "3:AA==AA==", "9:AA==", "3:AAA=", "3:ä"])
def test_a_text_that_pack_did_not_make_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"named right|another length"):
        unpack(text)


def some_images(labels: Sequence[int]) -> Images:
    n = len(labels)
    pixels = np.zeros((n, 1, 1, 1), np.uint8)
    names = tuple(f"{i:04}" for i in range(n))
    return Images(np.array(labels, np.int64), names, tuple(name.encode() for name in names), Memory(pixels))


labelled = st.lists(st.integers(0, 4), min_size=1, max_size=120)


@given(labelled, st.integers(0, 130))
def test_a_part_has_of_each_class_in_proportion_and_keeps_the_order(labels: list[int], count: int) -> None:
    images = some_images(labels)
    part = stratified(images, count)
    assert len(part) == min(count, len(images))
    assert list(part.names) == sorted(part.names), "in their order"
    assert len(set(part.names)) == len(part), "none twice"
    share = len(part) / len(images)
    for label in set(labels):
        assert abs((part.labels == label).sum() - share * labels.count(label)) <= 1


@given(labelled, st.data())
def test_the_larger_part_holds_the_smaller_and_each_is_the_same_every_time(
    labels: list[int], draw: st.DataObject
) -> None:
    images = some_images(labels)
    large = draw.draw(st.integers(0, len(labels)))
    small = draw.draw(st.integers(0, large))
    assert set(stratified(images, small).names) <= set(stratified(images, large).names)
    torch.manual_seed(small)
    np.random.seed(small)  # nothing that others draw plays a part
    assert stratified(images, small).names == stratified(images, small).names


@given(st.integers(1, 9), st.integers(2, 40), st.integers(1, 200))
def test_passes_are_the_images_that_a_training_sees(epochs: int, batch: int, images: int) -> None:
    steps = max(1, images // batch)
    assert passes(replace(SHORT, epochs=epochs, batch=batch), images) == epochs * steps * min(batch, images)


def test_a_trial_gives_the_same_twice_and_whatever_ran_before(data: Data) -> None:
    wanted = trial(data, seed=3)
    alone = run_trial(wanted, Pictures(data))
    pictures = Pictures(data)
    others = (
        trial(data, network=LARGER),
        trial(data, images=20),
        trial(data, network=replace(SMALL, channels=3)),
        trial(data, recipe=replace(SHORT, augment=Augment(crop_scale=(0.5, 1.0)))),
        trial(data, network=LARGER, images=42),
    )
    for one in others:
        torch.manual_seed(1)
        run_trial(one, pictures)
        assert found(run_trial(wanted, pictures)) == found(alone), one
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert found(run_trial(wanted, pictures)) == found(alone)
    assert torch.get_num_threads() == threads, "nothing is left behind"
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_gives_another_training(data: Data) -> None:
    pictures = Pictures(data)
    assert run_trial(trial(data, 0), pictures).losses != run_trial(trial(data, 1), pictures).losses


def test_a_trials_answers_are_those_of_a_model_trained_and_evaluated_by_hand(data: Data) -> None:
    wanted = trial(data, seed=2, recipe=replace(SHORT, epochs=4))
    outcome = run_trial(wanted, Pictures(data))

    part = replace(data, train=stratified(data.train, wanted.images))
    look = fitting_preprocess(part, SMALL)
    model = new(SMALL, data.classes, look, seed=2)
    trained = train(
        model,
        prepare(part.train, look),
        wanted.recipe,
        as_machine(wanted.how, model),
        seed=2,
        validate=lambda model: Validation(0.0, 0.0),
        keeper=InMemory(),
    )
    test, selection = (predict_images(trained, prepare(split, look)) for split in (data.test, data.val))
    assert unpack(outcome.test).tolist() == (test.predicted == test.labels).tolist()
    assert outcome.selection == selection.top().value
    assert outcome.loss == pytest.approx(selection.log_loss()[0], abs=1e-6)
    assert len(outcome.losses) == 4


def test_images_that_the_trial_is_not_about_are_refused(data: Data) -> None:
    with pytest.raises(UserError, match="not the images"):
        run_trial(replace(trial(data), data="0" * 64), Pictures(data))


def test_at_most_three_resolutions_are_held_at_once(data: Data) -> None:
    pictures = Pictures(data)
    for side in (8, 9, 10, 11, 12):
        pictures.fitted(trial(data, network=replace(SMALL, resolution=(side, side))))
    assert len(pictures.held) == 3


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colours of several sizes and formats in class folders."""
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (20 + i, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.{('png', 'jpg')[i % 2]}")
    return root


def test_images_that_travel_are_the_same_and_need_no_files(mixed: Path, tmp_path: Path) -> None:
    here = read(mixed)
    copy = tmp_path / "copy"
    mixed_copy = {path.relative_to(mixed): path.read_bytes() for path in mixed.rglob("*") if path.is_file()}
    for name, content in mixed_copy.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    sent = shipped(read(copy))
    for name in mixed_copy:
        (copy / name).unlink()
    assert sent.fingerprint == here.fingerprint
    assert sent.train.array() is None
    for split, images in here.splits().items():
        chosen = np.arange(len(images))[::-1]
        theirs, ours = sent.splits()[split].select(chosen), images.select(chosen)
        assert theirs.names == ours.names
        for i in range(len(ours)):
            np.testing.assert_array_equal(theirs.pixels(i), ours.pixels(i))
            box = (1, 2, 17, 18)
            np.testing.assert_array_equal(
                theirs.part(i, lambda size, box=box: box, (8, 8)), ours.part(i, lambda size, box=box: box, (8, 8))
            )


def test_a_trial_on_images_that_travelled_has_the_same_outcome(data: Data) -> None:
    assert found(run_trial(trial(data), Pictures(shipped(data)))) == found(run_trial(trial(data), Pictures(data)))


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_file_that_changed_since_it_was_read_does_not_travel(change: str, mixed: Path, tmp_path: Path) -> None:
    here = read(mixed)
    some = next(iter(here.train.source.paths))  # type: ignore[attr-defined]
    content = some.read_bytes()
    try:
        some.unlink()
        if change == "other":
            some.write_bytes(content + b"\0")
        with pytest.raises(UserError, match=some.name):
            shipped(here)
    finally:
        some.write_bytes(content)


def test_images_in_memory_travel_as_they_are() -> None:
    images = some_images([0, 1, 0, 1])
    kept = Data(Path("x"), "idx", ("a", "b"), 1, (1, 1), True, images, images, images, "f")
    assert shipped(kept).train is images
