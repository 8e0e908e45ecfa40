"""Other projects as oracles, loaded beside a CPU build of torch."""

import atexit
import importlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

# torchvision for Linux is published as a CUDA build alone: its compiled part does not load beside CPU torch, and its
# Python part then fails on the operators that part would have defined. Dummies are enough: no network here calls one.
_OPERATORS = (
    "nms(Tensor a, Tensor b, float c) -> Tensor",
    "qnms(Tensor a, Tensor b, float c) -> Tensor",
    *(
        f"{name}(Tensor a) -> Tensor"
        for kind in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
        for name in (kind, f"_{kind}_backward")
    ),
    "qroi_align(Tensor a) -> Tensor",
)


@cache
def _define_missing_operators() -> list[Any]:
    """The libraries, which must live as long as the process."""
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _OPERATORS:
        library.define(schema)
    return [library]


@cache
def _prepare_keras() -> None:
    """Keras reads both once, on import: it computes with torch, and writes its settings where nobody keeps any."""
    home = tempfile.mkdtemp(prefix="keras-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": home}


@cache
def _imported(name: str) -> ModuleType | str:
    """The module, or why there is none."""
    if name.partition(".")[0] == "keras":
        _prepare_keras()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer warns of on import is no matter of this project
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
                return f"{name} is not installed (extra `peers`)"
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                return f"{name} does not import: {error}"
        for module in [m for m in sys.modules if m.partition(".")[0] in ("torchvision", "timm")]:
            del sys.modules[module]
        try:
            _define_missing_operators()
            return importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            return f"{name} does not import: {error}"


def load(name: str) -> Any:
    """The peer's module; skips the test that asks where it cannot be had."""
    found = _imported(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@torch.no_grad()
def randomise(
    peer: nn.Module, seed: int = 0, sizes: Sequence[tuple[int, int]] = ((64, 64),), margin: float = 1.0
) -> None:
    """Random weights and statistics, so that no one, zero or default hides a difference.

    Normalisation's statistics are those of random images of these sizes: the signal then neither dies nor grows from
    layer to layer, and logits depend on the image. Variances are `margin` times those: where peers round differently, a
    little above 1 keeps the rounding of deep networks from growing until it is all there is.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in peer.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in peer.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = (3 / module.weight[0].numel()) ** 0.5
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-0.2, 0.2, generator=generator)
    peer.eval()
    for norm in norms:
        norm.reset_parameters()
        norm.weight.uniform_(0.7, 1.3, generator=generator)
        norm.bias.uniform_(-0.3, 0.3, generator=generator)
        norm.momentum = None  # the average of all sizes
        norm.train()
    for size in sizes:
        peer(torch.randn(8, 3, *size, generator=generator))
    peer.eval()
    for norm in norms:
        norm.running_var *= margin


def take_by_order(ours: nn.Module, peer: nn.Module) -> None:
    """The peer's tensors become ours, in order; every name's last part and every shape must agree, and none is left."""
    state, theirs = ours.state_dict(), peer.state_dict()
    assert len(state) == len(theirs)
    taken = {}
    for (name, mine), (other, tensor) in zip(state.items(), theirs.items(), strict=True):
        assert name.rpartition(".")[2] == other.rpartition(".")[2], f"{name} from {other}"
        assert mine.shape == tensor.shape, f"{name} {tuple(mine.shape)} from {other} {tuple(tensor.shape)}"
        taken[name] = tensor
    ours.load_state_dict(taken, assign=True)
