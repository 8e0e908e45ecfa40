"""A network, images and a machine so small that a training takes moments."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits

from triscale.arch import Architecture, Head, MBConv, Stage, Stem
from triscale.data import Images, Preprocess
from triscale.data.pictures import Memory
from triscale.models import Model
from triscale.nn import Network, build
from triscale.training import EpochMetrics, Machine, Validation, Watch
from triscale.training.choosing import fixed_kernels

TINY = Architecture(
    (Stage(MBConv(3, 2), 8, 1, 2), Stage(MBConv(3, 2), 16, 2, 2)),
    stem=Stem(8, stride=1),
    head=Head(4, None, dropout=0.0),
    resolution=(16, 16),
    channels=1,
    stochastic_depth=0.0,
)
LOOK = Preprocess((16, 16), 1, (0.3,), (0.35,))
FAIR = Validation(accuracy=0.5, loss=1.0)
KERNELS = fixed_kernels(build(TINY))
CPU = Machine("cpu", "fp32", 1, measured=16, per_image=1e-3, step={}, kernels=KERNELS)


def fixed_machine(network: Network, batch: int, device: torch.device, until: float | None = None) -> Machine:
    """In place of what is measured as fastest, which may be something else the second time."""
    return Machine(str(device), "fp32", 1, batch, 1e-5, {}, kernels=fixed_kernels(network))


def some_digits(n: int) -> Images:
    digits = load_digits(n_class=4)
    pixels = np.round(digits.images[:n] * (255 / 16)).astype(np.uint8)[..., None]
    return Images(
        digits.target[:n].astype(np.int64),
        tuple(map(str, range(n))),
        tuple(i.to_bytes(4, "little") for i in range(n)),
        Memory(np.ascontiguousarray(pixels)),
    )


class Seen(Watch):
    """Keeps what a training says."""

    def __init__(self) -> None:
        self.rows: list[EpochMetrics] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.notes: list[str] = []

    def epoch(self, rows: Sequence[EpochMetrics], average: Model) -> None:
        assert list(rows[:-1]) == self.rows
        self.rows.append(rows[-1])
        self.weights.append({name: value.clone() for name, value in average.state_dict().items()})

    def note(self, text: str) -> None:
        self.notes.append(text)
