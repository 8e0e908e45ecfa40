"""The training loop: one process, one optimizer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.data import Augment, Batches, Prepared
from triscale.errors import TriscaleError
from triscale.models.model import Model
from triscale.training.average import Average
from triscale.training.machine import Machine, autocast, to_device
from triscale.training.recipe import Recipe
from triscale.training.schedule import Deadline, Schedule

STATISTICS_BATCHES = 16
REHEARSED = 5  # steps at least, and epochs at most


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One line of metrics.jsonl. loss: mean over the epoch's steps; rate: of the head; val_accuracy, val_loss: of the
    averaged weights. kept: the epoch whose weights would be kept if this were the last; 0 where that is always so."""

    epoch: int
    step: int
    loss: float
    rate: float
    val_accuracy: float
    val_loss: float
    seconds: float
    images_per_second: float
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """What held-out images say of a model: the share named right, the mean of -log(probability of the class), and that
    mean's standard error, by which few images tell two models apart."""

    accuracy: float
    loss: float
    error: float = 0.0


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
    validate: Callable[[Model], Validation],
    deadline: Deadline | None = None,
    on_epoch: Callable[[EpochMetrics, Model], None] = lambda metrics, average: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Model:
    """Trains the model in place and returns the averaged one, in evaluation mode.

    The same seed, data, recipe and machine give the same batches in the same order. `validate` judges the averaged
    model after each epoch; only where the recipe has patience is anything chosen by it. With a deadline, steps are left
    out where the time would run out, and the learning rate comes down all the same; where it does not, nothing changes.
    The process's generators and number of threads are afterwards what they were. Raises `TriscaleError` where the loss
    is not finite.
    """
    with _as_planned(machine, seed):
        run = _Run.start(model, images, recipe, machine, seed, deadline)
        best = _Best(recipe.patience)
        epoch = 0
        while not run.schedule.finished and not best.settled(epoch):
            start, before = time.perf_counter(), run.schedule.done
            loss = run.epoch(epoch, on_step)
            trained = time.perf_counter()
            average, validation = run.judged(epoch, validate)
            seconds = trained - start
            made = (run.schedule.done - before) * min(recipe.batch, len(images.images))
            epoch += 1
            metrics = EpochMetrics(
                epoch=epoch,
                step=run.schedule.done,
                loss=round(loss, 5),
                rate=run.rate,
                val_accuracy=validation.accuracy,
                val_loss=round(validation.loss, 5),
                seconds=round(seconds, 3),
                images_per_second=round(made / seconds, 1),
            )
            best.consider(epoch, average, validation)
            on_epoch(replace(metrics, kept=best.epoch), average)
            run.schedule.epoch_ended(time.perf_counter() - trained)
        return best.model or average


@dataclass
class _Best:
    """Where the recipe has patience: the model of the last epoch whose validation loss is within a standard error of
    the lowest (Breiman et al. 1984, section 3.4.3). What few images cannot tell apart, the longer training decides."""

    patience: int | None
    model: Model | None = None
    lowest: Validation | None = None
    epoch: int = 0

    def consider(self, epoch: int, model: Model, validation: Validation) -> None:
        """After that epoch, from 1."""
        if self.patience is None:
            return
        if self.lowest is None or validation.loss < self.lowest.loss:
            self.lowest = validation
        elif not validation.loss <= self.lowest.loss + self.lowest.error:
            return
        self.model, self.epoch = deepcopy(model), epoch

    def settled(self, epoch: int) -> bool:
        """Whether so many epochs went by without a better one that no more are made."""
        return self.patience is not None and self.model is not None and epoch - self.epoch >= self.patience


@dataclass(frozen=True, slots=True)
class Pace:
    """What training really takes: seconds of a step, of an epoch's end (statistics and validation)."""

    step: float
    epoch_end: float

    def epoch(self, steps: int) -> float:
        """Seconds of an epoch of so many steps."""
        return steps * self.step + self.epoch_end


