"""One way to name a network everywhere: zoo name, JSON file, run directory, safetensors file."""

import json
from difflib import get_close_matches
from pathlib import Path

from triscale.arch.files import from_json, load
from triscale.arch.spec import Architecture, SpecError
from triscale.arch.zoo import ZOO, published

MODEL_FILE = "model.safetensors"
FOUND = "network.json"  # what a search leaves behind
# Files of an export describe a network to engines, not to us: ending → where such a file is taken.
EXPORTED = {
    ".onnx": "only `serve` and `bench` take it",
    ".xml": "only `serve` and `bench` take it",
    ".pt2": "PyTorch opens it, Triscale does not",  # it may hold code
}
MAX_HEADER = 100_000_000  # bytes; what the safetensors format itself allows


def sides(resolution: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) in pixels of what may be one side of a square; None stays open."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def resolve(name: str | Path) -> Architecture:
    """The architecture that a name means. Raises `SpecError` naming what was tried and what there is."""
    if str(name) in ZOO:
        return published(str(name))
    path = Path(name)
    try:
        if path.is_dir():
            place = path
            path = place / MODEL_FILE
            if not path.is_file():
                path = place / FOUND
            if not path.is_file():
                raise SpecError(f"{place}: a directory without {MODEL_FILE}; name a finished run, or a JSON file")
        is_file = path.is_file()
    except OSError as error:  # a name too long for a file, or a folder that may not be entered
        raise SpecError(f"{str(name)[:200]!r} is no network: {error.strerror or error}") from None
    if path.suffix == ".safetensors" and is_file:
        return from_json(read_metadata(path)["architecture"], str(path))
    if path.suffix in EXPORTED and is_file:
        raise SpecError(f"{path}: an exported file; {EXPORTED[path.suffix]}; name a zoo name, or the run it came from")
    if path.suffix == ".json" or is_file:
        return load(path)
    near = get_close_matches(str(name), ZOO, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise SpecError(
        f"{str(name)!r} is no network: neither in the zoo nor a JSON file, a run directory or a safetensors file; "
        f"{hint}`triscale models` lists the zoo"
    )


def read_metadata(path: Path) -> dict[str, str]:
    """What a model file says of itself, without its tensors. Raises `SpecError` for a file that Triscale did not write.

    The format: eight bytes of header length, little-endian, then a JSON object whose `__metadata__` holds texts.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 2 <= length <= MAX_HEADER else b""
        metadata = json.loads(header)["__metadata__"]
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}; name a model file that can be read") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("architecture"), str):
        raise SpecError(f"{path}: no architecture in its metadata; it is no model that Triscale wrote")
    return metadata
