"""What an export promises: a file that agrees with PyTorch on real images, or none, and why."""

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import Answer
from pictures import digit_folder

from triscale.engines.table import graph_of, weights_of
from triscale.errors import LessExactWarning, TriscaleError, UserError
from triscale.exporting import FORMATS, export, opened, quantizing, saturating
from triscale.exporting import export as export_function
from triscale.exporting import formats as table
from triscale.exporting.checking import by_pytorch
from triscale.exporting.formats import SAFE
from triscale.exporting.rewriting import LARGEST
from triscale.fitting import Fitted
from triscale.models import Model, load
from triscale.runs import write_whole
from triscale.weights import run_meant

OPENED = tuple(name for name in FORMATS if name != "torch")


def written(place: Path) -> list[str]:
    return sorted(file.name for file in place.iterdir())


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_agrees_with_pytorch_on_the_runs_own_images(fitted: Fitted, tmp_path: Path, to: str) -> None:
    made = export(fitted.run.path, to, out=tmp_path / f"a{FORMATS[to].suffix}")
    assert made.agreement.holds
    assert 0 < made.agreement.n == made.agreement.same
    assert made.agreement.largest < 1e-4
    assert made.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written(tmp_path) == sorted(file.name for file in FORMATS[to].files(made.path))


@pytest.mark.parametrize("to", OPENED)
def test_a_file_carries_classes_preprocessing_and_architecture(fitted: Fitted, tmp_path: Path, to: str) -> None:
    model = load(fitted.run.path)
    made = export(fitted.run.path, to, out=tmp_path / f"a{FORMATS[to].suffix}")
    file = opened(made.path, threads=1)
    assert (file.architecture, file.classes) == (model.architecture, model.classes)
    assert file.preprocess == model.preprocess
    for n in (1, 3):
        x = torch.randn(n, model.architecture.channels, *model.architecture.resolution)
        np.testing.assert_allclose(file.run(x.numpy()), by_pytorch(model, x), rtol=1e-3, atol=1e-4)


def test_an_archive_of_torch_export_carries_the_same(fitted: Fitted, tmp_path: Path) -> None:
    made = export(fitted.run.path, "torch", out=tmp_path / "a.pt2")
    kept = {table.EXTRA: ""}
    program = torch.export.load(made.path, extra_files=kept)
    assert json.loads(kept[table.EXTRA]) == load(fitted.run.path).metadata()
    for n in (1, 5):  # a batch of any size, though an example had two images
        x = torch.zeros(n, fitted.model.architecture.channels, *fitted.model.architecture.resolution)
        assert program.module()(x).shape == (n, 3)


def test_metadata_of_onnx_are_plain_texts(fitted: Fitted, tmp_path: Path) -> None:
    made = export(fitted.run.path, out=tmp_path / "a.onnx")
    said = {entry.key: entry.value for entry in onnx.load(made.path).metadata_props}
    assert json.loads(said["triscale.classes"]) == list(fitted.model.classes)
    assert set(said) == {f"triscale.{key}" for key in fitted.model.metadata()}


def second_layer(model: Model) -> str:
    """A layer that others come before and after."""
    return [name.removesuffix(".norm") for name, _ in model.named_modules() if name.endswith(".norm")][1]


Write = Callable[[bytes, Model, Mapping[str, str], Path], None]


