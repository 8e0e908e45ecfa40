"""One training in progress: what its steps share, a step, and everything of it that a checkpoint holds."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from triscale.data import Batch, Batches, Prepared
from triscale.errors import TriscaleError, is_out_of_memory
from triscale.models.model import Model
from triscale.training.average import Average
from triscale.training.best import Best
from triscale.training.checkpoints import Snapshot
from triscale.training.machine import Machine, autocast, give_back, to_device
from triscale.training.optimizers import make_optimizer
from triscale.training.processes import Processes
from triscale.training.recipe import Recipe
from triscale.training.schedule import Deadline, Schedule
from triscale.training.watching import EpochMetrics

STATISTICS_BATCHES = 16
SMALLEST_SIDE = 16  # pixels, of progressive sizes
UNSEEN = 16  # steps of a CUDA device whose losses are looked at together
FEWEST = 2  # images of a forward pass: normalisation needs two


class NotFiniteError(TriscaleError):
    """A loss or a gradient is not a number; the weights are as they were before the step."""


@dataclass(eq=False)
class Session:
    """Model, optimizer, average, schedule, and where the training stands.

    forward: the model as it is called, over several processes or compiled. micro: images of one forward pass; fewer
    than a step's where memory ran out. rollbacks: how often the loss was not finite, each of which halves the rate.
    rate: the head's in the last step. epoch, batch: whole epochs, and steps of the present one. losses: of the present
    epoch's steps; unseen: of those that are still on the device; settled: how many were looked at. rows: of the epochs.
    """

    model: Model
    images: Prepared
    recipe: Recipe
    machine: Machine
    seed: int
    processes: Processes
    average: Average
    optimizer: Optimizer
    forward: Callable[[Tensor], Tensor]
    weights: Tensor | None
    schedule: Schedule
    best: Best
    micro: int
    note: Callable[[str], None]
    rollbacks: int = 0
    rate: float = 0.0
    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=list)
    unseen: list[Tensor] = field(default_factory=list)
    settled: int = 0
    rows: list[EpochMetrics] = field(default_factory=list)
    seconds: float = 0.0
    waiting: float = 0.0

    @classmethod
    def start(
        cls,
        model: Model,
        images: Prepared,
        recipe: Recipe,
        machine: Machine,
        seed: int,
        processes: Processes,
        deadline: Deadline | None,
        note: Callable[[str], None] = lambda text: None,
    ) -> "Session":
        """Before the first step; the model is moved to the machine's device and trained in place."""
        device = torch.device(machine.device)
        to_device(model, device).train()
        _prepare_norms(model, recipe)
        optimizer, average = make_optimizer(model, recipe), Average(model)
        model.use(machine.kernels)
        per_epoch = steps_per_epoch(len(images.images), recipe.batch)
        weights = class_weights(images.images.labels, len(model.classes)).to(device) if recipe.balance else None
        return cls(
            model=model,
            images=images,
            recipe=recipe,
            machine=machine,
            seed=seed,
            processes=processes,
            average=average,
            optimizer=optimizer,
            forward=_callable(model, recipe, machine, processes),
            weights=weights,
            schedule=Schedule(per_epoch * recipe.epochs, per_epoch, deadline),
            best=Best(recipe.patience),
            micro=recipe.batch,
            note=note,
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.machine.device)

    @property
    def over(self) -> bool:
        """Whether no step and no validation is left."""
        return (self.schedule.finished and not self.batch) or self.best.settled(self.epoch)

    def steps(self) -> Iterator[None]:
        """The steps that are left of the epoch. Raises `NotFiniteError`."""
        batches = iter(self._batches(self.epoch, start=self.batch, all_of_it=False))
        while not self.schedule.finished:
            asked = time.perf_counter()
            batch = next(batches, None)
            begun = time.perf_counter()
            if batch is None:
                break
            self.step(batch)
            self.batch += 1
            if self.device.type == "cpu" or self.batch % UNSEEN == 0:
                self.settle()
            self.waiting += begun - asked
            self.seconds += time.perf_counter() - asked
            yield
        self.settle()

    def step(self, batch: Batch) -> None:
        """Forward, backward, update."""
        self.rate = self.recipe.rate.at(self.schedule.middle) * 0.5**self.rollbacks
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["scale"]
        loss = self._gradients(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip or float("inf"))
        if self.device.type == "cpu" and not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise self._not_finite(float(loss), float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.recipe.average_decay(self.schedule.done, self.schedule.steps))
        self.schedule.advance()
        self.unseen.append(loss)

    def settle(self) -> None:
        """Looks at the losses since the last time; a CUDA device is not made to wait after each step. In all processes
        after the same steps. Raises `NotFiniteError`."""
        self._read_losses()
        for loss in self.losses[self.settled :]:
            if not math.isfinite(loss):
                raise self._not_finite(loss, 0.0)
        self.settled = len(self.losses)

    def _read_losses(self) -> None:
        if self.unseen:
            self.losses += torch.stack(self.unseen).tolist()
            self.unseen.clear()

    def _not_finite(self, loss: float, norm: float) -> "NotFiniteError":
        what = f"the gradient's norm became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
        step, epoch = self.schedule.done + 1, self.epoch + 1
        return NotFiniteError(f"{what} in step {step:,} (epoch {epoch}), at a rate of {self.rate:.3g}")

    def judged(self) -> Model:
        """The averaged model with normalisation statistics of its own, from the epoch's first batches; where the recipe
        keeps the statistics, with those."""
        if not self.recipe.frozen_norm:
            batches = self._batches(self.epoch, start=0, all_of_it=True)
            several = islice(batches, STATISTICS_BATCHES)
            self.average.refresh_statistics(part for batch in several for part in torch.split(batch.x, self.micro))
        self.average.model.trained = True
        return self.average.model

    def _batches(self, epoch: int, *, start: int, all_of_it: bool) -> Batches:
        """From that batch on; of each this process's share, or all of it."""
        return Batches(
            self.images,
            self.model.preprocess,
            self.recipe.batch,
            shuffle=True,
            augment=self.recipe.augment,
            seed=self.seed,
            epoch=epoch,
            drop_last=len(self.images.images) >= self.recipe.batch,
            workers=self.machine.threads,
            rank=0 if all_of_it else self.processes.rank,
            world=1 if all_of_it else self.processes.world,
            start=start,
        )

    def _gradients(self, batch: Batch) -> Tensor:
        """The loss of the whole step, its gradients in the parameters; in smaller parts where memory runs out."""
        before = most = min(self.micro, len(batch.x))
        while True:
            try:
                loss = self._in_parts(batch)
                break
            except (RuntimeError, MemoryError) as error:
                # Other processes wait in the middle of the step: nobody could go back alone.
                if not is_out_of_memory(error) or most <= FEWEST or self.processes.world > 1:
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            self.micro = most = max(FEWEST, -(-most // 2))
            give_back(self.device)
        if most < before:
            self.note(
                f"not enough memory for {before} images at a time: from here on {most} at a time; a step is still made "
                f"of {self.recipe.batch}"
            )
        return loss

    def _in_parts(self, batch: Batch) -> Tensor:
        # What chance a step needs (dropout, stochastic depth) depends on its number alone, not on who drew before.
        torch.manual_seed(_hash(self.seed, self.schedule.done, self.processes.rank))
        x, y, other, share = self._moved(batch)
        # By the number of images also where classes have weights: over all images those average 1, and a batch that
        # happens to have frequent classes alone must not count as much as one with a rare one.
        total = min(self.recipe.batch, len(self.images.images))
        parts = max(1, min(-(-len(x) // self.micro), len(x) // FEWEST))
        losses = []
        for px, py, po, ps in zip(*(one.tensor_split(parts) for one in (x, y, other, share)), strict=True):
            with autocast(self.device, self.machine.precision):
                loss = self._loss(self.forward(self._seen(px)), py, po, ps) / total
            # Processes average their gradients, and each loss is its share of the whole step's already.
            (loss * self.processes.world).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return self.processes.sum(torch.stack(losses).sum())

    def _moved(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tensors = (batch.x, batch.y, batch.other, batch.share)
        if self.device.type != "cuda":
            return tensors
        x, y, other, share = (one.pin_memory().to(self.device, non_blocking=True) for one in tensors)
        return x, y, other, share

    def _loss(self, logits: Tensor, y: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """Sum of the losses, each with its class's weight; of mixed images of both classes, each with its share."""
        first = self._losses(logits, y)
        if not (self.recipe.augment.mixup or self.recipe.augment.cutmix):
            return first.sum()
        return (share * first + (1 - share) * self._losses(logits, other)).sum()

    def _losses(self, logits: Tensor, y: Tensor) -> Tensor:
        # PyTorch's own weights would also weigh what smoothing gives to the other classes, by their rareness: a
        # frequent class would be taught to be called anything else.
        losses = F.cross_entropy(logits, y, label_smoothing=self.recipe.smoothing, reduction="none")
        return losses if self.weights is None else losses * self.weights[y]

    def _seen(self, x: Tensor) -> Tensor:
        """Normalised, and where the recipe is progressive smaller in early epochs."""
        x = self.model.preprocess.normalise(x)
        share, epochs = self.recipe.progressive, self.recipe.epochs
        if share == 1 or self.epoch + 1 >= epochs:
            return x
        share += (1 - share) * self.epoch / (epochs - 1)
        size = [min(side, max(SMALLEST_SIDE, round(side * share))) for side in x.shape[-2:]]
        return F.interpolate(x, size, mode="bilinear", antialias=True)

    def snapshot(self) -> Snapshot:
        """Everything that the next step depends on."""
        self._read_losses()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.model.state_dict().items()}
        if self.best.model is not None:
            tensors |= {f"best.{name}": value for name, value in self.best.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        values = {
            "schedule": self.schedule.values(),
            "best": self.best.values(),
            "micro": self.micro,
            "rollbacks": self.rollbacks,
            "rate": self.rate,
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": self.losses,
            "rows": [asdict(row) for row in self.rows],
            "seconds": self.seconds,
            "waiting": self.waiting,
        }
        return Snapshot(tensors, values)

    def restore(self, snapshot: Snapshot) -> None:
        """Back to where the snapshot was taken."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
        for name, value in snapshot.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        _fill(self.model, parts["model"])
        _fill(self.average.model, parts["average"])
        self._restore_optimizer(parts["optimizer"])
        values = snapshot.values
        self.best.restore(values["best"], self.average.model, parts["best"])
        self.schedule.restore(values["schedule"])
        self.rows = [EpochMetrics(**row) for row in values["rows"]]
        self.losses = list(values["losses"])
        self.unseen.clear()
        self.settled = len(self.losses)
        # Several processes make their passes in step, however few images of their shares once fitted one's memory.
        self.micro = values["micro"] if self.processes.world == 1 else self.recipe.batch
        self.rollbacks, self.rate = values["rollbacks"], values["rate"]
        self.epoch, self.batch = values["epoch"], values["batch"]
        self.seconds, self.waiting = values["seconds"], values["waiting"]
        self.average.model.trained = self.epoch > 0

    def _restore_optimizer(self, state: dict[str, Tensor]) -> None:
        self.optimizer.state.clear()
        parameters = dict(self.model.named_parameters())
        for name, value in state.items():
            key, _, owner = name.partition(".")
            parameter = parameters[owner]
            # A copy, for a step changes it; in the parameter's own order of memory.
            like = parameter if value.shape == parameter.shape else value
            self.optimizer.state[parameter][key] = torch.empty_like(like, dtype=value.dtype).copy_(value)

    def finite(self) -> bool:
        """Whether every loss and weight is a number: a checkpoint of others would be worth nothing."""
        self._read_losses()
        return all(map(math.isfinite, self.losses)) and all(
            bool(torch.isfinite(norm)) for norm in torch._foreach_norm(list(self.model.parameters()))
        )


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches; a single smaller one where there are fewer images than a batch holds."""
    return max(1, images // batch)


def class_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """n / (classes · images of the class), float32 [classes]: every class weighs the same in all; 0 for none."""
    counts = torch.from_numpy(np.bincount(labels, minlength=classes)).float()
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def _hash(*numbers: int) -> int:
    digest = blake2b(" ".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _prepare_norms(model: Model, recipe: Recipe) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if recipe.norm_momentum is not None:
                module.momentum = 1 - recipe.norm_momentum
            if recipe.frozen_norm:
                module.eval()


def _callable(model: Model, recipe: Recipe, machine: Machine, processes: Processes) -> Callable[[Tensor], Tensor]:
    """The model as the steps call it."""
    cuda = torch.device(machine.device).type == "cuda"
    network: nn.Module = model
    if processes.world > 1:
        if cuda and not recipe.frozen_norm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        network = DistributedDataParallel(network, device_ids=[processes.local] if cuda else None)
    if machine.compiled:
        return torch.compile(network)
    return network


def _fill(model: Model, tensors: dict[str, Tensor]) -> None:
    """In place, so that whoever holds the tensors sees the new values."""
    with torch.no_grad():
        own = model.state_dict()
        for name, value in tensors.items():
            own[name].copy_(value)
