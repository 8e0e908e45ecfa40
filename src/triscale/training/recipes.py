"""Recipes by name and as files: strict JSON with a source for every field; and what planning makes of one."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import get_args

from triscale.data import PHOTOGRAPH, Data
from triscale.errors import UserError
from triscale.plain import from_plain, read_json, read_small, short, to_plain
from triscale.training.recipe import Optimizer, Rate, Recipe

SCHEMA = 1
RECIPES = ("paper", "modern", "finetune", "quick")
_KINDS = {"optimizer": get_args(Optimizer), "rate": get_args(Rate)}
_KEYS = ("schema", "name", "about", "recipe", "provenance")


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe as it is published: its name, what it is for, and where each field comes from (`rate.peak` → source)."""

    name: str
    about: str
    recipe: Recipe
    provenance: Mapping[str, str]


def named(name: str) -> NamedRecipe:
    """One of `RECIPES`."""
    return read_recipe((files("triscale.training") / "named" / f"{name}.json").read_bytes(), f"recipe {name}")


def find_recipe(name: str | Path) -> NamedRecipe:
    """The recipe that a name or a JSON file means. Raises `UserError`."""
    if str(name) in RECIPES:
        return named(str(name))
    path = Path(name)
    if path.suffix != ".json" and not path.is_file():
        raise UserError(f"--recipe {str(name)!r}: neither a JSON file nor one of {', '.join(RECIPES)}")
    return read_recipe(read_small(path, "--recipe", "recipe"), str(path))


def read_recipe(text: str | bytes, source: str) -> NamedRecipe:
    """The recipe that a JSON text describes. Raises `UserError` naming `source`, the place and the value."""
    values = read_json(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source}: a recipe is a JSON object, not {short(values)}")
    for key in values:
        if key not in _KEYS:
            raise UserError(f"{source}: unknown key {key!r}; the keys are {', '.join(_KEYS)}")
    if values.get("schema") != SCHEMA or type(values.get("schema")) is not int:
        raise UserError(f'{source}: a recipe starts with "schema": {SCHEMA}, the one that this version reads')
    recipe = from_plain(Recipe, values.get("recipe"), source, "recipe")
    name, about = (values.get(key, "") for key in ("name", "about"))
    if not isinstance(name, str) or not isinstance(about, str):
        raise UserError(f'{source}: "name" and "about" are texts')
    return NamedRecipe(name, about, recipe, _provenance(values.get("provenance", {}), recipe, source))


def _provenance(values: object, recipe: Recipe, source: str) -> dict[str, str]:
    known = set(fields_of(recipe))
    others = {f"{part}.{field.name}" for part, kinds in _KINDS.items() for kind in kinds for field in fields(kind)}
    if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
        raise UserError(f'{source}: "provenance" says where fields come from: {{"rate.peak": "a source"}}')
    for field in values:  # those of another kind of optimizer or rate were left by whoever exchanged it
        if field not in known | others:
            raise UserError(f"{source}: provenance of {field!r}, which is no field of the recipe; rate.peak is one")
    return {field: text for field, text in values.items() if field in known}


def fields_of(recipe: Recipe) -> Iterator[str]:
    """Every field by its path, such as `rate.peak`; a list is one field."""
    for key, value in to_plain(recipe).items():
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in value)
        else:
            yield key


def to_json(one: NamedRecipe) -> str:
    """The recipe as a file: edit it and name it wherever a recipe is meant."""
    values = {
        "schema": SCHEMA,
        "name": one.name,
        "about": one.about,
        "recipe": to_plain(one.recipe),
        "provenance": dict(one.provenance),
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def resolve(
    recipe: Recipe,
    images: Data,
    *,
    epochs: int | None = None,
    batch: int | None = None,
    flip: bool | None = None,
    balance: bool = False,
) -> Recipe:
    """The recipe in numbers for these images: nothing in it depends on anything any more.

    Where it is to suit them: pictures are mirrored only where they have colours, cropped only where they are
    photographs of different sizes (others are shifted), and a batch is at most a sixteenth of the training images. What
    is given here goes before. A rate that is stated for `per` images becomes the rate of the batch.
    """
    augment, most = recipe.augment, len(images.train)
    if recipe.suit:
        photographs = min(images.size) >= PHOTOGRAPH and not images.uniform
        augment = replace(
            augment,
            flip=augment.flip and images.channels == 3,
            crop_scale=augment.crop_scale if photographs else None,
            shift=0.0 if photographs and augment.crop_scale else augment.shift,
        )
        most = max(8, most // 16)
    size = max(2, min(recipe.batch, most)) if batch is None else batch
    rate = recipe.rate
    if rate.per is not None:
        rate = replace(rate, peak=rate.peak * size / rate.per, per=None)
    lasting = recipe if epochs is None else recipe.lasting(epochs)
    return replace(
        lasting,
        batch=size,
        rate=rate,
        augment=augment if flip is None else replace(augment, flip=flip),
        balance=balance or recipe.balance,
        suit=False,
    )
