"""The training loop: one process, one optimizer."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.data import Augment, Batches, Prepared
from triscale.errors import TriscaleError
from triscale.models.model import Model
from triscale.training.average import Average
from triscale.training.machine import Machine, autocast, to_device
from triscale.training.recipe import Recipe


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
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Model:
    """Trains the model in place and returns the averaged one, in evaluation mode.

    The same seed, data, recipe and machine give the same batches in the same order. `validate` gives the validation
    accuracy of the averaged model after each epoch; nothing is chosen by it. Raises `TriscaleError` where the loss is
    not finite.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(machine.threads)
    device = torch.device(machine.device)
    to_device(model, device).train()
    average, optimizer = Average(model), _optimizer(model, recipe)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    count = len(images.images)
    per_epoch = steps_per_epoch(count, recipe.batch)
    steps, step = per_epoch * recipe.epochs, 0
    for epoch in range(recipe.epochs):
        start, losses = time.perf_counter(), []
        for x, y, _ in Batches(
            images,
            model.preprocess,
            recipe.batch,
            shuffle=True,
            augment=augmentation(recipe),
            seed=seed,
            epoch=epoch,
            drop_last=count >= recipe.batch,
            threads=machine.threads,
        ):
            _set_rates(optimizer, norms, model, recipe, step, steps)
            losses.append(_step(model, optimizer, x.to(device), y.to(device), recipe, machine))
            average.update(recipe.average_decay(step, steps))
            step += 1
            on_step(Step(step, steps, epoch + 1, recipe.epochs))
        loss = torch.stack(losses).mean().item()
        if not loss < float("inf"):
            raise TriscaleError(
                f"the loss became {loss} in epoch {epoch + 1}; a lower rate than {recipe.rate:g} may hold"
            )
        seconds = time.perf_counter() - start
        rate = optimizer.param_groups[0]["lr"]
        images_per_second = round(per_epoch * min(recipe.batch, count) / seconds, 1)
        accuracy = validate(average.model)
        on_epoch(EpochMetrics(epoch + 1, step, round(loss, 5), rate, accuracy, round(seconds, 3), images_per_second))
    average.model.trained = True
    return average.model


def _step(
    model: Model, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, recipe: Recipe, machine: Machine
) -> Tensor:
    with autocast(machine.device, machine.precision):
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


def _set_rates(
    optimizer: torch.optim.Optimizer, norms: list[nn.BatchNorm2d], model: Model, recipe: Recipe, step: int, steps: int
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate_at(step, steps)
    # A running mean that keeps 99 % still holds its start after a hundred steps. In short trainings it forgets as fast
    # as the average of the weights does, so that both describe the same network.
    for norm in norms:
        norm.momentum = max(1 - model.architecture.norm.momentum, 1 - recipe.average_decay(step, steps))
