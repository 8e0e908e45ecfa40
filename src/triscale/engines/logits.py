"""A network's logits, by the fastest engine that is here, or by one that was named."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from triscale.arch import Architecture
from triscale.engines.native import available
from triscale.engines.pytorch import DTYPES
from triscale.engines.table import ENGINES, find_engine
from triscale.errors import UserError
from triscale.kernels import warn_if_missing
from triscale.nn import Network, evaluating
from triscale.precision import ANSWERING, Precision, check_precision

Logits = Callable[[Tensor], Tensor]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
Meaning = tuple[tuple[str, type[nn.Module] | None, tuple[object, ...], Shapes], ...]
# What decides, besides types and weights, what the modules of a network compute in evaluation mode.
_DECISIVE = (
    "kernel_size", "stride", "padding", "padding_mode", "dilation", "groups", "dynamic",
    "eps", "pool", "pooled", "steps", "min_val", "max_val",
)  # fmt: skip


def engine_for(device: torch.device, name: str | None = None, precision: Precision = "fp32") -> str:
    """The engine that runs a network there: the one that is named, or the default.

    By default our own on CPUs, in a precision that it has there; PyTorch on other devices, and where our engine is
    missing or has only the instructions that every processor has. Raises `UserError` where the one that is named cannot
    run there.
    """
    check_precision(precision)
    if device.type != "cpu":
        if name not in (None, "torch"):
            raise UserError(f"--engine {name}: runs on the CPU, not on {device}; add --device cpu, or leave it out")
        return "torch"
    if name is not None:
        return find_engine(name, precision).name
    if available().isa in (None, "baseline"):
        warn_if_missing("answering")
        name = "torch"
    else:
        name = "native"
    why = ENGINES[name].missing(precision)
    if why is not None:
        there = [one for one in ANSWERING if ENGINES[name].missing(one) is None]
        raise UserError(f"--precision {precision}: {why}; take {' or '.join(there)}")
    return name


def engine_of(network: Network, name: str | None = None, precision: Precision = "fp32") -> str:
    """The engine that `running` runs this network by. Raises as `engine_for`."""
    chosen = engine_for(next(network.parameters()).device, name, precision)
    return chosen if _is_described(network) else "torch"


@contextmanager
def running(
    network: Network, *, engine: str | None = None, precision: Precision = "fp32", batch: int | None = None
) -> Iterator[Logits]:
    """What gives the logits (n, classes) of images that are preprocessed, fp32 (n, channels, h, w).

    engine: as for `engine_for`; PyTorch where the network computes otherwise than its architecture says: a class with a
    `forward` of its own, hooks, parts that were exchanged. The weights are those that the network has now. As many
    threads as PyTorch uses at the time. batch: images of every call, where they are always as many. Images may lie on
    any device; logits lie where the network does. Every part of the network keeps its mode.
    """
    place, chosen = next(network.parameters()).device, engine_of(network, engine, precision)
    if chosen != "torch":
        kind, threads = find_engine(chosen, precision), torch.get_num_threads()
        with kind.open(network, precision=precision, threads=threads, batch=batch) as run:
            yield lambda x: torch.from_numpy(run(_array(x)))
        return
    kept = _copy(network).eval()
    # What somebody put in place of a `forward` may hold on to the network itself, which a copy of it then calls.
    with nullcontext() if _is_described(network) else evaluating(network):
        yield lambda x: _by_pytorch(kept, x.to(place), precision)


def _is_described(network: Network) -> bool:
    """Whether its architecture says all of what it computes, but for the weights."""
    if any(getattr(type(network), name) is not getattr(Network, name) for name in ("forward", "_body")):
        return False
    for module in network.modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return False
        if module._state_dict_hooks or module._state_dict_pre_hooks:  # the weights have other names, or are others
            return False
    return _meaning(network) == _meaning_of(network.architecture)


def _meaning(network: Network) -> Meaning:
    """Of each module its name, type, what it was told, and tensors; of the network its tensors."""
    found: list[tuple[str, type[nn.Module] | None, tuple[object, ...], Shapes]] = [("", None, (), _tensors(network))]
    for name, module in network.named_modules(remove_duplicate=False):
        if name:
            told = tuple(vars(module).get(word) for word in _DECISIVE)
            found.append((name, type(module), told, _tensors(module)))
    return tuple(found)


def _tensors(module: nn.Module) -> Shapes:
    """Names and shapes of those that are saved with it, but for training's counts."""
    left_out = module._non_persistent_buffers_set | {"num_batches_tracked"}
    named = chain(module._parameters.items(), module._buffers.items())
    return tuple(sorted((name, tuple(t.shape)) for name, t in named if t is not None and name not in left_out))


@lru_cache(maxsize=16)  # making the modules takes ten times as long as looking at them
def _meaning_of(architecture: Architecture) -> Meaning:
    """Of the network that the architecture means."""
    with torch.device("meta"):
        return _meaning(Network(architecture))


def _copy(network: Network) -> Network:
    """With the weights of now, whatever becomes of the network."""
    # Tensors that follow from others, as those of pruned layers, are no leaves, which PyTorch does not copy by itself.
    held = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return copy.deepcopy(network, {id(value): value.detach().clone() for value in held if not value.is_leaf})


def _array(x: Tensor) -> npt.NDArray[np.float32]:
    """Images as our engine and others' take them, which say what is wrong with other types."""
    here = x.detach().cpu().contiguous()
    try:
        found: npt.NDArray[np.float32] = here.numpy()
    except TypeError:  # numpy has no such type
        kind = str(x.dtype).removeprefix("torch.")
        raise UserError(f"images are a numpy array of float32, not an array of {kind}") from None
    return found


@torch.inference_mode()
def _by_pytorch(network: Network, x: Tensor, precision: Precision) -> Tensor:
    with torch.autocast(x.device.type, DTYPES[precision], enabled=precision != "fp32"):
        logits: Tensor = network(x.contiguous(memory_format=torch.channels_last)).float()
    return logits
