"""An `Architecture` as JSON, both ways: one row per stage, strict, with errors that name the place and a way out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triscale.arch.spec import Architecture, SpecError
from triscale.errors import UserError
from triscale.plain import from_plain, read_json, short, to_plain

SCHEMA = 1
MAX_BYTES = 4_000_000  # a spec of 64 stages has some twelve thousand


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The network as plain JSON values, the schema version and the name first."""
    fields = to_plain(architecture)
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
        raise SpecError(f"{source}: a network is a JSON object, not {short(values)}")
    if "schema" not in values:
        raise SpecError(f'{source}: no "schema"; a network file starts with "schema": {SCHEMA}')
    if values["schema"] != SCHEMA or type(values["schema"]) is not int:
        raise SpecError(
            f"{source}: schema {short(values['schema'])} is not known here; this version reads schema {SCHEMA}"
        )
    fields = {key: value for key, value in values.items() if key != "schema"}
    try:
        return from_plain(Architecture, fields, source)
    except UserError as error:
        raise SpecError(str(error)) from None


def from_json(text: str | bytes, source: str = "architecture") -> Architecture:
    """The network that a JSON text describes. Raises `SpecError` for anything that is not one."""
    try:
        values = read_json(text, source)
    except UserError as error:
        raise SpecError(f"{error}; name a file that describes a network") from None
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
