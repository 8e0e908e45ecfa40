"""What /openapi.json says of requests and answers that no type says."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from triscale.serving.open_inference import INPUT, OUTPUTS, metadata
from triscale.serving.opening import Served

Responses = dict[int | str, dict[str, Any]]

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_EVERYWHERE = (401, 403)
_WITH_BODY = (408, 413, 422, 503, 504)
_STRING, _NUMBER = {"type": "string"}, {"type": "number"}

PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A picture file: JPEG, PNG, WebP, GIF, BMP, TIFF or PPM.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def errors(*statuses: int) -> Responses:
    """Answers that say in a line why there is no other."""
    content = {"application/json": {"schema": _ERROR}}
    return {one: {"description": HTTPStatus(one).phrase, "content": content} for one in (*_EVERYWHERE, *statuses)}


def json(example: Mapping[str, Any], *statuses: int) -> Responses:
    """An object with these keys."""
    schema = {"type": "object", "required": list(example), "example": dict(example)}
    content = {"application/json": {"schema": schema}}
    also: Responses = {status: {"description": "Not now.", "content": content} for status in statuses if status == 503}
    return {200: {"description": "Yes.", "content": content}, **errors(422, *statuses), **also}


def text(what: str) -> Responses:
    """A text."""
    return {200: {"description": what, "content": {"text/plain": {"schema": _STRING}}}, **errors()}


def _object(required: Mapping[str, Any], **optional: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _list(of: Mapping[str, Any], **more: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(of), **more}


_CLASSES = _list(_object({"name": _STRING, "probability": _NUMBER}))
_MAP = _object({"class": _STRING, "image": _STRING})
_FOUND = _object({"model": _STRING, "classes": _CLASSES}, map=_MAP)
PREDICT: Responses = {
    200: {"description": "What the picture shows.", "content": {"application/json": {"schema": _FOUND}}},
    **errors(415, *_WITH_BODY),
}

_SHAPE = _list({"type": "integer"})
_OUTPUT = _object(
    {"name": _STRING, "datatype": _STRING, "shape": _SHAPE}, data=_list({}), parameters={"type": "object"}
)
_ANSWER = _object({"model_name": _STRING, "model_version": _STRING, "outputs": _list(_OUTPUT)}, id=_STRING)
INFER: Responses = {
    200: {
        "description": "The outputs.",
        "content": {
            "application/json": {"schema": _ANSWER},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **errors(400, 404, *_WITH_BODY),
}


def tensors(served: Served) -> dict[str, Any]:
    """The body of a request of the Open Inference Protocol."""
    (images,) = metadata(served)["inputs"]
    given = {
        "name": {"const": INPUT},
        "datatype": {"const": "FP32"},
        "shape": {**_list({"type": "integer"}, minItems=4, maxItems=4), "example": [1, *images["shape"][1:]]},
    }
    free = {"type": "object", "additionalProperties": True}
    wanted = _object({"name": {"enum": list(OUTPUTS)}}, parameters=free)
    inputs = _list(_object(given, data=_list(_NUMBER), parameters=free), minItems=1, maxItems=1)
    schema = _object({"inputs": inputs}, id=_STRING, outputs=_list(wanted), parameters=free)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
