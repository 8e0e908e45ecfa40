"""The training loop: epochs, checkpoints, and the way back where a loss is not finite."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from triscale.data import Prepared
from triscale.errors import TriscaleError, UserError
from triscale.models.model import Model
from triscale.training.checkpoints import InMemory, Keeper, Snapshot, read_snapshot, to_bytes
from triscale.training.machine import Machine
from triscale.training.processes import ALONE, Processes
from triscale.training.recipe import Recipe
from triscale.training.schedule import Deadline
from triscale.training.session import FEWEST, NotFiniteError, Session
from triscale.training.watching import DivergedError, EpochMetrics, Step, StoppedError, Validation, Watch

REHEARSED = 5  # steps at least, and epochs at most
ROLLBACKS = 3
STATUS = Path("/proc/self/status")  # on Linux


def train(
    model: Model,
    images: Prepared,
    recipe: Recipe,
    machine: Machine,
    *,
    seed: int,
    validate: Callable[[Model], Validation],
    deadline: Deadline | None = None,
    keeper: Keeper | None = None,
    watch: Watch | None = None,
    processes: Processes = ALONE,
) -> Model:
    """Trains the model in place and returns the averaged one, in evaluation mode.

    The same seed, data, recipe and machine give the same batches in the same order, and the same weights; so does a
    training that was stopped, killed or torn down anywhere and goes on from what `keeper` kept. `validate` judges the
    averaged model after each epoch; only where the recipe has patience is anything chosen by it. With a deadline, steps
    are left out where the time would run out, and the learning rate comes down all the same; where it does not, nothing
    changes. Where a loss is not finite, it goes back to the last checkpoint and on with half the rate, three times.
    processes: this one and the others, which train together; only the first keeps anything. The process's generators
    and number of threads are afterwards what they were.

    Raises `DivergedError` where the loss is not finite once more, `StoppedError` where `watch` asked to stop.
    """
    keeper, watch = keeper or InMemory(), watch or Watch()
    check_batch(recipe, len(images.images), processes)
    with _as_planned(machine):
        session = Session.start(model, images, recipe, machine, seed, processes, deadline, watch.note)
        kept = _newest(keeper, processes)
        if kept is None:
            _save(session, keeper)
        else:
            session.restore(kept)
        seen: list[str] = []
        while not session.over:
            try:
                _epoch(session, keeper, watch, validate)
            except NotFiniteError as error:
                seen.append(str(error))
                _go_back(session, keeper, watch, seen)
        return session.best.model or session.average.model


def check_batch(recipe: Recipe, images: int, processes: Processes) -> None:
    """Raises `UserError` where a step has too few images for all processes."""
    fewest = min(recipe.batch, images)
    if fewest < FEWEST * processes.world:
        if processes.world == 1:  # a recipe's batch is no smaller
            raise UserError("a single image to train on: normalisation needs at least two; give more")
        raise UserError(f"--batch {fewest}: {processes.world} processes need at least two images each; raise it")


def _epoch(session: Session, keeper: Keeper, watch: Watch, validate: Callable[[Model], Validation]) -> None:
    """What is left of an epoch, its validation, and a checkpoint now and then."""
    for _ in session.steps():
        schedule = session.schedule
        watch.step(Step(schedule.done, schedule.steps, session.epoch + 1, session.recipe.epochs))
        _stop_if_asked(session, keeper, watch)
        if keeper.due(whole=False):
            _save(session, keeper)
    started = time.perf_counter()
    average = session.judged()
    validation = validate(average)
    metrics = _metrics(session, validation)
    session.epoch += 1
    session.batch, session.losses, session.settled, session.seconds, session.waiting = 0, [], 0, 0.0, 0.0
    session.best.consider(session.epoch, average, validation)
    session.rows.append(replace(metrics, kept=session.best.epoch))
    watch.epoch(tuple(session.rows), average)
    session.schedule.epoch_ended(time.perf_counter() - started)
    if session.over or keeper.due(whole=True):
        _save(session, keeper)


def _metrics(session: Session, validation: Validation) -> EpochMetrics:
    made = session.batch * min(session.recipe.batch, len(session.images.images))
    return EpochMetrics(
        epoch=session.epoch + 1,
        step=session.schedule.done,
        loss=round(fmean(session.losses), 5),
        rate=session.rate,
        val_accuracy=validation.accuracy,
        val_loss=round(validation.loss, 5),
        seconds=round(session.seconds, 3),
        images_per_second=round(made / max(session.seconds, 1e-9), 1),
        waiting=round(session.waiting, 3),
        memory=peak_memory(session.device),
    )


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak so far: that PyTorch took of a CUDA device, or this process of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration):  # ru_maxrss of a new process begins at the peak of who started it
        lines = STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _stop_if_asked(session: Session, keeper: Keeper, watch: Watch) -> None:
    asked = torch.tensor([float(watch.stopping())])
    if float(session.processes.sum(asked)):
        _save(session, keeper)
        done, steps = session.schedule.done, session.schedule.steps
        raise StoppedError(f"stopped after step {done:,} of {steps:,}")


def _save(session: Session, keeper: Keeper) -> None:
    """Only what is worth going back to, and only one process writes."""
    if session.processes.leads and session.finite():
        keeper.save(session.snapshot())


def _newest(keeper: Keeper, processes: Processes) -> Snapshot | None:
    """The leader's newest snapshot, in every process: the others may have no disk in common with it."""
    if processes.world == 1:
        return keeper.newest()
    kept = keeper.newest() if processes.leads else None
    content = processes.from_leader(None if kept is None else to_bytes(kept))
    return read_snapshot(content) if content else None


def _go_back(session: Session, keeper: Keeper, watch: Watch, seen: list[str]) -> None:
    """To the last checkpoint, with half the rate of the last time. Raises `TriscaleError` after three times."""
    times = session.rollbacks + 1
    if times > ROLLBACKS:
        raise DivergedError(
            f"{'; '.join(seen)}; it went back {ROLLBACKS} times, each time on with half the rate; take a recipe with a "
            "lower rate (--show-recipe, --recipe) and another --out"
        )
    kept = _newest(keeper, session.processes)
    if kept is None:
        raise TriscaleError(f"{seen[-1]}, and there is no checkpoint to go back to")
    session.restore(kept)
    session.rollbacks = times
    session.optimizer.zero_grad(set_to_none=True)
    watch.note(f"{seen[-1]}: back to step {session.schedule.done:,}, on with {0.5**times:g} of the rate")


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
    with _as_planned(machine):
        session = Session.start(deepcopy(model), images, replace(recipe, epochs=REHEARSED), machine, 0, ALONE, None)
        marks: list[float] = []
        while session.epoch < REHEARSED and not _long_enough(marks, seconds):
            for _ in session.steps():
                marks.append(time.perf_counter())
                if _long_enough(marks, seconds):
                    break
            session.epoch, session.batch = session.epoch + 1, 0
        start = time.perf_counter()
        validate(session.judged())
        ended = time.perf_counter() - start
    return Pace((marks[-1] - marks[0]) / (len(marks) - 1), ended)


def _long_enough(marks: list[float], seconds: float) -> bool:
    return len(marks) >= REHEARSED and marks[-1] - marks[0] > seconds


@contextmanager
def _as_planned(machine: Machine) -> Iterator[None]:
    """The planned threads, and only algorithms that give the same bits again where that was asked for."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(), warnings.catch_warnings():
        # 1×1 convolutions are in both orders of memory at once; the buckets of several processes take the other one.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        torch.set_num_threads(machine.threads)
        if machine.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
            torch.use_deterministic_algorithms(True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
            torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
