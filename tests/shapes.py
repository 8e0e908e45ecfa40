"""What JSON values are made of: their keys, whatever stands under them."""

from collections.abc import Collection
from typing import Any


def differing_keys(one: Any, other: Any, free: Collection[str] = (), at: str = "") -> list[str]:
    """Where only one of both has a key, as a path such as `factors[].arms[].test`; nothing where they agree.

    Of a list all dictionaries are taken together; of what is null or empty on one side nothing is known. free: keys
    whose values may have any keys.
    """
    one, other = _together(one), _together(other)
    if one is None or other is None:
        return []
    found = [f"{at}.{key}".lstrip(".") for key in sorted(one.keys() ^ other.keys())]
    for key in one.keys() & other.keys() - set(free):
        within = f"{at}.{key}".lstrip(".") + ("[]" if isinstance(one[key], list) else "")
        found += differing_keys(one[key], other[key], free, within)
    return found


def _together(value: Any) -> dict[str, Any] | None:
    """A dictionary; of a list those in it, of each key a value that is something."""
    if isinstance(value, dict):
        return value
    whole: dict[str, Any] = {}
    for each in value if isinstance(value, list) else ():
        for key, one in each.items() if isinstance(each, dict) else ():
            whole[key] = [*whole.get(key, []), *(one if isinstance(one, list) else [one])]
    return whole or None
