import json
import math
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from triscale.arch import Architecture, Head, MBConv, Stage, Stem, to_json
from triscale.arch.resolve import FOUND
from triscale.data import Images, Preprocess
from triscale.data.pictures import Memory
from triscale.engines.memory import measure_memory
from triscale.engines.native import available
from triscale.errors import UserError
from triscale.evaluating import predict_images
from triscale.fitting import Fitted
from triscale.models import Features, Model, features, load, predict
from triscale.models.model import new

TINY = Architecture(
    (Stage(MBConv(3, 2), 8, 2, 2),), stem=Stem(8), head=Head(3, 16), resolution=(32, 24), name="tiny-network"
)
LOOK = Preprocess((32, 24), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), crop=0.9)


def tiny(seed: int = 0) -> Model:
    return new(TINY, ("cat", "狗", "rocket"), LOOK, seed=seed).eval()


def test_a_saved_model_comes_back_whole(tmp_path: Path) -> None:
    model = tiny()
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert (again.architecture, again.architecture.name) == (TINY, "tiny-network")
    assert again.classes == ("cat", "狗", "rocket")
    assert again.preprocess == LOOK
    assert again.trained
    assert not again.training
    x = torch.randn(2, 3, 32, 24)
    with torch.no_grad():
        assert torch.equal(model(x), again(x))


def test_the_same_model_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    tiny().save(tmp_path / "a.safetensors")
    tiny().save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_zoo_name_gives_an_untrained_model_with_the_papers_preprocessing() -> None:
    model = load("mobilenet_v2")
    assert not model.trained
    assert len(model.classes) == 1000
    assert model.preprocess.crop == 0.875
    assert model.preprocess(Image.fromarray(load_sample_image("china.jpg"))).shape == (3, 224, 224)


def test_what_a_search_found_is_a_network_without_weights(tmp_path: Path) -> None:
    (tmp_path / FOUND).write_text(to_json(TINY))
    model = load(tmp_path)
    assert (model.architecture, model.trained) == (TINY, False)


def test_a_model_predicts_names_with_probabilities(fitted: Fitted, digits: Path) -> None:
    model = load(fitted.run.path)
    answer = model.predict(digits / "digit-0" / "000.png", top=2)
    assert len(answer) == 2
    assert answer[0][1] >= answer[1][1] > 0
    assert {name for name, _ in answer} <= set(model.classes)


def gray(model: Model) -> Images:
    pixels = np.full((1, *model.preprocess.resolution, model.preprocess.channels), 128, np.uint8)
    return Images(np.zeros(1, np.int64), ("gray.png",), (bytes(32),), Memory(pixels))


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, picture: model.predict(picture),
        lambda model, picture: features(model, picture),
        lambda model, picture: list(predict(model, picture)),
        lambda model, picture: predict_images(model, gray(model)),
        lambda model, _: measure_memory(model, device=torch.device("cpu")),
    ],
)
def test_predicting_leaves_every_parts_mode_as_it_was(
    digits: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Model, Path], object]
) -> None:
    monkeypatch.setattr("triscale.engines.logits.engine_for", lambda *_: "torch")
    model = load(fitted.run.path).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):  # frozen, as in fine-tuning
            part.eval()
    before = [part.training for part in model.modules()]
    ask(model, digits / "digit-0" / "000.png")
    assert [part.training for part in model.modules()] == before
    assert len(set(before)) == 2


def test_random_weights_are_not_asked_for_answers(digits: Path) -> None:
    with pytest.raises(UserError, match="random weights"):
        predict("efficientnet_b0", digits)


