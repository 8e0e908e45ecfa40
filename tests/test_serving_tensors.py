"""The Open Inference Protocol: tensors in, tensors out, and one line for whatever makes no sense."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from served import brightness, error, get, gray, post

from triscale.engines import running
from triscale.exporting import FORMATS, export
from triscale.fitting import Fitted
from triscale.models import learned
from triscale.serving import Served, opened

INFER = "/v2/models/known/infer"


def infer(request: object, **how: Any) -> httpx.Response:
    return post(INFER, json.dumps(request), **how)


def tensor(data: object, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    given = {"name": "images", "datatype": "FP32", "shape": shape or [1, 1, 2, 2], "data": data, **more}
    return {"inputs": [{key: value for key, value in given.items() if value is not None}]}


def test_a_model_of_other_channels_takes_tensors_only() -> None:
    from triscale.data import Preprocess

    served = Served("known", ("dark", "bright"), Preprocess((2, 2), 4, (0.0,) * 4, (1.0,) * 4), brightness)
    answer = post("/predict", gray(1), served)
    assert (answer.status_code, "4 channels" in error(answer)) == (415, True)
    assert infer(tensor([0.5] * 16, [1, 4, 2, 2]), served=served).status_code == 200


def test_the_model_says_what_it_takes_and_gives() -> None:
    found = get("/v2/models/known").json()
    assert found["name"] == "known"
    assert found["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 2, 2]}]
    assert [(one["name"], one["datatype"], one["shape"]) for one in found["outputs"]] == [
        ("logits", "FP32", [-1, 2]),
        ("probabilities", "FP32", [-1, 2]),
        ("labels", "BYTES", [-1]),
    ]
    assert get("/v2/models/known/versions/1").json() == found
    assert get("/v2").json()["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_are_answered_with_the_networks_own_logits(fitted: Fitted, nested: bool) -> None:
    model = learned(fitted.run.path)
    shape = (3, model.preprocess.channels, *model.preprocess.resolution)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with opened(fitted.run.path, called="known") as served:
        answer = infer(tensor(x.tolist() if nested else x.flatten().tolist(), list(shape)), served=served)
    found = {one["name"]: one for one in answer.json()["outputs"]}
    with running(model) as logits:
        expected = logits(x)
    assert found["logits"]["shape"] == found["probabilities"]["shape"] == [3, 3]
    np.testing.assert_allclose(np.reshape(found["logits"]["data"], (3, 3)), expected, atol=1e-5)
    np.testing.assert_allclose(np.reshape(found["probabilities"]["data"], (3, 3)), expected.softmax(1), atol=1e-6)
    assert found["labels"]["data"] == [model.classes[int(row.argmax())] for row in expected]


def test_the_answer_carries_the_requests_id_and_the_outputs_that_were_asked_for() -> None:
    request = tensor([0.5] * 4) | {"id": "seven", "outputs": [{"name": "labels"}]}
    found = infer(request).json()
    assert found == {
        "model_name": "known",
        "model_version": "1",
        "id": "seven",
        "outputs": [{"name": "labels", "datatype": "BYTES", "shape": [1], "data": ["bright"]}],
    }


def test_tensors_travel_as_bytes_where_that_is_asked_for() -> None:
    x = np.array([[0, 0, 0, 0], [1, 1, 1, 1]], "<f4")
    request = tensor(None, [2, 1, 2, 2], parameters={"binary_data_size": 32})
    request["outputs"] = [
        {"name": "logits", "parameters": {"binary_data": True}},
        {"name": "labels", "parameters": {"binary_data": True}},
        {"name": "probabilities"},
    ]
    text = json.dumps(request).encode()
    answer = post(INFER, text + x.tobytes(), headers={"Inference-Header-Content-Length": str(len(text))})
    end = int(answer.headers["inference-header-content-length"])
    found = {one["name"]: one for one in json.loads(answer.content[:end])["outputs"]}
    assert found["logits"]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(answer.content[end : end + 16], "<f4").tolist() == [0, 0, 0, 8]
    assert answer.content[end + 16 :] == b"\x04\0\0\0dark\x06\0\0\0bright"
    assert len(found["probabilities"]["data"]) == 4


WRONG = {
    "no JSON": "{",
    "no object": "[1]",
    "far too deep": "[" * 100_000,
    "not UTF-8": b"\xff\xfe",
    "a number of a million digits": '{"inputs": ' + "9" * 1_000_000 + "}",
    "no inputs": "{}",
    "two inputs": json.dumps({"inputs": [{}, {}]}),
    "another input": json.dumps({"inputs": [{"name": "x"}]}),
    "another datatype": json.dumps(tensor([1.0] * 4, datatype="INT8")),
    "another shape": json.dumps(tensor([1.0] * 4, [1, 4])),
    "truths among numbers": json.dumps(tensor([True, 1, 0.5, False])),
    "nested truths": json.dumps(tensor([[[[1, 1], [0.5, True]]]])),
    "nested in another shape": json.dumps(tensor([[[[1.0]], [[1.0]]], [[[1.0]], [[1.0]]]])),
    "a shape of something else": json.dumps(tensor([1.0] * 4, ["1", 1, 2, 2])),  # type: ignore[list-item]
    "no image": json.dumps(tensor([], [0, 1, 2, 2])),
    "too many images": json.dumps(tensor([1.0], [10**9, 1, 2, 2])),
    "too few values": json.dumps(tensor([1.0] * 3)),
    "uneven lists": json.dumps(tensor([[1.0], [1.0, 2.0]])),
    "texts": json.dumps(tensor(["1", "2", "3", "4"])),
    "null": json.dumps(tensor([None] * 4)),
    "a huge integer": json.dumps(tensor([10**30] * 4)),
    "beyond FP32": json.dumps(tensor([1e300] * 4)),
    "NaN": '{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [NaN, 1, 1, 1]}]}',
    "an answer beyond FP32": json.dumps(tensor([3e38] * 4)),
    "no data": json.dumps(tensor(None)),
    "bytes that are not there": json.dumps(tensor(None, parameters={"binary_data_size": 16})),
    "parameters that are none": json.dumps(tensor(None, parameters=[1])),
    "another output": json.dumps(tensor([1.0] * 4) | {"outputs": [{"name": "x"}]}),
    "outputs that are none": json.dumps(tensor([1.0] * 4) | {"outputs": [1]}),
    "an id that is none": json.dumps(tensor([1.0] * 4) | {"id": 7}),
    "a flag that is none": json.dumps(tensor([1.0] * 4) | {"parameters": {"binary_data_output": "yes"}}),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_request_that_makes_no_sense_is_refused_in_a_line(body: str | bytes) -> None:
    answer = post(INFER, body)
    assert answer.status_code == 400, answer.text
    assert len(error(answer)) < 300


@pytest.mark.parametrize("header", ["-1", "999999999999", "x", "٣", "5"])
def test_a_header_length_that_makes_no_sense_is_refused(header: str) -> None:
    answer = post(
        INFER,
        json.dumps(tensor([1.0] * 4)),
        headers={b"Inference-Header-Content-Length": header.encode()},  # type: ignore[dict-item]
    )
    assert answer.status_code == 400
    error(answer)


def test_binary_values_that_are_not_finite_are_refused() -> None:
    text = json.dumps(tensor(None, parameters={"binary_data_size": 16})).encode()
    body = text + np.array([np.nan, np.inf, 0, 0], "<f4").tobytes()
    answer = post(INFER, body, headers={"Inference-Header-Content-Length": str(len(text))})
    assert (answer.status_code, "finite" in error(answer)) == (400, True)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_exported_file_is_served_as_the_run_that_it_came_from_but_without_maps(
    fitted: Fitted, digits: Path, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(kind, kind))
    file = export(fitted.run.path, kind, out=tmp_path / f"mine{FORMATS[kind].suffix}").path
    picture = next(digits.rglob("*.png")).read_bytes()
    with opened(file) as served:
        assert (served.name, served.maps, served.platform) == ("mine", False, kind)
        assert post("/predict?map=true", picture, served).status_code == 422
        found = post("/predict", picture, served).json()
    with opened(fitted.run.path) as served:
        expected = post("/predict", picture, served).json()
    assert "map" not in found
    assert [one["name"] for one in found["classes"]] == [one["name"] for one in expected["classes"]]
    shares = [one["probability"] for one in expected["classes"]]
    assert [one["probability"] for one in found["classes"]] == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize(("more", "precision"), [({}, "fp32"), ({"int8": True, "most_lost": 0.2}, "int8")])
def test_an_exported_file_says_in_which_numbers_it_answers(
    fitted: Fitted, tmp_path: Path, more: dict[str, bool | float], precision: str
) -> None:
    pytest.importorskip("onnxruntime")
    file = export(fitted.run.path, out=tmp_path / "mine.onnx", **more).path  # type: ignore[arg-type]
    with opened(file) as served:
        assert served.precision == precision
