"""How a network is trained, as a value: optimizer, rate, averages, augmentation, all of it numbers."""

import math
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.data import Augment
from triscale.errors import UserError

B7_FACTOR = 97.8  # MACs of EfficientNet-B7 over B0's
B7_DROPOUT = 0.3  # how much more dropout B7 has than B0 (paper, section 5.2)
FEWEST_PATIENCE = 5  # epochs: below them a few noisy validations would end a training


def _positive(where: str, values: dict[str, float | None], *, zero: bool = False) -> None:
    for name, value in values.items():
        if value is not None and not (0 < value < math.inf or (zero and value == 0)):
            raise UserError(f"{where}: {name} {value:g} is {'negative' if zero else 'not positive'} or no number")


def _shares(where: str, values: dict[str, float]) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{where}: {name} {value:g} is not in [0, 1)")


@dataclass(frozen=True, slots=True)
class AdamW:
    """1711.05101: decay is decoupled from the gradient."""

    decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    kind: Literal["adamw"] = "adamw"

    def __post_init__(self) -> None:
        _shares("optimizer", {"beta1": self.beta1, "beta2": self.beta2})
        _positive("optimizer", {"decay": self.decay}, zero=True)
        _positive("optimizer", {"epsilon": self.epsilon})


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum; decay is added to the gradient (L2)."""

    decay: float = 1e-4
    momentum: float = 0.9
    nesterov: bool = True
    kind: Literal["sgd"] = "sgd"

    def __post_init__(self) -> None:
        _shares("optimizer", {"momentum": self.momentum})
        _positive("optimizer", {"decay": self.decay}, zero=True)


@dataclass(frozen=True, slots=True)
class RMSProp:
    """As TensorFlow does it; see `optimizers.TensorFlowRMSProp`. decay is added to the gradient (L2)."""

    decay: float = 1e-5
    rho: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3
    kind: Literal["rmsprop"] = "rmsprop"

    def __post_init__(self) -> None:
        _shares("optimizer", {"rho": self.rho, "momentum": self.momentum})
        _positive("optimizer", {"decay": self.decay}, zero=True)
        _positive("optimizer", {"epsilon": self.epsilon})


@dataclass(frozen=True, slots=True)
class Cosine:
    """Up in a line, then down along half a cosine (1608.03983). peak: for `per` images a step, or for any number.
    warmup: share of the training."""

    peak: float = 4e-3
    per: int | None = None
    warmup: float = 0.1
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        _positive("rate", {"peak": self.peak, "per": self.per})
        _shares("rate", {"warmup": self.warmup})

    def at(self, progress: float) -> float:
        """The rate at a share of the training."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        return self.peak * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


@dataclass(frozen=True, slots=True)
class Exponential:
    """The official code's: up in a line for `warmup` epochs, and times `factor` after every `every` epochs, in steps.

    peak: for `per` images a step, or for any number. warmup, every: epochs of a training of `epochs`; one of another
    length stretches or squeezes both, so that the rate comes down as far.
    """

    peak: float = 0.016
    per: int | None = 256
    warmup: float = 5.0
    factor: float = 0.97
    every: float = 2.4
    epochs: float = 350.0
    kind: Literal["exponential"] = "exponential"

    def __post_init__(self) -> None:
        _positive("rate", {"peak": self.peak, "per": self.per, "every": self.every, "epochs": self.epochs})
        _positive("rate", {"warmup": self.warmup}, zero=True)
        if not self.warmup < self.epochs:
            raise UserError(f"rate: warmup {self.warmup:g} is not below epochs, {self.epochs:g}")
        if not 0 < self.factor <= 1:
            raise UserError(f"rate: factor {self.factor:g} is not in (0, 1]; 0.97 takes 3 % off")

    def at(self, progress: float) -> float:
        """The rate at a share of the training."""
        epoch = progress * self.epochs
        if epoch < self.warmup:
            return self.peak * epoch / self.warmup
        return float(self.peak * self.factor ** math.floor(epoch / self.every))


Optimizer = AdamW | SGD | RMSProp
Rate = Cosine | Exponential


@dataclass(frozen=True, slots=True)
class ByName:
    """Parameters whose name matches (`*` and `?` as in file names) learn at `rate` times the rate with `decay` times
    the decay; a rate of 0 freezes them. Where several match, the factors multiply."""

    pattern: str
    rate: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        _positive(f"by_name {self.pattern!r}", {"rate": self.rate, "decay": self.decay}, zero=True)

    def matches(self, name: str) -> bool:
        """Whether it is meant for a parameter such as `stages.2.0.expand.norm.weight`."""
        return fnmatchcase(name, self.pattern)


