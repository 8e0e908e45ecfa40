"""Whether a file says what the model says, on real images; and where it begins not to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from triscale.engines.runner import Array, Runner
from triscale.exporting.formats import Format
from triscale.exporting.images import Seen
from triscale.models import Model
from triscale.nn.blocks import ConvNorm, SqueezeExcite

RELATIVE = 1e-3  # of the largest logit
SAME = 0.999  # of the images' likeliest classes
FEW = 4  # images, to look for the layer with
TIE = 1e-5  # logits that are closer, relative to the largest, are one to fp32
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Agreement:
    """On n images: how many have the same likeliest class, and how far logits are apart at most, relative to the
    largest logit of all images. A class whose logit is within a hundred-thousandth of the likeliest one's counts as the
    same."""

    n: int
    same: int
    largest: float

    @property
    def holds(self) -> bool:
        """Whether the file may be written."""
        return self.largest <= RELATIVE and self.same >= SAME * self.n


@dataclass(frozen=True, slots=True)
class Checked:
    """How a file agrees; worst: the few images (n, channels, h, w) on which it differs most."""

    agreement: Agreement
    worst: Tensor


def check(wanted: Callable[[Tensor], Array], run: Runner, images: Seen, progress: Progress) -> Checked:
    """The file's logits beside those that are wanted, on images that are gone through once."""
    ours, theirs = [], []
    worst, most, done = torch.empty(0), -1.0, 0
    for x in images.batches:
        progress(done, images.n)
        ours.append(wanted(x))
        theirs.append(run(np.ascontiguousarray(x.numpy())))
        apart = np.nan_to_num(np.abs(ours[-1] - theirs[-1]), nan=np.inf).max(1)
        if apart.max() > most:
            most, worst = float(apart.max()), x[np.argsort(-apart)[:FEW].copy()]
        done += len(x)
    return Checked(_compared(np.concatenate(ours), np.concatenate(theirs)), worst)


def _compared(ours: Array, theirs: Array) -> Agreement:
    n, largest = len(ours), _largest(ours)
    if not np.isfinite(theirs).all():
        return Agreement(n, 0, float("inf"))
    behind = ours.max(1) - ours[np.arange(n), theirs.argmax(1)]
    return Agreement(n, int((behind <= TIE * largest).sum()), float(np.abs(ours - theirs).max()) / largest)


def _largest(values: Array) -> float:
    return max(float(np.abs(values).max()), float(np.finfo(np.float32).tiny))


@torch.inference_mode()
def by_pytorch(model: Model, x: Tensor) -> Array:
    """Its logits in evaluation mode."""
    logits: Array = model.eval()(x).numpy()
    return logits


@dataclass(frozen=True, slots=True)
class Difference:
    """The first layer whose output differs, and by how much, relative to its largest value."""

    layer: str
    largest: float


def first_difference(kind: Format, path: Path, model: Model, x: Tensor) -> Difference | None:
    """The layer where a file begins to differ on these few images; None where no layer alone says so."""
    expected = _outputs(model, x)
    found = kind.layers(path, tuple(expected), np.ascontiguousarray(x.numpy()))
    for name in (name for name in expected if name in found):
        apart = _apart(expected[name], found[name])
        if not apart <= RELATIVE:
            return Difference(name, apart)
    return None


def _apart(ours: Array, theirs: Array) -> float:
    if theirs.shape != ours.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max()) / _largest(ours)


@torch.inference_mode()
def _outputs(model: Model, x: Tensor) -> dict[str, Array]:
    """What every layer gives, in the order of computing."""
    found: dict[str, Array] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found[name] = output.numpy()

        return hook

    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, ConvNorm | SqueezeExcite)]
    handles = [module.register_forward_hook(keep(name)) for name, module in layers]
    try:
        model.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