def spoiled(graph: bytes, model: Model, said: Mapping[str, str], path: Path, write: Write) -> None:
    """As if writing had lost a layer."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_submodule(second_layer(other)).conv.weight.mul_(1.5)
    write(graph_of(other.architecture, weights_of(other)), other, said, path)


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_that_differs_is_not_written_and_its_first_wrong_layer_named(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    kind = FORMATS[to]
    faulty = replace(kind, write=lambda graph, model, said, path: spoiled(graph, model, said, path, kind.write))
    monkeypatch.setattr(table, "FORMATS", {to: faulty})
    with pytest.raises(TriscaleError, match="not written") as caught:
        export_function(fitted.run.path, to, out=tmp_path / f"a{kind.suffix}")
    assert f"begins at {second_layer(fitted.model)}," in str(caught.value)
    assert written(tmp_path) == []


@pytest.mark.parametrize("to", FORMATS)
def test_logits_that_are_no_numbers_never_agree(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    nothing = replace(FORMATS[to], open=lambda path, threads: lambda x: np.full((len(x), 3), np.nan, np.float32))
    monkeypatch.setattr(table, "FORMATS", {to: nothing})
    with pytest.raises(TriscaleError, match="no layer before the last"):
        export_function(fitted.run.path, to, out=tmp_path / f"a{FORMATS[to].suffix}")
    assert written(tmp_path) == []


def test_images_are_read_from_where_they_are_now(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    made = export(fitted.run.path, out=tmp_path / "a.onnx", images=digits)
    assert made.agreement.n > 0
    others = digit_folder(tmp_path / "others", first=20)
    with pytest.raises(UserError, match="not the images that the run was begun with"):
        export(fitted.run.path, out=tmp_path / "b.onnx", images=others)
    assert written(tmp_path) == ["a.onnx", "others"]


def test_weights_without_a_run_are_checked_on_pictures_that_are_named(
    fitted: Fitted, digits: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(fitted.run.model.read_bytes())
    with pytest.raises(UserError, match="--images PICTURES"):
        export(alone, out=tmp_path / "a.onnx")
    assert export(alone, out=tmp_path / "a.onnx", images=digits).agreement.holds


def test_a_run_named_like_a_network_of_the_zoo_is_not_taken_for_it(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mobilenet_v2", "torchvision/mobilenet_v2.v2"):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(fitted.run.path)
        assert run_meant(name) is None
        for path in (place, f"./{name}"):
            found = run_meant(path)
            assert found is not None
            assert found.path == Path(path)


def test_a_file_that_cannot_be_written_takes_the_one_beside_it_away(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".xml":
            raise TriscaleError("the disk is full")
        write_whole(path, content)

    monkeypatch.setattr(sys.modules["triscale.exporting.export"], "write_whole", full)
    with pytest.raises(TriscaleError, match="full"):
        export(fitted.run.path, "openvino", out=tmp_path / "a.xml")
    assert written(tmp_path) == []


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_where_a_file_is_checked_first_is_said_in_a_line_and_leaves_nothing(
    fitted: Fitted, tmp_path: Path, to: str
) -> None:
    staging, out = tmp_path / "staging", tmp_path / "out"
    staging.mkdir()
    out.mkdir()
    file = out / f"a{FORMATS[to].suffix}"
    command = [sys.executable, "-m", "triscale", "export", fitted.run.path, "--to", to, "--out", file]
    # No file may grow beyond 8 kB, which to a writer is what a full disk is. In a process of its own: one library's
    # answer to that was to end it.
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *map(str, command)]
    environment = {**os.environ, "TMPDIR": str(staging), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(limited, capture_output=True, text=True, env=environment)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith(f"triscale: {file}: not written: ")
    assert str(staging) in line
    assert "TMPDIR" in line
    assert written(out) == []
    assert list(staging.glob("triscale-*")) == []


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """As if these packages were not installed."""

    def hide(*names: str) -> None:
        def find(name: str) -> object:
            return None if name in names else importlib.util.find_spec(name)

        for place in ("formats", "opening"):
            monkeypatch.setattr(f"triscale.exporting.{place}.find_spec", find)

    return hide


def test_a_file_is_opened_with_what_runs_it_alone_and_what_is_missing_is_named_with_the_file(
    fitted: Fitted, tmp_path: Path, without: Callable[..., None]
) -> None:
    path = export(fitted.run.path, out=tmp_path / "a.onnx").path
    without("onnx")
    assert opened(path, threads=1).classes == fitted.model.classes
    with pytest.raises(UserError, match="--to onnx: onnx is not installed"):
        export(fitted.run.path, out=tmp_path / "b.onnx")
    without("onnxruntime")
    with pytest.raises(UserError, match=r"a\.onnx: onnxruntime is not installed"):
        opened(path, threads=1)


def test_archives_that_may_hold_code_are_not_opened(tmp_path: Path) -> None:
    place = tmp_path / "a.pt2"
    place.write_bytes(b"anything")
    with pytest.raises(UserError, match="may hold code"):
        opened(place, threads=1)


@pytest.mark.parametrize(("name", "words"), [("a.onnx", "cannot run it"), ("a.xml", "cannot run it")])
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UserError, match=words) as caught:
        opened(tmp_path / name, threads=1)
    assert "\n" not in str(caught.value)


def test_a_graph_of_somebody_elses_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(graph_of(fitted.model.architecture, weights_of(fitted.model)))
    with pytest.raises(UserError, match=r"a\.onnx: not a model that this version can read"):
        opened(tmp_path / "a.onnx", threads=1)


def test_nothing_is_overwritten_and_mistakes_are_one_line(
    fitted: Fitted, tmp_path: Path, triscale: Callable[..., Answer]
) -> None:
    taken = tmp_path / "a.onnx"
    taken.write_text("mine")
    for words, said in (
        (("--out", taken), "exists already"),
        (("--to", "tflite"), "there are onnx, openvino, torch"),
        (("--out", tmp_path / "a.bin"), "does not end in .onnx"),
        (("--out", tmp_path / "no" / "a.onnx"), "make it first"),
        (("--int8", "--most-lost", "150"), "--most-lost 150: is not from 0 to below 100 points; write for example 0.5"),
        (("--int8", "--most-lost", "nan"), "--most-lost nan"),
        (("--most-lost", "1"), "--most-lost 1: says what int8 may lose; add --int8"),
    ):
        code, answer, notes = triscale("export", fitted.run.path, *words)
        assert (code, answer) == (2, "")
        assert said in notes
        assert notes.count("\n") == 1
    assert taken.read_text() == "mine"


def test_the_command_answers_with_one_object(fitted: Fitted, tmp_path: Path, triscale: Callable[..., Answer]) -> None:
    code, answer, _ = triscale("export", fitted.run.path, "--out", tmp_path / "a.onnx", "--json")
    said = json.loads(answer)
    assert code == 0
    assert said["file"] == str(tmp_path / "a.onnx")
    assert said["same_class"] == said["images"] > 0
    assert said["largest_difference"] < 1e-4


@pytest.mark.parametrize("to", OPENED)
def test_a_file_in_int8_answers_as_the_network_that_passed_the_gate(
    fitted: Fitted, digits: Path, tmp_path: Path, to: str
) -> None:
    made = export(fitted.run.path, to, out=tmp_path / f"a{FORMATS[to].suffix}", int8=True, most_lost=0.2)
    assert made.quantized is not None
    assert made.quantized.lost.value <= 0.2
    assert made.agreement.holds
    file, x = opened(made.path, threads=1), torch.stack([fitted.model.preprocess(one) for one in digits.glob("*/*")])
    exact = by_pytorch(fitted.model, x)
    assert 0 < np.abs(file.run(x.numpy()) - exact).max() < 0.5 * np.abs(exact).max()
    assert file.classes == fitted.model.classes


@pytest.mark.parametrize("to", OPENED)
def test_a_file_in_int8_whose_sums_overflow_here_is_opened_with_a_warning(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: Callable[..., None], to: str
) -> None:
    for most in (LARGEST, SAFE):
        monkeypatch.setattr(quantizing, "largest_weight", lambda target, most=most: most)
        export(fitted.run.path, to, out=tmp_path / f"{most}{FORMATS[to].suffix}", int8=True, most_lost=0.9)
    monkeypatch.setattr(saturating, "largest_weight", lambda target: SAFE)
    with pytest.warns(
        LessExactWarning, match=r"127\..*: answers are less exact here: .* sums of its int8 weights overflow"
    ):
        opened(tmp_path / f"{LARGEST}{FORMATS[to].suffix}", threads=1)
    opened(tmp_path / f"{SAFE}{FORMATS[to].suffix}", threads=1)
    without("onnx")
    with pytest.warns(LessExactWarning, match="without onnx nobody knows"):
        opened(tmp_path / f"{LARGEST}{FORMATS[to].suffix}", threads=1)
    opened(tmp_path / f"{SAFE}{FORMATS[to].suffix}", threads=1)
    without()
    monkeypatch.setattr(saturating, "largest_weight", lambda target: LARGEST)
    opened(tmp_path / f"{LARGEST}{FORMATS[to].suffix}", threads=1)


def test_int8_is_refused_where_it_cannot_be(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hold no int8"):
        export(fitted.run.path, "torch", out=tmp_path / "a.pt2", int8=True)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(fitted.run.model.read_bytes())
    with pytest.raises(UserError, match="name a run"):
        export(alone, out=tmp_path / "a.onnx", images=digits, int8=True)
    assert written(tmp_path) == ["alone.safetensors"]


def test_the_command_tells_what_int8_cost(fitted: Fitted, tmp_path: Path, triscale: Callable[..., Answer]) -> None:
    words = ("export", fitted.run.path, "--int8", "--most-lost", 20)
    code, answer, _ = triscale(*words, "--out", tmp_path / "a.onnx", "--json")
    assert code == 0
    assert json.loads(answer)["int8"]["most_lost"] == 0.2
    code, answer, _ = triscale(*words, "--out", tmp_path / "b.onnx")
    assert "layers are in int8" in answer
    assert "one image by ONNX Runtime" in answer


def test_a_model_in_memory_stays_as_it_is_and_is_called_by_its_networks_name(fitted: Fitted, tmp_path: Path) -> None:
    model, out = load(fitted.run.path).train(), tmp_path / "m.onnx"
    for more in ({}, {"int8": True}):
        with pytest.raises(UserError, match=rf"^{re.escape(model.architecture.name)}: [^\n]*$"):
            export(model, out=out, **more)  # type: ignore[arg-type]
    assert export(model, out=out, images=fitted.run.data_path()).agreement.holds
    assert model.training
