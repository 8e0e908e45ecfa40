"""An `Architecture` as JSON, both ways: one row per stage, strict, with errors that name the place and a way out."""

import dataclasses
import json
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from triscale.arch.spec import BLOCKS, Architecture, Block, SpecError

SCHEMA = 1
MAX_BYTES = 4_000_000  # a spec of 64 stages has some twelve thousand


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The network as plain JSON values, the schema version and the name first."""
    fields = _plain(architecture)
    return {"schema": SCHEMA, "name": fields.pop("name"), **fields}


def to_json(architecture: Architecture) -> str:
    """The network as a JSON text, a stage a line, so that a difference between two networks is a line."""
    values = to_dict(architecture)
    stages = ",\n    ".join(json.dumps(stage) for stage in values["stages"])
    rows = [
        f'  "{key}": ' + (f"[\n    {stages}\n  ]" if key == "stages" else json.dumps(value, ensure_ascii=False))
        for key, value in values.items()
    ]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def from_dict(values: Mapping[str, Any], source: str = "architecture") -> Architecture:
    """The network that plain JSON values describe. Raises `SpecError` naming `source`, the place, the value."""
    if not isinstance(values, dict):
        raise SpecError(f"{source}: a network is a JSON object, not {_short(values)}")
    if "schema" not in values:
        raise SpecError(f'{source}: no "schema"; a network file starts with "schema": {SCHEMA}')
    if values["schema"] != SCHEMA or type(values["schema"]) is not int:
        raise SpecError(
            f"{source}: schema {_short(values['schema'])} is not known here; this version reads schema {SCHEMA}"
        )
    fields = {key: value for key, value in values.items() if key != "schema"}
    architecture: Architecture = _decode(Architecture, fields, source, "")
    return architecture


def from_json(text: str | bytes, source: str = "architecture") -> Architecture:
    """The network that a JSON text describes. Raises `SpecError` for anything that is not one."""
    try:
        values = json.loads(text, object_pairs_hook=_no_repeats)
    except RecursionError:
        raise SpecError(f"{source}: nested too deep for a network") from None
    except UnicodeDecodeError:
        raise SpecError(f"{source}: not JSON, not even text; name a file that describes a network") from None
    except ValueError as error:
        raise SpecError(f"{source}: not JSON: {error}") from None
    return from_dict(values, source)


def load(path: Path) -> Architecture:
    """The network in a JSON file. Raises `SpecError` naming the file."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}; name a JSON file that can be read") from None
    except ValueError as error:  # a name with a null character
        raise SpecError(f"{str(path)!r}: {error}; name a JSON file that can be read") from None
    if len(text) > MAX_BYTES:
        raise SpecError(f"{path}: larger than {MAX_BYTES:,} bytes; that is no network description")
    return from_json(text, str(path))


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in names if names.count(key) > 1)!r} is given twice")
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        names.sort(key=lambda name: name != "kind")  # a block's kind first, as a reader expects it
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _short(value: object) -> str:
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists to the interpreter's limit
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "…"


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode(kind: Any, value: Any, source: str, place: str) -> Any:
    """`value` as `kind`, one of the few shapes that `spec` uses."""
    where = f"{source}: {place}" if place else source
    origin, options = get_origin(kind), get_args(kind)
    if kind == Block:
        return _decode_block(value, source, place)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(cast(type, kind), value, source, place)
    if origin in (Union, types.UnionType):  # channels: int | None
        return None if value is None else _decode(options[0], value, source, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise SpecError(f"{where}: must be a list, not {_short(value)}")
        if options[-1] is not Ellipsis and len(value) != len(options):
            raise SpecError(f"{where}: must have {len(options)} values, not {_short(value)}")
        join = f"{place}." if place else ""
        return tuple(_decode(options[0], item, source, f"{join}{i}") for i, item in enumerate(value))
    if origin is Literal and value not in options:
        raise SpecError(f"{where}: must be one of {', '.join(map(str, options))}, not {_short(value)}")
    if kind is float and type(value) is int and abs(value) < 1e18:
        return float(value)
    if kind in (int, float, bool, str) and type(value) is not kind:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise SpecError(f"{where}: must be {names[kind]}, not {_short(value)}")
    return value


def _decode_block(value: Any, source: str, place: str) -> Any:
    kinds = {block.__dataclass_fields__["kind"].default: block for block in BLOCKS}
    name = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in kinds:
        found = _short(name) if isinstance(value, dict) else _short(value)
        raise SpecError(f'{source}: {place}: "kind" must be one of {", ".join(map(str, kinds))}, not {found}')
    return _decode_fields(kinds[name], {k: v for k, v in value.items() if k != "kind"}, source, place)


def _decode_fields(kind: type, value: Any, source: str, place: str) -> Any:
    where = f"{source}: {place}" if place else source
    if not isinstance(value, dict):
        raise SpecError(f"{where}: must be an object, not {_short(value)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in value:
        if key not in fields:
            raise SpecError(f"{where}: unknown key {key!r}; the keys are {', '.join(fields)}")
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    for name in required:
        if name not in value:
            raise SpecError(f"{where}: {name!r} is missing")
    hints = _hints(kind)
    join = f"{place}." if place else ""
    decoded = {key: _decode(hints[key], item, source, f"{join}{key}") for key, item in value.items()}
    try:
        return kind(**decoded)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
