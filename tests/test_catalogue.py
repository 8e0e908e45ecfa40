"""The catalogue of published weights and the list of ImageNet's classes say what their publishers say."""

import hashlib
import json
import math
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import peers
import pytest
import torch
from torch import nn

import triscale
from triscale.arch.zoo import ZOO
from triscale.data.preprocessing import Preprocess

Entry = dict[str, Any]

FOLDER = Path(__file__).parents[1] / "src" / "triscale" / "weights"
CATALOGUE = json.loads((FOLDER / "catalogue.json").read_text("utf-8"))
WEIGHTS: list[Entry] = CATALOGUE["weights"]
KEYS = [
    *("name", "network", "from", "padding", "epsilon"),
    *("resolution", "crop", "interpolation", "mean", "std"),
    *("url", "package", "file", "sha256", "bytes"),
    *("licence", "trained_on", "top1", "top5", "accuracy_by", "default"),
]


def entries(source: str) -> Any:
    """Runs a test once for each entry of that importer."""
    chosen = [entry for entry in WEIGHTS if entry["from"] == source]
    assert chosen
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry["name"])


def model_and_tag(entry: Entry) -> tuple[str, str]:
    """What follows the publisher in the name: the peer's model, and which of its weights ('' where there is one)."""
    model, _, tag = entry["name"].partition("/")[2].partition(".")
    return model, tag


def published_hash(entry: Entry) -> str:
    """The hash in the file's name: what stands between the last dash and the suffix."""
    return str(entry["file"]).rpartition("-")[2].partition(".")[0]


@cache
def peer(source: str, model: str) -> nn.Module:
    """The peer's network, without memory for its weights."""
    make = peers.load(source)
    with torch.device("meta"):
        built: nn.Module = make.models.get_model(model) if source == "torchvision" else make.create_model(model)
    return built


