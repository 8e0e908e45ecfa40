import csv
import gzip
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import digit_folder
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from tiny import fixed_machine

from triscale.costing import cost
from triscale.data import image_resolution, read
from triscale.errors import UserError
from triscale.fitting import Fitted, fit
from triscale.models import load
from triscale.training import Checkpoints


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_holds_what_it_says(fitted: Fitted) -> None:
    run = fitted.run
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "run.json",
        "splits.csv",
        "metrics.jsonl",
        "model.safetensors",
        "predictions.csv",
        "report.html",
        "MODEL.md",
        "checkpoints",
        ".lock",
    }
    settings = run.settings()
    assert settings["plan"]["architecture"]["stages"]
    assert settings["plan"]["machine"]["precision"] in ("fp32", "bf16")
    assert settings["data"]["fingerprint"]
    assert settings["result"]["test_accuracy"] == fitted.test.top().value
    assert len(list(run.metrics())) == 5
    with run.predictions.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(fitted.test.labels)


def test_the_network_holds_the_budget_and_is_the_one_that_was_built(fitted: Fitted) -> None:
    scaled = fitted.plan.scaled
    assert 0.99 * 400_000 <= scaled.cost.macs <= 400_000
    assert cost(fitted.model.architecture).macs == scaled.cost.macs
    assert sum(p.numel() for p in fitted.model.parameters()) == scaled.cost.params
    assert load(fitted.run.path).architecture == fitted.plan.architecture


def test_the_test_images_took_no_part_in_training(fitted: Fitted) -> None:
    splits = fitted.run.splits()
    held_out = {name for name, (split, _) in splits.items() if split == "test"}
    assert held_out == set(fitted.test.names)
    trained = {digest for split, digest in splits.values() if split != "test"}
    assert not trained & {splits[name][1] for name in held_out}


def test_nothing_of_the_users_is_changed(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    before = contents(folder)
    fit(folder, out=tmp_path / "run", macs=300_000, epochs=1)
    assert contents(folder) == before


def test_the_same_seed_leaves_the_same_model_on_the_same_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)

    monkeypatch.setattr("triscale.fitting.candidates.fastest_machine", fixed_machine)
    for index in range(2):
        fit(folder, out=tmp_path / f"run{index}", macs=300_000, epochs=2, baseline="mobilenet_v2", seed=5)
    first, second = (tmp_path / f"run{index}" / "model.safetensors" for index in range(2))
    assert first.read_bytes() == second.read_bytes()


def _idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_idx_files_are_fitted_at_their_own_size(tmp_path: Path) -> None:
    digits = load_digits(n_class=3)
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    (tmp_path / "idx").mkdir()
    for name, part in (("train", slice(0, 120)), ("t10k", slice(120, 160))):
        _idx(tmp_path / "idx" / f"{name}-images-idx3-ubyte.gz", pixels[part])
        _idx(tmp_path / "idx" / f"{name}-labels-idx1-ubyte.gz", digits.target[part])
    fitted = fit(tmp_path / "idx", out=tmp_path / "run", macs=500_000, epochs=1)
    assert fitted.plan.scaled.baseline.resolution == (24, 24)
    assert fitted.plan.scaled.baseline.channels == 1
    assert len(fitted.test.labels) == 40


