"""Recipes: numbers with their sources, as files, and fitted to images."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import digit_folder
from PIL import Image

from triscale.data import Augment, Data, read
from triscale.errors import UserError
from triscale.training import RECIPES, Recipe, find_recipe, named, resolve
from triscale.training.recipe import SGD, AdamW, ByName, Cosine, Exponential, RMSProp
from triscale.training.recipes import fields_of, read_recipe, to_json


def text(**changes: object) -> str:
    """The recipe `quick` as a file, with fields changed by their paths."""
    values = json.loads(to_json(named("quick")))
    for path, value in changes.items():
        *keys, last = path.split("__")
        target = values["recipe"]
        for key in keys:
            target = target[key]
        target[last] = value
    return json.dumps(values)


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_says_where_each_of_its_fields_comes_from(name: str) -> None:
    found = find_recipe(name)
    assert found.name == name
    assert found.about
    assert list(found.provenance) == list(fields_of(found.recipe))
    assert all(len(source) > 5 for source in found.provenance.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_is_printed_can_be_read_and_is_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(to_json(named(name)))
    assert find_recipe(tmp_path / "mine.json") == named(name)


def test_paper_is_the_papers_training_with_what_its_official_code_adds() -> None:
    recipe = named("paper").recipe
    assert recipe.optimizer == RMSProp(decay=1e-5, rho=0.9, momentum=0.9, epsilon=1e-3)
    assert recipe.rate == Exponential(peak=0.016, per=256, warmup=5, factor=0.97, every=2.4, epochs=350)
    assert recipe.norm_momentum == 0.99
    assert (recipe.average, recipe.average_share) == (0.9999, 1.0)
    assert recipe.smoothing == 0.1
    assert recipe.augment == Augment(shift=0, flip=True, crop_scale=(0.08, 1.0), policy="autoaugment")
    assert recipe.epochs == 350
    assert recipe.clip is None
    assert not recipe.suit
    assert recipe.by_name == (ByName("*.norm.*", decay=0.0),), "biases decay, as in the official code"
    assert (recipe.progressive, recipe.depth_decay, recipe.frozen_norm, recipe.balance) == (1, 1, False, False)


@given(st.integers(1, 2000), st.integers(1, 2000), st.data())
def test_the_papers_rate_is_the_official_codes_at_every_step(per_epoch: int, batch: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, 350 * per_epoch - 1))
    rate = replace(named("paper").recipe.rate, peak=0.016 * batch / 256, per=None)
    # utils.py of the official code: build_learning_rate, with its staircase of whole steps.
    initial = 0.016 * batch / 256
    decay_steps, warmup_steps = per_epoch * 2.4, per_epoch * 5
    official = initial * 0.97 ** math.floor(step / decay_steps)
    if step < warmup_steps:
        official = initial * step / warmup_steps
    ours = rate.at(step / (350 * per_epoch))
    edge = abs(step / decay_steps - round(step / decay_steps)) < 1e-9  # rounding may fall on either side of a stair
    assert ours == pytest.approx(official, rel=0.031 if edge else 1e-9)


def test_the_papers_rate_of_a_shorter_training_comes_down_as_far() -> None:
    rate = named("paper").recipe.rate
    assert rate.at(1 - 1e-9) == pytest.approx(0.016 * 0.97**145)
    assert rate.at(5 / 350) == pytest.approx(0.016 * 0.97**2)
    assert rate.at(2.5 / 350) == pytest.approx(0.008)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epoch": 3}, r"recipe: unknown key 'epoch'; the keys are epochs, batch"),
        ({"optimizer__rho": 0.9}, r"recipe\.optimizer: unknown key 'rho'"),
        ({"optimizer__kind": "adam"}, r'recipe\.optimizer: "kind" must be one of adamw, sgd, rmsprop, not "adam"'),
        ({"optimizer__decay": -1}, r"recipe\.optimizer: optimizer: decay -1 is negative"),
        ({"optimizer__beta1": 1}, r"recipe\.optimizer: optimizer: beta1 1 is not in \[0, 1\)"),
        ({"optimizer__epsilon": 0}, r"recipe\.optimizer: optimizer: epsilon 0 is not positive"),
        ({"rate__peak": 0}, r"recipe\.rate: rate: peak 0 is not positive"),
        ({"rate__peak": float("nan")}, r"recipe\.rate: rate: peak nan is not positive or no number"),
        ({"rate__per": "x"}, r'recipe\.rate\.per: must be a whole number, not "x"'),
        ({"rate__warmup": 1}, r"recipe\.rate: rate: warmup 1 is not in \[0, 1\)"),
        ({"augment__flip": 1}, r"recipe\.augment\.flip: must be true or false, not 1"),
        ({"augment__policy": "best"}, r"recipe\.augment\.policy: must be one of autoaugment, randaugment, trivial"),
        ({"augment__crop_scale": [0.9, 0.1]}, r"recipe\.augment: augment: crop_scale \(0\.9, 0\.1\)"),
        ({"by_name": [{"pattern": "*", "rate": -1}]}, r"recipe\.by_name\.0: by_name '\*': rate -1 is negative"),
        ({"epochs": 0}, r"recipe: --epochs 0"),
        ({"epochs": 1.5}, r"recipe\.epochs: must be a whole number, not 1\.5"),
        ({"batch": 1}, r"recipe: --batch 1"),
        ({"smoothing": 1}, r"recipe: recipe: smoothing 1 is not in \[0, 1\)"),
        ({"progressive": 0}, r"recipe: recipe: progressive 0 is not in \(0, 1\]"),
        ({"patience": 0}, r"recipe: recipe: patience 0 is not positive"),
        ({"norm_momentum": 1.0}, r"recipe: recipe: norm_momentum 1 is not in \[0, 1\)"),
    ],
    ids=str,
)
def test_whatever_is_wrong_in_a_recipe_is_one_line_that_names_the_place(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=rf"^mine\.json: {told}") as caught:
        read_recipe(text(**changes), "mine.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "a recipe is a JSON object"),
        ("{}", '"schema": 1'),
        ('{"schema": 2}', '"schema": 1'),
        ('{"schema": true}', '"schema": 1'),
        ('{"schema": 1}', "recipe: must be an object, not null"),
        ('{"schema": 1, "recipe": {}}', "'epochs' is missing"),
        ('{"schema": 1, "recipes": {}}', "unknown key 'recipes'"),
        ('{"schema": 1, "recipe": {"epochs": 2}, "name": 3}', '"name" and "about" are texts'),
        ('{"schema": 1, "recipe": {"epochs": 2}, "provenance": {"rate": "x"}}', "provenance of 'rate'"),
        ('{"schema": 1, "recipe": {"epochs": 2}, "provenance": {"rate.peak": 1}}', "says where fields come from"),
        ('{"schema": 1, "recipe": {"epochs": 2, "epochs": 3}}', "'epochs' is given twice"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(content: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        read_recipe(content, "mine.json")
    assert str(caught.value).startswith("mine.json: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_smallest_recipe_says_how_long_and_leaves_the_rest_to_what_is_usual() -> None:
    assert read_recipe('{"schema": 1, "recipe": {"epochs": 2}}', "x").recipe == Recipe(epochs=2)


@pytest.mark.parametrize("name", ["papre", "missing.json", "folder.json", "large.json"])
def test_a_recipe_that_cannot_be_found_or_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "large.json").write_bytes(b" " * 1_000_001)
    place = name if name == "papre" else tmp_path / name
    with pytest.raises(UserError, match=f"--recipe .*{name}") as caught:
        find_recipe(place)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return read(digit_folder(tmp_path_factory.mktemp("gray") / "digits"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Data]:
    """Small ones of one size, small ones of many, photographs of one size and of many."""
    rng, found = np.random.default_rng(0), {}
    for kind, side, varied in (("small", 20, 0), ("odd", 20, 7), ("equal", 80, 0), ("photographs", 80, 7)):
        root = tmp_path_factory.mktemp(kind)
        for label in ("a", "b"):
            (root / label).mkdir()
            for i in range(8):
                noise = rng.integers(0, 255, (side + varied * (i % 3), side, 3), np.uint8)
                Image.fromarray(noise).save(root / label / f"{i}.png")
        found[kind] = read(root)
    return found


def test_only_images_with_colours_are_mirrored(gray: Data, colours: dict[str, Data]) -> None:
    recipe = named("quick").recipe
    assert not resolve(recipe, gray).augment.flip
    assert all(resolve(recipe, images).augment.flip for images in colours.values())
    assert resolve(recipe, gray, flip=True).augment.flip
    assert not resolve(recipe, colours["small"], flip=False).augment.flip


def test_only_photographs_of_different_sizes_are_cropped_and_the_others_shifted(
    gray: Data, colours: dict[str, Data]
) -> None:
    recipe = named("quick").recipe
    for name, images in {"gray": gray, **colours}.items():
        augment = resolve(recipe, images).augment
        cropped = name == "photographs"
        assert (augment.crop_scale == (0.35, 1.0)) == cropped
        assert (augment.crop_scale is None) == (not cropped)
        assert (augment.shift == 0) == cropped


def test_as_published_a_recipe_suits_itself_to_no_images(gray: Data) -> None:
    paper = named("paper").recipe
    assert resolve(paper, gray).augment == paper.augment
    assert resolve(paper, gray).batch == len(gray.train), "no larger than the images"


def test_few_images_make_small_batches_where_the_recipe_suits_them(gray: Data) -> None:
    assert resolve(named("quick").recipe, gray).batch == 8
    assert resolve(named("quick").recipe, gray, batch=20).batch == 20


@given(batch=st.integers(2, 4096))
def test_a_rate_that_is_stated_for_a_batch_is_in_proportion_to_it(gray: Data, batch: int) -> None:
    rate = resolve(named("paper").recipe, gray, batch=batch).rate
    assert (rate.per, rate.peak) == (None, pytest.approx(0.016 * batch / 256))
    assert resolve(named("quick").recipe, gray, batch=batch).rate == named("quick").recipe.rate


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_resolved_depends_on_no_images_any_more(name: str, gray: Data, colours: dict[str, Data]) -> None:
    once = resolve(named(name).recipe, gray, epochs=7)
    assert once.epochs == 7
    assert resolve(once, colours["photographs"], batch=once.batch) == once
    assert resolve(once, gray) == once


def test_balance_that_the_recipe_asks_for_is_kept(gray: Data) -> None:
    assert resolve(replace(named("quick").recipe, balance=True), gray).balance
    assert resolve(named("quick").recipe, gray, balance=True).balance


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))
def test_patience_lasts_as_long_a_share_of_another_training_and_five_epochs_at_least(
    epochs: int, patience: int, asked: int
) -> None:
    recipe = Recipe(epochs=epochs, patience=patience).lasting(asked)
    assert recipe.epochs == asked
    assert recipe.patience is not None
    assert recipe.patience >= 5
    assert recipe.patience >= patience * asked / epochs
    assert recipe.patience < max(5, patience * asked / epochs) + 1
    assert Recipe(epochs=epochs).lasting(asked) == Recipe(epochs=asked)


def test_early_stopping_of_the_paper_only_chooses_the_epoch_however_long_it_lasts(gray: Data) -> None:
    for epochs in (1, 3, 50, 350):
        recipe = resolve(named("paper").recipe, gray, epochs=epochs)
        assert recipe.patience is not None
        assert recipe.patience >= epochs


@pytest.mark.parametrize("rate", [Cosine(), Cosine(warmup=0), Exponential(), Exponential(warmup=0)])
@given(progress=st.floats(0, 1, exclude_max=True))
def test_a_rate_is_never_above_its_peak_nor_below_zero(rate: Cosine | Exponential, progress: float) -> None:
    assert 0 <= rate.at(progress) <= rate.peak


optimizers = (
    st.builds(AdamW, st.floats(0, 1), st.floats(0, 0.99), st.floats(0, 0.99), st.floats(1e-9, 1))
    | st.builds(SGD, st.floats(0, 1), st.floats(0, 0.99), st.booleans())
    | st.builds(RMSProp, st.floats(0, 1), st.floats(0, 0.99), st.floats(0, 0.99), st.floats(1e-9, 1))
)
rates = st.builds(Cosine, st.floats(1e-6, 10), st.none() | st.integers(1, 999), st.floats(0, 0.9)) | st.builds(
    Exponential, st.floats(1e-6, 10), st.none() | st.integers(1, 999), st.floats(0, 5), st.floats(0.1, 1)
)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 999),
    batch=st.integers(2, 999),
    optimizer=optimizers,
    rate=rates,
    by_name=st.lists(st.builds(ByName, st.text(), st.floats(0, 9), st.floats(0, 9)), max_size=3).map(tuple),
    clip=st.none() | st.floats(1e-3, 99),
    augment=st.builds(Augment, flip=st.booleans(), policy=st.sampled_from((None, "autoaugment", "randaugment"))),
    balance=st.booleans(),
    norm_momentum=st.none() | st.floats(0, 0.99),
    patience=st.none() | st.integers(1, 99),
)


@given(recipes)
def test_any_recipe_is_the_same_once_written_and_read(recipe: Recipe) -> None:
    assert read_recipe(to_json(replace(named("quick"), recipe=recipe, provenance={})), "x").recipe == recipe


def test_a_recipe_whose_optimizer_was_exchanged_needs_no_other_edit() -> None:
    shown = json.loads(to_json(named("quick")))
    shown["recipe"]["optimizer"] = {"kind": "sgd", "decay": 1e-4, "momentum": 0.9, "nesterov": True}
    read = read_recipe(json.dumps(shown), "mine")
    assert read.recipe.optimizer == SGD()
    assert set(read.provenance) <= set(fields_of(read.recipe))
