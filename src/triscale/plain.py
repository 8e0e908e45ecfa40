"""Dataclasses as plain JSON values, both ways: strict, with errors that name the place, the value and a way out.

The shapes are few: dataclasses, texts, numbers, booleans, fixed choices, tuples, one of these or nothing, and one of
several dataclasses that differ in their `kind`.
"""

import dataclasses
import json
import types
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from triscale.errors import UserError

T = TypeVar("T")
MAX_BYTES = 1_000_000  # of a file that people write


def to_plain(value: Any) -> Any:
    """A dataclass as JSON values; where it has a `kind`, that comes first, as a reader expects it."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        names.sort(key=lambda name: name != "kind")
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def read_small(path: Path, option: str, what: str) -> bytes:
    """The content of a JSON file that people write. Raises `UserError` naming the option and the file where it cannot
    be read, or is too large to be `what`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror or error}; name a JSON file that can be read") from None
    if len(text) > MAX_BYTES:
        raise UserError(f"{option} {path}: larger than {MAX_BYTES:,} bytes; that is no {what}")
    return text


def read_json(text: str | bytes, source: str) -> Any:
    """The values of a JSON text in which no key is given twice. Raises `UserError` naming `source`."""
    try:
        return json.loads(text, object_pairs_hook=_no_repeats)
    except RecursionError:
        raise UserError(f"{source}: nested too deep") from None
    except UnicodeDecodeError:
        raise UserError(f"{source}: not JSON, not even text") from None
    except ValueError as error:
        raise UserError(f"{source}: not JSON: {error}") from None


def from_plain(kind: type[T], value: Any, source: str, place: str = "") -> T:
    """`value` as `kind`. Raises `UserError` naming `source`, the place in it and the value."""
    return cast(T, _decode(kind, value, source, place))


def short(value: object) -> str:
    """A value as an error line shows it."""
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists to the interpreter's limit
        return f"a {type(value).__name__} too large to show"
    return clipped(text)


def clipped(text: str) -> str:
    """A text as an error line shows it."""
    return text if len(text) <= 60 else text[:57] + "…"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"{clipped(next(key for key in names if names.count(key) > 1))!r} is given twice")
    return values


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode(kind: Any, value: Any, source: str, place: str) -> Any:
    where = f"{source}: {place}" if place else source
    origin, options = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(cast(type, kind), value, source, place)
    if origin in (Union, types.UnionType):
        if type(None) not in options:
            return _decode_kinds(options, value, source, place)
        return None if value is None else _decode(options[0], value, source, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: must be a list, not {short(value)}")
        if options[-1] is not Ellipsis and len(value) != len(options):
            raise UserError(f"{where}: must have {len(options)} values, not {short(value)}")
        join = f"{place}." if place else ""
        return tuple(_decode(options[0], item, source, f"{join}{i}") for i, item in enumerate(value))
    if origin is Literal and value not in options:
        raise UserError(f"{where}: must be one of {', '.join(map(str, options))}, not {short(value)}")
    if kind is float and type(value) is int and abs(value) < 1e18:
        return float(value)
    if kind in (int, float, bool, str) and type(value) is not kind:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UserError(f"{where}: must be {names[kind]}, not {short(value)}")
    return value


def _decode_kinds(kinds: tuple[Any, ...], value: Any, source: str, place: str) -> Any:
    by_name = {kind.__dataclass_fields__["kind"].default: kind for kind in kinds}
    name = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in by_name:
        found = short(name) if isinstance(value, dict) else short(value)
        raise UserError(f'{source}: {place}: "kind" must be one of {", ".join(map(str, by_name))}, not {found}')
    return _decode_fields(by_name[name], {k: v for k, v in value.items() if k != "kind"}, source, place)


def _decode_fields(kind: type, value: Any, source: str, place: str) -> Any:
    where = f"{source}: {place}" if place else source
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be an object, not {short(value)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in value:
        if key not in fields:
            raise UserError(f"{where}: unknown key {clipped(key)!r}; the keys are {', '.join(fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise UserError(f"{where}: {name!r} is missing")
    hints = _hints(kind)
    join = f"{place}." if place else ""
    decoded = {key: _decode(hints[key], item, source, f"{join}{key}") for key, item in value.items()}
    try:
        return kind(**decoded)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