def test_colour_photographs_of_any_size_are_fitted(tmp_path: Path) -> None:
    for name, photograph in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(6):
            crop = photograph[index * 20 : index * 20 + 200, : 240 + 10 * index]
            Image.fromarray(crop).save(tmp_path / "photos" / name / f"{index}.jpg")
    fitted = fit(tmp_path / "photos", out=tmp_path / "run", macs=3_000_000, epochs=1, rule="compound")
    assert fitted.plan.recipe.augment.crop_scale is not None
    assert fitted.plan.recipe.augment.flip
    assert fitted.plan.preprocess.channels == 3


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((8, 8), (16, 16)),
        ((28, 28), (28, 28)),
        ((300, 500), (224, 373)),
        ((16, 1024), (16, 1024)),
        ((4, 900), (16, 1024)),
        ((20, 10), (32, 16)),
    ],
)
def test_uniform_images_keep_their_shape_within_bounds(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(4):
            noise = np.random.default_rng(index + 10 * (label == "a")).integers(0, 255, size, np.uint8)
            Image.fromarray(noise).save(tmp_path / label / f"{index}.png")
    assert image_resolution(read(tmp_path)) == expected


def test_any_budget_term_can_bound_the_fit(digits: Path, tmp_path: Path) -> None:
    fitted = fit(digits, out=tmp_path / "run", params=20_000, activations=60_000, epochs=1)
    assert fitted.plan.scaled.cost.params <= 20_000
    assert fitted.plan.scaled.cost.activations <= 60_000


def test_a_run_inside_the_images_is_refused(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    for place in (folder, folder / "run", folder / "digit-0" / "run"):
        with pytest.raises(UserError, match=r"inside|something lies"):
            fit(folder, out=place, macs=300_000, epochs=1)
    assert not (folder / "run").exists()


def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="memory"):
        fit(digits, out=tmp_path / "run", macs=1e14, epochs=1)
    assert not (tmp_path / "run").exists()


def test_the_last_checkpoint_holds_the_averaged_weights_that_the_model_has(fitted: Fitted) -> None:
    kept, final = Checkpoints(fitted.run.checkpoints).newest(), load(fitted.run.path)
    assert kept is not None
    for name, value in final.state_dict().items():
        assert torch.equal(kept.tensors[f"average.{name}"], value), name
    assert kept.values["epoch"] == 5


def test_the_number_of_steps_is_planned(fitted: Fitted) -> None:
    assert fitted.run.settings()["plan"]["steps"] == list(fitted.run.metrics())[-1]["step"]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"macs": 1}, "no network that small"),
        ({}, "budget"),
        ({"macs": 4e5, "baseline": "resnet19"}, "resnet19"),
        ({"macs": 4e5, "rule": "sideways"}, "sideways"),
        ({"macs": 4e5, "epochs": 0}, "--epochs 0"),
        ({"macs": 4e5, "batch": 1}, "--batch 1"),
        ({"macs": 4e5, "device": "tpu"}, "tpu"),
        ({"params": 5e3, "rule": "resolution"}, "params"),
    ],
)
def test_a_wrong_wish_is_named_and_leaves_nothing_behind(
    digits: Path, tmp_path: Path, asked: dict[str, object], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        fit(digits, out=tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


def test_a_second_fit_into_the_same_directory_is_refused_and_loses_nothing(digits: Path, fitted: Fitted) -> None:
    before = contents(fitted.run.path)
    with pytest.raises(UserError, match="something lies there"):
        fit(digits, out=fitted.run.path, macs=400_000, epochs=1)
    assert contents(fitted.run.path) == before


def test_unreadable_images_are_left_out_and_listed_when_asked(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    (folder / "digit-0" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"torn\.png"):
        fit(folder, out=tmp_path / "run", macs=300_000, epochs=1)
    fitted = fit(folder, out=tmp_path / "run", macs=300_000, epochs=1, on_bad="skip")
    assert [bad["name"] for bad in fitted.run.settings()["data"]["skipped"]] == ["digit-0/torn.png"]
    assert "unreadable" in fitted.run.report.read_text(encoding="utf-8")


def test_the_report_is_one_file_that_needs_no_network(fitted: Fitted) -> None:
    page = fitted.run.report.read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert f"{100 * fitted.test.top().value:.2f} %" in page
    assert "asked" in page
    assert "nominal" in page
    assert "realised" in page


def test_names_of_classes_cannot_write_into_the_report(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    (folder / "digit-0").rename(folder / "<script>alert(1)<")
    fitted = fit(folder, out=tmp_path / "run", macs=300_000, epochs=1)
    assert "<script>" not in fitted.run.report.read_text(encoding="utf-8")


def test_every_epochs_metrics_are_plain_json(fitted: Fitted) -> None:
    for line in (fitted.run.path / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert values["images_per_second"] > 0
