"""What a file of weights leaves unsaid, and who says it: timm's config.json, the file's name, the user."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from foreign import arrays, refusal, write

from triscale.arch import to_json
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.models import from_import, load
from triscale.weights import import_weights

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = {"tag": "ra4_e3600_r224_in1k", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_pct": 0.9,
          "interpolation": "bilinear", "input_size": [3, 192, 256], "crop_mode": "squash"}  # fmt: skip


def test_the_hubs_config_decides_how_pictures_are_seen(tmp_path: Path) -> None:
    place = write(tmp_path / "model.safetensors", arrays("timm", "efficientnet_b0"))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "efficientnet_b0", "pretrained_cfg": CONFIG}))
    found = import_weights(place, "timm")
    assert found.preprocess == Preprocess((192, 256), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 0.9, "bilinear", squash=True)
    assert found.architecture.resolution == (192, 256)
    assert found.because.endswith("; preprocessing as it states")


@pytest.mark.parametrize(("stated", "said"), [
    ({"interpolation": "lanczos"}, "interpolation 'lanczos'"),
    ({"interpolation": ["a\nb"] * 99}, "interpolation ['a"),
    ({"crop_mode": "border"}, "crop_mode 'border'"),
    ({"interpolation": "random", "crop_mode": "border"}, "interpolation 'random' and crop_mode 'border'"),
])  # fmt: skip
def test_what_the_hubs_config_states_and_nothing_here_does_is_said(
    stated: dict[str, object], said: str, tmp_path: Path
) -> None:
    place = write(tmp_path / "model.safetensors", arrays("timm", "efficientnet_b0"))
    values = {"architecture": "efficientnet_b0", "pretrained_cfg": CONFIG | stated}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = import_weights(place, "timm")
    assert (found.preprocess.mean, found.preprocess.crop) == ((0.5, 0.4, 0.3), 0.9), "the rest is as it states"
    assert f"preprocessing as it states, but for {said}" in found.because
    assert "\n" not in found.because
    assert len(found.because) < 250


@pytest.mark.parametrize("broken", [
    {"mean": "half"}, {"std": [0, 0, 0]}, {"input_size": [3]}, {"crop_pct": 7}, {"input_size": [3, math.inf, 10]},
    {"mean": [10**400, 0, 0]}, {"crop_pct": 10**400},
])  # fmt: skip
def test_a_config_that_states_what_cannot_be_decides_the_network_alone(
    broken: dict[str, object], tmp_path: Path
) -> None:
    place = write(tmp_path / "model.safetensors", arrays("timm", "efficientnet_b0"))
    values = {"architecture": "tf_efficientnet_b0", "pretrained_cfg": CONFIG | broken}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = import_weights(place, "timm")
    assert (found.architecture.padding, found.preprocess.std) == ("same", (0.229, 0.224, 0.225))


def test_a_tag_that_is_not_known_is_an_error_and_no_other_ones_preprocessing(tmp_path: Path) -> None:
    place = write(tmp_path / "weights.pth", arrays("timm", "efficientnet_b0"))
    with pytest.raises(UserError, match=r"--as efficientnet_b0.nonsense: .* efficientnet_b0.ra_in1k"):
        import_weights(place, said="efficientnet_b0.nonsense")
    assert import_weights(place, said="tf_efficientnet_b0.ap_in1k").preprocess.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("kind", ["name", "config"])
def test_a_network_of_the_same_tensors_that_computes_otherwise_is_refused(kind: str, tmp_path: Path) -> None:
    place = write(tmp_path / ("resnetblur18.pth" if kind == "name" else "model.pth"), arrays("timm", "resnet18"))
    if kind == "config":
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetaa18"}))
    refusal(place, "same tensors", project="timm")


def test_resnets_are_timms_where_its_config_or_their_tag_says_so(tmp_path: Path) -> None:
    found = arrays("timm", "resnet18")
    plain = import_weights(write(tmp_path / "some.pth", found))
    assert plain.provenance.project == "torchvision"
    assert "--from timm" in plain.because
    tagged = import_weights(write(tmp_path / "resnet18.a1_in1k.pth", found))
    assert (tagged.provenance.project, tagged.preprocess.crop) == ("timm", 0.95)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    assert import_weights(write(tmp_path / "hub" / "model.pth", found)).provenance.project == "timm"


def test_what_was_decided_for_a_file_travels_with_it(tmp_path: Path) -> None:
    model = from_import(import_weights(write(tmp_path / "tf_efficientnet_b0.pth", arrays("timm", "efficientnet_b0"))))
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors").provenance
    assert again is not None
    assert again.read_as is not None
    assert again.read_as.startswith("same padding, epsilon 0.001; pictures of 224×224 pixels")


def test_names_of_another_project_are_recognised_as_such(tmp_path: Path) -> None:
    place = write(tmp_path / "weights.pth", arrays("timm", "efficientnet_b0"))
    refusal(place, "look like timm's: --from timm", project="torchvision")
    model = from_import(import_weights(place, said="efficientnet_b0"))
    model.save(tmp_path / "ours.safetensors")
    refusal(tmp_path / "ours.safetensors", "already", project="timm")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module."])
def test_what_wrappers_put_before_every_name_is_taken_away(prefix: str, tmp_path: Path) -> None:
    found = {prefix + name: array for name, array in arrays("torchvision").items()}
    assert import_weights(write(tmp_path / "weights.pth", found)).architecture.name == "mobilenet_v2"


def test_a_description_of_ones_own_is_filled_only_with_weights_that_fit_it_in_all(tmp_path: Path) -> None:
    place = write(tmp_path / "mobilenet_v2.pth", arrays("torchvision", classes=3))
    imported = import_weights(place).architecture
    for name, other in (("same", imported), ("pixels", replace(imported, resolution=(96, 96)))):
        (tmp_path / f"{name}.json").write_text(to_json(other))
    assert load(tmp_path / "same.json", place).trained
    with pytest.raises(UserError, match="as it is described"):
        load(tmp_path / "pixels.json", place)


def test_a_directory_as_the_hub_has_it_is_a_model(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", arrays("timm", "efficientnet_b0"))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "efficientnet_b0", "pretrained_cfg": CONFIG}))
    model = load(tmp_path)
    assert (model.trained, model.preprocess.resolution) == (True, (192, 256))


def test_a_picture_is_no_network_and_the_line_says_so_without_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"photo.png: not JSON, not even text") as caught:
        load(tmp_path / "photo.png")
    assert "0x89" not in str(caught.value)
