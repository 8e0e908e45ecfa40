"""The training loop: one process, one optimizer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.data import Augment, Batches, Prepared
from triscale.errors import TriscaleError
from triscale.models.model import Model
from triscale.training.average import Average
from triscale.training.machine import Machine, autocast, to_device
from triscale.training.recipe import Recipe

STATISTICS_BATCHES = 16


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One line of metrics.jsonl. loss: mean over the epoch's steps; val_accuracy: of the averaged weights."""

    epoch: int
    step: int
    loss: float
    rate: float
    val_accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Step:
    """What a progress bar needs, after each step."""

    step: int
    steps: int
    epoch: int
    epochs: int


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches; a single smaller one where there are fewer images than a batch holds."""
    return max(1, images // batch)


def augmentation(recipe: Recipe) -> Augment:
    """The recipe's augmentation as `data` applies it."""
    return Augment(
        shift=0.0 if recipe.crop else recipe.shift,
        flip=recipe.flip,
        crop_scale=(recipe.crop, 1.0) if recipe.crop else None,
    )


def train(
    model: Model,
    images: Prepared,
    recipe: Recipe,
    machine: Machine,
    *,
    seed: int,
    validate: Callable[[Model], float],
    on_epoch: Callable[[EpochMetrics, Model], None] = lambda metrics, average: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Model:
    """Trains the model in place and returns the averaged one, in evaluation mode.

    The same seed, data, recipe and machine give the same batches in the same order. `validate` gives the validation
    accuracy of the averaged model after each epoch; nothing is chosen by it. The process's generators and number of
    threads are afterwards what they were. Raises `TriscaleError` where the loss is not finite.
    """
    with _as_planned(machine, seed):
        device = torch.device(machine.device)
        to_device(model, device).train()
        run = _Run(model, images, recipe, machine, seed, Average(model), _optimizer(model, recipe))
        for epoch in range(recipe.epochs):
            start = time.perf_counter()
            loss = run.epoch(epoch, on_step)
            seconds = time.perf_counter() - start
            average = run.averaged(epoch)
            metrics = EpochMetrics(
                epoch=epoch + 1,
                step=(epoch + 1) * run.per_epoch,
                loss=round(loss, 5),
                rate=run.optimizer.param_groups[0]["lr"],
                val_accuracy=validate(average),
                seconds=round(seconds, 3),
                images_per_second=round(run.per_epoch * min(recipe.batch, len(images.images)) / seconds, 1),
            )
            on_epoch(metrics, average)
        return average


@contextmanager
def _as_planned(machine: Machine, seed: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(machine.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class _Run:
    """What the steps of one training share."""

    model: Model
    images: Prepared
    recipe: Recipe
    machine: Machine
    seed: int
    average: Average
    optimizer: torch.optim.AdamW

    @property
    def per_epoch(self) -> int:
        return steps_per_epoch(len(self.images.images), self.recipe.batch)

    def batches(self, epoch: int) -> Batches:
        return Batches(
            self.images,
            self.model.preprocess,
            self.recipe.batch,
            shuffle=True,
            augment=augmentation(self.recipe),
            seed=self.seed,
            epoch=epoch,
            drop_last=len(self.images.images) >= self.recipe.batch,
            threads=self.machine.threads,
        )

    def epoch(self, epoch: int, on_step: Callable[[Step], None]) -> float:
        """One pass over the images; the mean loss of its steps."""
        recipe, steps, losses = self.recipe, self.per_epoch * self.recipe.epochs, []
        for step, (x, y, _) in enumerate(self.batches(epoch), epoch * self.per_epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.rate_at(step, steps)
            losses.append(_step(self.model, self.optimizer, x, y, recipe, self.machine))
            self.average.update(recipe.average_decay(step, steps))
            on_step(Step(step + 1, steps, epoch + 1, recipe.epochs))
        loss = torch.stack(losses).mean().item()
        if not loss < float("inf"):
            rate = f"{recipe.rate:g}"
            raise TriscaleError(f"the loss became {loss} in epoch {epoch + 1}; a lower rate than {rate} may hold")
        return loss

    def averaged(self, epoch: int) -> Model:
        """The averaged model with normalisation statistics of its own, from the first batches of the epoch."""
        pictures = (x for x, _, _ in islice(self.batches(epoch), STATISTICS_BATCHES))
        self.average.refresh_statistics(pictures)
        self.average.model.trained = True
        return self.average.model


def _step(
    model: Model, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, recipe: Recipe, machine: Machine
) -> Tensor:
    device = torch.device(machine.device)
    x, y = x.to(device), y.to(device)
    with autocast(device, machine.precision):
        loss = F.cross_entropy(model(model.preprocess.normalise(x)), y, label_smoothing=recipe.smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _optimizer(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    """Weight decay on convolutions and the linear layer; none on biases and normalisation (one dimension)."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, fused=True)