def paddings(network: nn.Module, same: type[nn.Module] | None) -> set[str]:
    """How the convolutions pad that move by more than a pixel and see more than one."""
    found = set()
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and max(module.kernel_size) > 1:
            centred = module.padding == tuple(size // 2 for size in module.kernel_size)
            found.add("same" if same and isinstance(module, same) else "symmetric" if centred else "other")
    return found


def check_network(entry: Entry, network: nn.Module, same: type[nn.Module] | None) -> None:
    assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {entry["epsilon"]}
    assert paddings(network, same) == {entry["padding"]}
    assert sum(p.numel() for p in network.parameters()) == triscale.cost(entry["network"]).params


def test_every_entry_has_the_same_keys() -> None:
    assert CATALOGUE["schema"] == 1
    assert all(list(entry) == KEYS for entry in WEIGHTS)


def test_names_are_unique_and_in_the_order_of_the_zoo() -> None:
    zoo = list(ZOO)
    order = [(zoo.index(entry["network"]), entry["name"]) for entry in WEIGHTS]  # raises for what is not in the zoo
    assert order == sorted(order)
    assert len({entry["name"] for entry in WEIGHTS}) == len(WEIGHTS)


def test_every_covered_network_has_one_default() -> None:
    defaults = [entry["network"] for entry in WEIGHTS if entry["default"]]
    assert sorted(defaults) == sorted({entry["network"] for entry in WEIGHTS})


def test_only_a_network_whose_weights_nobody_published_with_a_checksum_has_none() -> None:
    assert set(ZOO) - {entry["network"] for entry in WEIGHTS} == {"mobilenet_v1"}


@pytest.mark.parametrize("entry", WEIGHTS, ids=lambda entry: entry["name"])
def test_every_entry_is_complete(entry: Entry) -> None:
    height, width = entry["resolution"]
    Preprocess(
        (height, width), 3, tuple(entry["mean"]), tuple(entry["std"]), entry["crop"], entry["interpolation"]
    )  # raises for what is out of range
    assert (entry["url"] is None) != (entry["package"] is None)
    assert entry["url"] is None or entry["url"].rpartition("/")[2] == entry["file"]
    if entry["sha256"] is None:
        assert entry["file"] == "model.safetensors"  # published by its address alone
    else:
        assert entry["sha256"].startswith(published_hash(entry))
        assert len(entry["sha256"]) == (64 if entry["package"] else len(published_hash(entry)))
    numbers = [entry[key] for key in ("top1", "top5") if entry[key] is not None]
    assert bool(numbers) == bool(entry["accuracy_by"])
    assert all(0 < number < 1 for number in numbers)
    assert numbers == sorted(numbers)
    assert entry["licence"]
    assert entry["trained_on"].endswith("ImageNet-1k")


@entries("torchvision")
def test_torchvisions_entries_say_what_torchvision_says(entry: Entry) -> None:
    model, tag = model_and_tag(entry)
    weights = list(peers.load("torchvision").models.get_model_weights(model))
    found = {weight.name.removeprefix("IMAGENET1K_").lower() if len(weights) > 1 else "": weight for weight in weights}
    listed = [model_and_tag(other) for other in WEIGHTS if other["from"] == "torchvision"]
    assert set(found) == {other for name, other in listed if name == model}  # none is left out
    weight = found[tag]
    transforms = weight.transforms()
    assert entry["resolution"] == transforms.crop_size * 2
    assert entry["crop"] == transforms.crop_size[0] / transforms.resize_size[0]
    assert entry["interpolation"] == transforms.interpolation.value
    assert (entry["mean"], entry["std"]) == (transforms.mean, transforms.std)
    assert entry["url"] == weight.url
    accuracy = weight.meta["_metrics"]["ImageNet-1K"]
    assert entry["top1"] == pytest.approx(accuracy["acc@1"] / 100)
    assert entry["top5"] == pytest.approx(accuracy["acc@5"] / 100)
    assert entry["bytes"] == round(weight.meta["_file_size"] * 2**20)


@entries("torchvision")
def test_torchvisions_networks_are_those_of_the_zoo(entry: Entry) -> None:
    check_network(entry, peer("torchvision", model_and_tag(entry)[0]), None)


@entries("timm")
def test_timms_entries_say_what_timm_says(entry: Entry) -> None:
    published = peers.load("timm").models.get_pretrained_cfg(entry["name"].removeprefix("timm/"))
    assert published.hf_hub_id == entry["name"]
    assert [3, *entry["resolution"]] == list(published.input_size)
    assert (entry["crop"], "center") == (published.crop_pct, published.crop_mode)
    assert entry["interpolation"] == published.interpolation
    assert (tuple(entry["mean"]), tuple(entry["std"])) == (published.mean, published.std)
    assert published.num_classes == 1000
    assert entry["licence"].lower() == published.license
    hub = f"https://huggingface.co/{entry['name']}/resolve/main/model.safetensors"
    assert entry["url"] == (published.url or hub)


@entries("timm")
def test_timms_networks_are_those_of_the_zoo(entry: Entry) -> None:
    network = peer("timm", model_and_tag(entry)[0])
    check_network(entry, network, peers.load("timm").layers.Conv2dSame)
    assert entry["bytes"] == sum(t.numel() * t.element_size() for t in network.state_dict().values())  # an estimate


@entries("lukemelas")
def test_packages_carry_the_files_that_entries_name(entry: Entry) -> None:
    try:
        carried = files(entry["package"]) or []
    except PackageNotFoundError:
        pytest.skip(f"{entry['package']} is not installed")
    (path,) = (Path(file.locate()) for file in carried if file.name == entry["file"])
    content = path.read_bytes()
    assert len(content) == entry["bytes"]
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    tensors = torch.load(path, map_location="meta", weights_only=True)
    learnt = [t for name, t in tensors.items() if name.rpartition(".")[2] in ("weight", "bias")]
    assert sum(t.numel() for t in learnt) == triscale.cost(entry["network"]).params
    height, width = entry["resolution"]
    assert (height, width) == ZOO[entry["network"]].make().resolution
    assert math.isclose(entry["crop"], height / (height + 32))


def classes() -> tuple[list[str], list[str]]:
    """The ids and the names of imagenet.txt."""
    lines = (FOLDER / "imagenet.txt").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    ids, names = zip(*rows, strict=True)
    return list(ids), list(names)


def test_the_thousand_classes_have_sorted_ids_and_names_of_their_own() -> None:
    ids, names = classes()
    assert len(set(ids)) == len({name.casefold() for name in names}) == 1000
    assert ids == sorted(ids)
    assert all(name == name.strip() and name for name in names)


def test_classes_are_in_timms_order() -> None:
    timm = Path(peers.load("timm").__file__)
    assert classes()[0] == (timm.parent / "data" / "_info" / "imagenet_synsets.txt").read_text("utf-8").split()


def test_classes_are_in_torchvisions_order_and_six_names_are_clearer() -> None:
    theirs = peers.load("torchvision").models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    pairs = enumerate(zip(classes()[1], theirs, strict=True))
    differing = {(i, ours, other) for i, (ours, other) in pairs if ours != other}
    assert differing == {
        (134, "crane (wading bird)", "crane bird"),
        (264, "Cardigan Welsh corgi", "Cardigan"),
        (474, "cardigan (sweater)", "cardigan"),
        (517, "crane (lifting device)", "crane"),
        (638, "maillot (tights)", "maillot"),
        (639, "tank suit", "maillot tank suit"),
    }
