"""How a network is trained, as a value resolved to numbers before training starts."""

import math
from dataclasses import dataclass, replace

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.errors import UserError


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW on a cosine after a linear warm-up, label smoothing, a moving average of the weights, light augmentation.

    epochs: passes over the training images. batch: images a step. rate: the highest learning rate. decay: AdamW's
    weight decay, on convolutions and the linear layer only. warmup: share of the steps. smoothing: of the labels.
    average: the moving average's horizon as a share of the steps. shift: random shift, as a share of the side.
    flip: mirror every second image. balance: in the loss a class weighs n / (classes · its images), n images in all.
    crop: the smallest share of a photograph's area that a random crop keeps, or none. clip: the gradient's largest
    norm.

    For weights that were learned elsewhere: depth_decay: a block learns at so many times the rate of the block after
    it, the head at the full rate (1801.06146, section 3.2). frozen_norm: normalisation keeps the statistics it came
    with, for those of small batches are worse. patience: so many epochs in a row whose validation loss is above
    the lowest by more than its standard error end the training; the last one that was not above is kept.
    """

    epochs: int
    batch: int = 128
    rate: float = 4e-3
    decay: float = 0.05
    warmup: float = 0.1
    smoothing: float = 0.1
    average: float = 0.05
    shift: float = 0.1
    flip: bool = False
    balance: bool = False
    crop: float | None = None
    clip: float = 5.0
    depth_decay: float = 1.0
    frozen_norm: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        if type(self.epochs) is not int or type(self.batch) is not int:
            raise UserError(f"epochs {self.epochs!r} and batch {self.batch!r} are whole numbers")
        if self.epochs < 1:
            raise UserError(f"--epochs {self.epochs}: training takes at least one epoch")
        if self.batch < 2:
            raise UserError(f"--batch {self.batch}: batch normalisation needs at least two images a step")

    def rate_at(self, progress: float) -> float:
        """The learning rate at a share of the training: up in a line, down along half a cosine (1608.03983)."""
        if progress < self.warmup:
            return self.rate * progress / self.warmup
        return self.rate * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))

    def average_decay(self, step: int, steps: int) -> float:
        """How much of the moving average a step keeps; early steps keep less (the official code's num_updates)."""
        horizon = max(1.0, self.average * steps)
        return min(1 - 1 / horizon, (1 + step) / (10 + step))


def regularised(architecture: Architecture, baseline: Architecture) -> Architecture:
    """Dropout and stochastic depth for the size of the network: the published rates, in proportion to its MACs.

    The rates were published for the baseline; a network of a tenth of its MACs has little to overfit with and gets a
    tenth of them. A larger network keeps the published ones.
    """
    share = min(1.0, cost(architecture).macs / cost(baseline).macs)
    head = replace(architecture.head, dropout=round(baseline.head.dropout * share, 4))
    return replace(architecture, head=head, stochastic_depth=round(baseline.stochastic_depth * share, 4))
