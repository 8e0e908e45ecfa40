"""Checks that several requests share: each option in one line that names its value and a way out. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triscale.errors import UserError
from triscale.plain import short
from triscale.scaling.budget import ANALYTIC, MEASURED, show

MOST_SEED = 2**32 - 1  # trials count on from it; generators take twice the bits


def check_seed(seed: object) -> None:
    """Raises `UserError` where it is no whole number from 0 to `MOST_SEED`."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise UserError(f"--seed {seed!r}: a seed is a whole number from 0 to {MOST_SEED}")


def check_time(seconds: float | None, example: str) -> None:
    """Raises `UserError` for a limit of wall clock that is not positive, or has no end. example: one as people type
    it. None is no limit."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UserError(f"--time of {seconds:g} seconds is not positive; write for example {example}")


def check_count(option: str, count: int | None, least: int = 1) -> None:
    """Raises `UserError` for fewer than the least. option: without its dashes. None leaves it open."""
    if count is not None and count < least:
        raise UserError(f"--{option} {count}: at least {least}")


def check_same(
    named: Mapping[str, Any], before: Mapping[str, Any], in_effect: Mapping[str, Any], place: Path, because: str = ""
) -> None:
    """Raises `UserError` where a run that goes on is told something else than it was begun with. What it was begun
    with may be said once more, and what came of that.

    named: what is said, by parameter, as JSON. before: the same as the run in `place` was begun. in_effect: what came
    of some of it. because: why it cannot be another.
    """
    for key, value in named.items():
        if value not in (before.get(key), in_effect.get(key, before.get(key))):
            option, was = f"--{key.replace('_', '-')}", in_effect.get(key, before.get(key))
            said = _said(option, key, value)
            raise UserError(
                f"{said}: {place} was begun {_begun(option, key, value, was)}{because}; leave "
                f"{said.split()[0]} out to go on, or name another --out"
            )


def _said(option: str, key: str, value: object) -> str:
    """An option with its value, as people type them. A network and a recipe have no short form."""
    if isinstance(value, bool):
        return option if value else option.replace("--", "--no-", 1)
    return option if _networks(value) else f"{option} {_typed(key, value)}"


def _begun(option: str, key: str, value: object, was: object) -> str:
    if _networks(was):
        return "with another one"
    if isinstance(value, bool):
        return f"with {_said(option, key, was)}" if was else "without it"
    return "with none" if was is None else f"with {_typed(key, was)}"


def _networks(value: object) -> bool:
    """Or a recipe: nothing that people type."""
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(one, Mapping) for one in value))


def _typed(key: str, value: object) -> str:
    if key in (*ANALYTIC, *MEASURED) and isinstance(value, int | float):
        return show(key, value)
    if key == "time" and isinstance(value, int | float):
        return f"{value:g}s"
    if key == "resolution" and isinstance(value, list):
        return "x".join(map(str, value))
    return short(value).strip('"')
