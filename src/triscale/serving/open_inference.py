"""The Open Inference Protocol (V2): tensors in, tensors out, as JSON or, by its binary extension, as bytes.

https://github.com/open-inference/open-inference-protocol: there is one input, `images`, and three outputs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json
from torch import from_numpy

from triscale.serving.opening import Served
from triscale.serving.refusing import RefusedError

Floats = npt.NDArray[np.float32]

VERSION = "1"
INPUT = "images"
OUTPUTS = {"logits": "FP32", "probabilities": "FP32", "labels": "BYTES"}
EXTENSIONS = ["binary_tensor_data"]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """images: float32 (n, channels, h, w), all finite. outputs: names of those wanted, and whether as bytes."""

    images: Floats
    outputs: Mapping[str, bool]
    id: str | None = None


def metadata(served: Served) -> dict[str, Any]:
    """What the model takes and gives. A size of -1 is free: how many images."""
    look, count = served.preprocess, len(served.classes)
    shapes = {"logits": [-1, count], "probabilities": [-1, count], "labels": [-1]}
    return {
        "name": served.name,
        "versions": [VERSION],
        "platform": served.platform,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, look.channels, *look.resolution]}],
        "outputs": [{"name": name, "datatype": kind, "shape": shapes[name]} for name, kind in OUTPUTS.items()],
    }


def parse(served: Served, content: bytes | bytearray, header: str | None, most: int) -> Asked:
    """A request's body. header: of how many bytes its JSON is, where raw tensors follow. most: images at once.

    Raises `RefusedError` with status 400.
    """
    end = _json_bytes(header, len(content))
    try:
        values = from_json(bytes(content[:end]), allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise _wrong(f"the body is no JSON: {str(error)[:120]}") from None
    if not isinstance(values, dict):
        raise _wrong("the body is no JSON object")
    inputs, identity = values.get("inputs"), values.get("id")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong(f"inputs: is not a list of the one input {INPUT!r}")
    if identity is not None and not isinstance(identity, str):
        raise _wrong("id: is no string")
    images = _images(served, inputs[0], memoryview(content)[end:], most)
    return Asked(images, _outputs(values), identity)


def answer(served: Served, asked: Asked, logits: Floats) -> tuple[bytes, int | None]:
    """The body of the answer, and of how many bytes its JSON is where raw tensors follow.

    Raises `RefusedError` where images of large values have overflown.
    """
    if not np.isfinite(logits).all():
        raise _wrong(f"{INPUT}: its values are so large that the network's answer is not finite; preprocess them")
    outputs, raw = [], []
    for name, binary in asked.outputs.items():
        values = _output(served, name, logits)
        output: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": list(values.shape)}
        if binary:
            raw.append(_bytes(values))
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    said = {"model_name": served.name, "model_version": VERSION, "outputs": outputs}
    text = json.dumps(said if asked.id is None else {**said, "id": asked.id}).encode()
    return (text + b"".join(raw), len(text)) if raw else (text, None)


def softmax(logits: Floats) -> Floats:
    """(n, classes) → probabilities, the same that `triscale predict` shows."""
    return np.asarray(from_numpy(logits).softmax(1).numpy())


def _output(served: Served, name: str, logits: Floats) -> npt.NDArray[Any]:
    if name == "labels":
        return np.array([served.classes[index] for index in logits.argmax(1)], dtype=object)
    return logits if name == "logits" else softmax(logits)


def _bytes(values: npt.NDArray[Any]) -> bytes:
    """Row by row; little-endian floats, strings each behind its length in four bytes."""
    if values.dtype != object:
        return values.astype("<f4").tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _json_bytes(header: str | None, length: int) -> int:
    if header is None:
        return length
    if not header.isascii() or not header.isdecimal() or len(header) > 12 or int(header) > length:
        raise _wrong(f"Inference-Header-Content-Length {header[:20]!r}: is no size within the body of {length} bytes")
    return int(header)


def _images(served: Served, given: Mapping[str, Any], raw: memoryview, most: int) -> Floats:
    look = served.preprocess
    wanted = (look.channels, *look.resolution)
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    if name != INPUT:
        raise _wrong(f"input {_short(name)}: is unknown; the one input is {INPUT!r}")
    if datatype != "FP32":
        raise _wrong(f"{INPUT}: datatype {_short(datatype)} is not FP32")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape) or tuple(shape[1:]) != wanted:
        raise _wrong(f"{INPUT}: shape {_short(shape)} is not [n, {', '.join(map(str, wanted))}]")
    if not 1 <= shape[0] <= most:
        raise _wrong(f"{INPUT}: {shape[0]} images at once; send 1 to {most}")
    values = _values(given, raw, shape)
    if values.size != np.prod(shape):
        raise _wrong(f"{INPUT}: {values.size} values for the shape {shape}")
    with np.errstate(all="ignore"):
        images = values.astype(np.float32).reshape(shape)
    if not np.isfinite(images).all():
        raise _wrong(f"{INPUT}: not all values are finite in FP32")
    return images


def _values(given: Mapping[str, Any], raw: memoryview, shape: Sequence[int]) -> npt.NDArray[Any]:
    """In one row, as many as were sent."""
    size = _parameters(given).get("binary_data_size")
    if size is not None:
        if type(size) is not int or size != len(raw) or size % 4 or "data" in given:
            raise _wrong(f"{INPUT}: binary_data_size {_short(size)} does not fit the {len(raw)} bytes that follow")
        return np.frombuffer(raw, "<f4")
    data = given.get("data")
    if not isinstance(data, list) or len(raw):
        raise _wrong(f"{INPUT}: has no list of values as its data")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError):
        raise _wrong(f"{INPUT}: its data are lists of uneven lengths") from None
    if values.dtype.kind not in "iuf" or _has_truths(data):
        raise _wrong(f"{INPUT}: its data are not all numbers")
    if values.ndim > 1 and list(values.shape) != list(shape):
        nested = f"its data are nested as {list(values.shape)}, and its shape is {list(shape)}"
        raise _wrong(f"{INPUT}: {nested}; nest them so, or send one flat list")
    return values.ravel()


def _has_truths(data: list[Any]) -> bool:
    """Whether there are truth values among the numbers, which NumPy takes for 1 and 0."""
    inner = isinstance(data[0], list) if data else False
    return any(map(_has_truths, data)) if inner else bool in map(type, data)


def _outputs(values: Mapping[str, Any]) -> dict[str, bool]:
    """The outputs that are wanted, all of them where none is named."""
    otherwise = _flag(_parameters(values), "binary_data_output", False)
    given = values.get("outputs")
    if given is None:
        return dict.fromkeys(OUTPUTS, otherwise)
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise _wrong("outputs: is no list of objects with a name")
    found: dict[str, bool] = {}
    for one in given:
        name = one.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise _wrong(f"output {_short(name)}: is unknown; there are {', '.join(OUTPUTS)}")
        found[name] = _flag(_parameters(one), "binary_data", otherwise)
    return found or dict.fromkeys(OUTPUTS, otherwise)


def _flag(parameters: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise _wrong(f"{name} {_short(value)}: is neither true nor false")
    return value


def _parameters(of: Mapping[str, Any]) -> Mapping[str, Any]:
    found = of.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong("parameters: is no object")
    return found


def _short(value: object) -> str:
    """What was sent, so far as it fits a line."""
    long = isinstance(value, Sequence | Mapping) and len(value) > 40
    text = f"of {type(value).__name__}" if long else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _wrong(reason: str) -> RefusedError:
    return RefusedError(400, reason)