def test_a_picture_that_cannot_be_read_does_not_hide_the_others(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    guesses = list(predict(fitted.run.path, [tmp_path / "torn.png", digits / "digit-0" / "000.png"]))
    assert guesses[0].error is not None
    assert "torn.png" in guesses[0].error
    assert guesses[1].error is None
    assert guesses[1].classes


@pytest.mark.parametrize("top", [0, -1])
def test_no_class_at_all_is_refused_before_any_picture_is_asked_for(fitted: Fitted, digits: Path, top: int) -> None:
    with pytest.raises(UserError, match=f"--top {top}"):
        predict(fitted.run.path, digits, top=top)
    with pytest.raises(UserError, match=f"--top {top}: at least one class is shown"):
        fitted.model.predict(digits / "digit-0" / "000.png", top=top)


@pytest.mark.parametrize("ask", [predict, features])
def test_progress_is_told_before_the_first_picture_and_after_each(
    fitted: Fitted,
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[..., object],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("triscale.models.predicting.BATCH", 4)
    (tmp_path / "torn.png").write_bytes(b"no picture")
    told: list[tuple[int, int]] = []
    pictures = [tmp_path / "torn.png", *sorted(digits.rglob("*.png"))[:9]]
    found = ask(fitted.run.path, pictures, progress=lambda done, total: told.append((done, total)))
    assert isinstance(found, Features) or len(list(cast(Iterator[object], found))) == 10
    assert told == [(done, 10) for done in range(11)]


def _damaged(tmp_path: Path, kind: str) -> Path:
    place = tmp_path / "m.safetensors"
    tiny().save(place)
    data = place.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if kind == "truncated":
        place.write_bytes(data[: len(data) // 2])
    elif kind == "zero bytes":
        place.write_bytes(b"")
    elif kind == "a pickle":
        place.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    elif kind == "huge header":
        place.write_bytes(struct.pack("<Q", 2**62) + data[8:])
    elif kind == "no metadata":
        safetensors.torch.save_file({"x": torch.zeros(1)}, place)
    else:
        metadata = dict(header["__metadata__"])
        if kind == "another network":
            metadata["architecture"] = to_json(Architecture((Stage(MBConv(), 16),), stem=Stem(8), head=Head(3)))
        elif kind == "too few classes":
            metadata["classes"] = json.dumps(["cat"])
        elif kind == "no preprocessing":
            del metadata["preprocess"]
        elif kind.startswith("deep "):
            metadata[kind.removeprefix("deep ")] = "[" * 100_000
        elif kind == "another resolution":
            metadata["preprocess"] = metadata["preprocess"].replace("[32, 24]", "[100000, 100000]")
        elif kind == "a class twice":
            metadata["classes"] = json.dumps(["cat", "cat", "dog"])
        elif kind == "broken architecture":
            metadata["architecture"] = metadata["architecture"].replace('"kernel": 3', '"kernel": 4')
        tensors = tiny().state_dict()
        if kind == "half precision":
            tensors = {name: tensor.half() for name, tensor in tensors.items()}
        elif kind == "not finite":
            tensors["head.classifier.bias"][0] = math.nan
        elif kind == "a tensor missing":
            del tensors["head.classifier.weight"]
        elif kind == "a tensor too many":
            tensors["head.classifier.scale"] = torch.zeros(3)
        elif kind == "another shape":
            tensors["head.classifier.weight"] = torch.zeros(3, 5)
        elif kind == "another type":
            tensors["head.classifier.weight"] = torch.zeros(3, 16, dtype=torch.int32)
        safetensors.torch.save_file(tensors, place, metadata)
    return place


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "zero bytes",
        "a pickle",
        "huge header",
        "no metadata",
        "another network",
        "too few classes",
        "no preprocessing",
        "broken architecture",
        "another resolution",
        "a class twice",
        "half precision",
        "not finite",
        "deep architecture",
        "deep classes",
        "deep preprocess",
        "deep provenance",
    ],
)
def test_a_damaged_model_file_is_refused_in_one_line_that_names_it(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError) as caught:
        load(_damaged(tmp_path, kind))
    assert "m.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("a tensor missing", "head.classifier.weight is missing"),
        ("a tensor too many", "head.classifier.scale is no tensor of the network"),
        ("another shape", "head.classifier.weight is torch.float32 of (3, 5), not torch.float32 of (3, 16)"),
        ("another type", "head.classifier.weight is torch.int32 of (3, 16), not torch.float32 of (3, 16)"),
    ],
)
def test_a_file_with_a_wrong_tensor_is_refused_in_one_line_that_names_the_tensor(
    tmp_path: Path, kind: str, reason: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"({reason})")):
        load(_damaged(tmp_path, kind))


def test_preprocessing_takes_paths_pictures_and_arrays_alike(tmp_path: Path) -> None:
    array = load_sample_image("flower.jpg")
    Image.fromarray(array).save(tmp_path / "flower.png")
    expected = LOOK(array)
    assert expected.shape == (3, 32, 24)
    assert torch.equal(LOOK(Image.fromarray(array)), expected)
    assert torch.equal(LOOK(tmp_path / "flower.png"), expected)
    assert np.isfinite(expected.numpy()).all()


def test_a_network_of_any_number_of_channels_is_loaded_and_looks_at_arrays(tmp_path: Path) -> None:
    (tmp_path / "five.json").write_text(to_json(replace(TINY, channels=5)))
    model = load(tmp_path / "five.json")
    x = model.preprocess(np.random.default_rng(0).integers(0, 256, (40, 50, 5), np.uint8))
    assert x.shape == (5, 32, 24)
    with pytest.raises(UserError, match="5"):
        model.preprocess(Image.fromarray(load_sample_image("china.jpg")))


def test_pictures_are_named_the_same_alone_and_in_a_batch(fitted: Fitted, digits: Path) -> None:
    guesses = list(predict(fitted.run.path, digits, top=1))
    model = load(fitted.run.path)
    assert len(guesses) == 60
    for guess in guesses[::7]:
        name, share = model.predict(guess.path, top=1)[0]
        assert guess.classes[0][0] == name
        assert guess.classes[0][1] == pytest.approx(share, abs=1e-5)


def test_a_picture_given_twice_is_answered_twice(fitted: Fitted, digits: Path) -> None:
    picture = digits / "digit-0" / "000.png"
    assert [guess.path for guess in predict(fitted.run.path, [picture, picture])] == [picture, picture]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_answers_nearly_as_fp32_does(fitted: Fitted, digits: Path, precision: str) -> None:
    if precision not in available().precisions:
        pytest.skip(f"the processor does not multiply {precision}")
    exact, quick = (list(predict(fitted.model, digits, precision=one)) for one in ("fp32", precision))
    assert [dict(guess.classes) for guess in quick] != [dict(guess.classes) for guess in exact]
    for one, other in zip(exact, quick, strict=True):
        assert dict(other.classes) == pytest.approx(dict(one.classes), abs=0.05)


@pytest.mark.parametrize("precision", ["int4", "fp64"])
def test_a_precision_that_is_not_here_is_refused_in_one_line(fitted: Fitted, digits: Path, precision: str) -> None:
    with pytest.raises(UserError, match=f"--precision {precision}") as caught:
        list(predict(fitted.model, digits, precision=precision))
    assert "\n" not in str(caught.value)