NO_DECAY = (ByName("*.norm.*", decay=0.0), ByName("*.bias", decay=0.0))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a training but the network and the images.

    epochs: passes over the training images. batch: images a step. optimizer, rate. by_name: other rates and decays for
    some parameters; by default no decay on normalisation and biases. clip: the gradient's largest norm, or none.
    smoothing: of the labels (1512.00567, section 7). average: how much of the moving average of the weights a step
    keeps at most (the official code's .9999; early steps keep less, see `average_decay`), and average_share: the
    average's horizon as a share of all steps, at most. augment: what happens to pictures. progressive: share of the
    side at which the first epoch sees them; epoch by epoch it grows to 1 (2104.00298, section 4). balance: in the loss
    a class weighs n / (classes · its images), n images in all. norm_momentum: how much normalisation keeps of its
    running statistics in a step; as the architecture says where it is none.

    For weights that were learned elsewhere: depth_decay: a block learns at so many times the rate of the block after
    it, the head at the full rate (1801.06146, section 3.2). frozen_norm: normalisation keeps the statistics it came
    with, for those of small batches are worse. patience: so many epochs in a row whose validation loss is above
    the lowest by more than its standard error end the training; the last one that was not above is kept.

    suit: whether planning fits it to the images: mirrored only where they have colours, cropped only where they are
    photographs of different sizes, and batches of a sixteenth of them at most. See `recipes.resolve`.
    """

    epochs: int
    batch: int = 128
    optimizer: Optimizer = AdamW()
    rate: Rate = Cosine()
    by_name: tuple[ByName, ...] = NO_DECAY
    clip: float | None = 5.0
    smoothing: float = 0.1
    average: float = 0.9999
    average_share: float = 0.05
    augment: Augment = field(default_factory=lambda: Augment(shift=0.1))
    progressive: float = 1.0
    balance: bool = False
    norm_momentum: float | None = None
    depth_decay: float = 1.0
    frozen_norm: bool = False
    patience: int | None = None
    suit: bool = False

    def __post_init__(self) -> None:
        if type(self.epochs) is not int or type(self.batch) is not int:
            raise UserError(f"epochs {self.epochs!r} and batch {self.batch!r} are whole numbers")
        if self.epochs < 1:
            raise UserError(f"--epochs {self.epochs}: training takes at least one epoch")
        if self.batch < 2:
            raise UserError(f"--batch {self.batch}: batch normalisation needs at least two images a step")
        _positive("recipe", {"clip": self.clip, "patience": self.patience})
        _shares("recipe", {"smoothing": self.smoothing, "average": self.average})
        shares = {"average_share": self.average_share, "progressive": self.progressive, "depth_decay": self.depth_decay}
        for name, value in shares.items():
            if not 0 < value <= 1:
                raise UserError(f"recipe: {name} {value:g} is not in (0, 1]")
        if self.norm_momentum is not None:
            _shares("recipe", {"norm_momentum": self.norm_momentum})

    def average_decay(self, step: int, steps: int) -> float:
        """How much of the moving average a step keeps; early steps keep less (the official code's num_updates)."""
        horizon = max(1.0, self.average_share * steps)
        return min(1 - 1 / horizon, self.average, (1 + step) / (10 + step))

    def lasting(self, epochs: int) -> "Recipe":
        """The same for another number of epochs: patience in proportion, and at least five epochs of it."""
        if self.patience is None:
            return replace(self, epochs=epochs)
        patience = max(FEWEST_PATIENCE, math.ceil(self.patience * epochs / self.epochs))
        return replace(self, epochs=epochs, patience=patience)


def regularised(architecture: Architecture, baseline: Architecture) -> Architecture:
    """Dropout and stochastic depth for the size of a network, by one rule for all that are compared.

    With s the MACs over the baseline's. Above it the paper's: dropout grows in a line with log s, by 0.3 from B0 to B7
    (paper, section 5.2: 0.2 to 0.5; s = 97.8), and stochastic depth stays. Below it, where there is little to overfit
    with, both in proportion to s. A baseline without dropout has none at any size.
    """
    factor = cost(architecture).macs / cost(baseline).macs
    share, base = min(1.0, factor), baseline.head.dropout
    more = B7_DROPOUT * min(1.0, math.log(max(1.0, factor)) / math.log(B7_FACTOR)) if base else 0.0
    head = replace(architecture.head, dropout=round(base * share + more, 4))
    return replace(architecture, head=head, stochastic_depth=round(baseline.stochastic_depth * share, 4))
