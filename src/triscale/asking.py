"""Checks that several requests share: each option in one line that names its value and a way out. No torch."""

from triscale.errors import UserError

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


def check_count(option: str, count: int | None) -> None:
    """Raises `UserError` for fewer than one. option: without its dashes. None leaves it open."""
    if count is not None and count < 1:
        raise UserError(f"--{option} {count}: at least 1")
