"""Quantities as people type them: ``400M``, ``1.2G``, ``10ms``, ``50MB``, ``5m``; and as people read them."""

import math
import re
from collections.abc import Mapping
from itertools import pairwise

from triscale.errors import UserError

_COUNTS: Mapping[str, float] = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BYTES: Mapping[str, float] = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS: Mapping[str, float] = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZµ"
_QUANTITY = re.compile(
    # A comma groups thousands: 1,5M is somebody's decimal comma, and fifteen million would be the wrong guess.
    r"\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
    r"\s*([a-zA-Zµ]*)\s*"
)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµ]+)")


def _parse(text: str, what: str, units: Mapping[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise UserError(f"{what}: {text!r} is not a quantity; write for example {example}")
    value = float(match[1].replace(",", "").replace("_", "")) * units[match[2].lower()]
    if not math.isfinite(value) or value <= 0:
        raise UserError(f"{what}: {text!r} is not a positive quantity; write for example {example}")
    return value


def parse_count(text: str, what: str = "count") -> int:
    """``400M`` → 400,000,000 (k, M, G or B, T; decimal). Raises `UserError`."""
    value = round(_parse(text, what, _COUNTS, "400M or 1.2G"))
    if value < 1:
        raise UserError(f"{what}: {text!r} is less than one; write for example 400M or 1.2G")
    return value


def format_epochs(count: int) -> str:
    """``1 epoch``, ``1,200 epochs``."""
    return f"{count:,} {'epoch' if count == 1 else 'epochs'}"


def parse_bytes(text: str, what: str = "size") -> int:
    """``50MB`` → 50,000,000 bytes (MB = 10⁶ bytes, MiB = 2²⁰). Raises `UserError`."""
    return max(1, round(_parse(text, what, _BYTES, "50MB or 1.5GB")))


def parse_seconds(text: str, what: str = "time") -> float:
    """``10ms`` → 0.010, ``5m`` → 300 seconds; of several parts, larger ones first, their sum: ``2 h 5 min``, as
    `format_seconds` writes it. Raises `UserError`."""
    parts = _PART.findall(text)
    sizes = [_SECONDS.get(unit.lower(), 0.0) for _, unit in parts]
    if len(parts) > 1 and _PART.sub("", text).strip() == "" and all(a > b > 0 for a, b in pairwise(sizes)):
        found = math.fsum(float(number) * size for (number, _), size in zip(parts, sizes, strict=True))
        if 0 < found < math.inf:
            return found
    return _parse(text, what, _SECONDS, "10ms, 90s, 5m or 1h30m")


def parse_seconds_or_none(text: str, what: str) -> float:
    """The same, or 0, with a unit or without, where none are wanted."""
    number, unit = text.strip().rstrip(_LETTERS).strip(), text.strip().lstrip("0.").strip().lower()
    none = number.strip("0") in ("", ".") and "0" in number and number.count(".") <= 1
    return 0.0 if none and (not unit or unit in _SECONDS) else parse_seconds(text, what)


def format_count(value: float) -> str:
    """Four significant digits with the field's suffix: 385,814,752 → ``385.8M``."""
    for suffix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.99995:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def format_bytes(value: float) -> str:
    """Decimal units: 21,154,192 → ``21.15 MB``."""
    for suffix, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size * 0.99995:
            return f"{value / size:.4g} {suffix}"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """``4.2 ms``, ``37 s``, ``5 min 10 s``, ``2 h 5 min``."""
    if value < 0.9995e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes} min"