def rehearse(
    model: Model,
    images: Prepared,
    recipe: Recipe,
    machine: Machine,
    *,
    validate: Callable[[Model], Validation],
    seconds: float,
) -> Pace:
    """Some real steps and one end of an epoch, on a copy of the model: everything that an epoch takes is in them.

    seconds: how long the steps may take; at least four are made after one that warms up.
    """
    with _as_planned(machine, seed=0):
        run = _Run.start(deepcopy(model), images, replace(recipe, epochs=REHEARSED), machine, 0, None)
        marks: list[float] = []
        for _ in chain.from_iterable(map(run.steps, range(REHEARSED))):
            marks.append(time.perf_counter())
            if len(marks) >= REHEARSED and marks[-1] - marks[0] > seconds:
                break
        start = time.perf_counter()
        run.judged(0, validate)
        ended = time.perf_counter() - start
    return Pace((marks[-1] - marks[0]) / (len(marks) - 1), ended)


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
    weights: Tensor | None
    schedule: Schedule

    @classmethod
    def start(
        cls, model: Model, images: Prepared, recipe: Recipe, machine: Machine, seed: int, deadline: Deadline | None
    ) -> "_Run":
        device = torch.device(machine.device)
        to_device(model, device).train()
        if recipe.frozen_norm:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        per_epoch = steps_per_epoch(len(images.images), recipe.batch)
        weights = class_weights(images.images.labels, len(model.classes)).to(device) if recipe.balance else None
        schedule = Schedule(per_epoch * recipe.epochs, per_epoch, deadline)
        return cls(model, images, recipe, machine, seed, Average(model), _optimizer(model, recipe), weights, schedule)

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

    def steps(self, epoch: int) -> Iterator[Tensor]:
        """The steps of an epoch, or as many of them as are left; each gives its loss."""
        recipe, schedule = self.recipe, self.schedule
        for x, y, _ in self.batches(epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.rate_at(schedule.middle) * group["scale"]
            loss = self.step(x, y)
            self.average.update(recipe.average_decay(schedule.done, schedule.steps))
            schedule.advance()
            yield loss
            if schedule.finished:
                return

    @property
    def rate(self) -> float:
        """The head's learning rate in the last step."""
        group = self.optimizer.param_groups[-1]
        return float(group["lr"] / group["scale"])

    def epoch(self, epoch: int, on_step: Callable[[Step], None]) -> float:
        """One pass over the images; the mean loss of its steps."""
        recipe, losses = self.recipe, []
        for loss in self.steps(epoch):
            losses.append(loss)
            on_step(Step(self.schedule.done, self.schedule.steps, epoch + 1, recipe.epochs))
        mean = torch.stack(losses).mean().item()
        if not mean < float("inf"):
            rate = f"{recipe.rate:g}"
            raise TriscaleError(f"the loss became {mean} in epoch {epoch + 1}; a lower rate than {rate} may hold")
        return mean

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Forward, backward, update; the loss."""
        recipe, model, device = self.recipe, self.model, torch.device(self.machine.device)
        x, y = x.to(device), y.to(device)
        with autocast(device, self.machine.precision):
            logits = model(model.preprocess.normalise(x))
            loss = F.cross_entropy(logits, y, weight=self.weights, label_smoothing=recipe.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def judged(self, epoch: int, validate: Callable[[Model], Validation]) -> tuple[Model, Validation]:
        """The averaged model with normalisation statistics of its own, from the epoch's first batches, and how good it
        is; where the recipe keeps the statistics, with those."""
        if not self.recipe.frozen_norm:
            self.average.refresh_statistics(x for x, _, _ in islice(self.batches(epoch), STATISTICS_BATCHES))
        self.average.model.trained = True
        return self.average.model, validate(self.average.model)


def class_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """n / (classes · images of the class), float32 [classes]: every class weighs the same in all; 0 for none."""
    counts = torch.from_numpy(np.bincount(labels, minlength=classes)).float()
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def _optimizer(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    """Weight decay on convolutions and the linear layer; none on biases and normalisation (one dimension). Deeper
    layers first: each depth has the scale of its rate."""
    by_depth: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        by_depth.setdefault(_depth(name, model) if recipe.depth_decay != 1 else 0, []).append(parameter)
    groups = [
        {
            "params": [parameter for parameter in by_depth[depth] if (parameter.ndim > 1) == decays],
            "weight_decay": recipe.decay if decays else 0.0,
            "scale": recipe.depth_decay ** (max(by_depth) - depth),
        }
        for depth in sorted(by_depth)
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, fused=True)


def _depth(name: str, model: Model) -> int:
    """How many blocks lie before a parameter: 0 in the stem, one more than the last block in the head."""
    part, _, rest = name.partition(".")
    if part != "stages":
        return 0 if part == "stem" else model.architecture.blocks + 1
    stage, number = map(int, rest.split(".")[:2])
    return 1 + number + sum(each.repeats for each in model.architecture.stages[:stage])
