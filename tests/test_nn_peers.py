"""The built networks compute what torchvision's and timm's do, given the same weights."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import peers
import pytest
import torch
from torch import nn

from triscale.arch import Architecture, Norm, published
from triscale.nn import Network

pytestmark = pytest.mark.usefixtures("one_thread")

RELATIVE = 1e-5  # of the largest logit


@lru_cache(maxsize=1)  # the large ones take a gigabyte
def pair(library: str, name: str, architecture: Architecture) -> tuple[Network, nn.Module]:
    """Our network and the peer's with the same random weights, both in evaluation mode."""
    make: Any = peers.load(library)
    with torch.device("meta"):  # every tensor is set by `randomise`, and ours are the peer's
        peer = make.models.get_model(name) if library == "torchvision" else make.create_model(name)
        ours = Network(architecture)
    peers.randomise(peer.to_empty(device="cpu"))
    peers.take_by_order(ours, peer)
    return ours.eval(), peer.eval()


def check_equal(ours: Network, peer: nn.Module, height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, theirs = ours(images), peer(images)
    scale = theirs.abs().max()
    assert torch.isfinite(scale)
    assert (theirs[0] - theirs[1]).abs().max() > 0.1 * scale  # or equal logits would say nothing
    assert (mine - theirs).abs().max() <= RELATIVE * scale


def as_torchvision(name: str, ours: str) -> Architecture:
    # torchvision pads symmetrically; its B5 to B7 keep the official epsilon, the others PyTorch's.
    epsilon = 1e-3 if name in ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7") else 1e-5
    return replace(published(ours), padding="symmetric", norm=Norm(epsilon=epsilon))


@pytest.mark.parametrize("size", [(64, 64), (97, 65)], ids=["even", "odd"])
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((f"efficientnet_b{i}", f"efficientnet_b{i}") for i in range(8)),
        ("mobilenet_v2", "mobilenet_v2"),
        ("resnet18", "resnet18"),
        ("resnet50", "resnet50"),
    ],
    ids=lambda value: value,
)
def test_logits_equal_torchvisions(name: str, ours: str, size: tuple[int, int]) -> None:
    check_equal(*pair("torchvision", name, as_torchvision(name, ours)), *size)


@pytest.mark.parametrize("size", [(64, 64), (97, 65), (96, 79)], ids=["even", "odd", "mixed"])
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("tf_efficientnet_b0", "efficientnet_b0"),
        ("tf_efficientnet_lite0", "efficientnet_lite0"),
        ("semnasnet_100", "mnasnet_a1"),
    ],
    ids=lambda value: value,
)
def test_logits_with_same_padding_equal_timms(name: str, ours: str, size: tuple[int, int]) -> None:
    architecture = published(ours)
    if name == "semnasnet_100":  # timm's own has PyTorch's padding and epsilon
        architecture = replace(architecture, padding="symmetric", norm=Norm(epsilon=1e-5))
    check_equal(*pair("timm", name, architecture), *size)


def test_padding_tells_two_networks_apart() -> None:
    ours, peer = pair("timm", "tf_efficientnet_b0", published("efficientnet_b0"))
    with torch.device("meta"):
        other = Network(replace(ours.architecture, padding="symmetric"))
    other.load_state_dict(ours.state_dict(), assign=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, theirs = other.eval()(images), peer(images)
    assert (mine - theirs).abs().max() > 0.1 * theirs.abs().max()
