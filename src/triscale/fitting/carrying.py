"""A frozen plan is carried out: train, save, test, report. The same for a run that begins and for one that goes on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from triscale.data import Data
from triscale.engines import Latency, measure_latency, measure_memory
from triscale.errors import UserError
from triscale.evaluating import Predictions, predict_images
from triscale.fitting.board import Board
from triscale.fitting.fitted import Fitted
from triscale.fitting.frozen import Frozen
from triscale.fitting.judging import judge, predict_together
from triscale.fitting.listening import Listener
from triscale.fitting.precision import Half, judge_half
from triscale.fitting.ready import Ready
from triscale.fitting.scratch import Scratch, train_scratch
from triscale.models.model import Model, load
from triscale.reporting import write_card, write_report
from triscale.runs import RunDirectory, write_whole
from triscale.training import ALONE, CLOCK, Checkpoints, EpochMetrics, Processes, Step, Watch, rows_of, train
from triscale.training.checkpoints import EVERY


@dataclass(frozen=True)
class How:
    """How a run is carried out, without any influence on what comes out. every: seconds between two checkpoints within
    an epoch. tensorboard: whether events for it are written."""

    listener: Listener
    processes: Processes = ALONE
    every: float = EVERY
    tensorboard: bool = False


def carry_out(run: RunDirectory, settings: dict[str, Any], plan: Frozen, ready: Ready, how: How) -> Fitted | None:
    """Everything after planning; the leading process returns what came out, the others nothing."""
    processes, device = how.processes, torch.device(plan.machine.device)
    started, keeper = time.monotonic(), Checkpoints(run.checkpoints, how.every, how.listener.note)
    watch = _Watch(run, plan, how, _board(run, keeper, how))
    trained = train(
        ready.model,
        ready.training,
        plan.recipe,
        plan.machine,
        seed=plan.seed,
        validate=lambda average: judge(average, ready.held_out, plan.machine, processes),
        deadline=plan.deadline,
        keeper=keeper,
        watch=watch,
        processes=processes,
    )
    here = time.monotonic() - started
    rows = watch.rows or rows_of(keeper)
    # Of sittings before this one only the epochs' own seconds are known.
    training = max(here, sum(row.seconds + plan.pace.epoch_end for row in rows))
    if processes.leads:  # before anything else can go wrong
        trained.precision = "fp32"
        trained.save(run.model)
    # In fp32, so that it is the same on every processor: `eval` gives the same figure again.
    test = predict_together(trained, ready.test, processes=processes)
    if not processes.leads:
        processes.wait()
        return None
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    write_whole(run.predictions, test.to_csv())
    half = judge_half(trained, ready.held_out, looked_at=rows[-1].step * plan.recipe.batch, seed=plan.seed)
    if half.holds:
        trained.precision = half.answers
        trained.save(run.model)
    scratch = _from_scratch(run, plan, ready, how, training, test)
    latency, achieved = _achieved(run, plan, device)
    fitted = Fitted(
        run=run,
        model=trained,
        plan=plan,
        test=test,
        achieved=achieved,
        latency=latency,
        half=half,
        steps=rows[-1].step,
        kept=rows[-1].kept or rows[-1].epoch,
        scratch=scratch,
        leaks=ready.images.leaks,
        imbalance=ready.images.imbalance()[0],
        peak_memory=peak,
        seconds=plan.planning + training + time.monotonic() - started - here,
        metrics=rows,
    )
    run.write_settings({**settings, "result": fitted.to_json()})
    _describe(run, test, ready.images)
    processes.wait()
    return fitted


def _board(run: RunDirectory, keeper: Checkpoints, how: How) -> Board | None:
    """Where events go on after those of the sittings before."""
    if not (how.tensorboard and how.processes.leads):
        return None
    before = rows_of(keeper)
    return Board(run.path, after=before[-1].step if before else 0)


def tested_again(run: RunDirectory, result: Mapping[str, Any], plan: Frozen, images: Data) -> Fitted:
    """A finished run: its model on its test images. Nothing is trained; of a training from scratch it is known what
    run.json holds. Report and card are written where it was killed before them, nothing else is. Raises
    `UserError` where the model is not there or not whole."""
    device = torch.device(plan.machine.device)
    found = _found(run, result)
    latency, achieved = _achieved(run, plan, device)
    model = load(run.model)
    test = predict_images(model.to(device), images.test)
    if not run.card.is_file():  # the last that is written
        _describe(run, test, images)
    return Fitted(
        run=run,
        model=model,
        plan=plan,
        test=test,
        achieved=achieved,
        latency=latency,
        leaks=images.leaks,
        imbalance=images.imbalance()[0],
        **found,
    )


def _found(run: RunDirectory, result: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Fitted` that are not measured again. Raises `UserError` for what another version wrote."""
    try:
        return {
            "half": Half.from_json(result["half"]),
            "steps": int(result["steps"]["made"]),
            "kept": int(result["kept_epoch"]),
            "scratch": Scratch.from_json(result["scratch"]),
            "peak_memory": result["peak_device_memory"],
            "seconds": float(result["seconds"]),
            "metrics": tuple(EpochMetrics(**row) for row in run.metrics()),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path}/run.json: its result is not one that this version reads ({error!r}); take the version that "
            "wrote it, or begin another run"
        ) from None


@dataclass
class _Watch(Watch):
    """Writes what a run's training says, and passes it on."""

    run: RunDirectory
    plan: Frozen
    how: How
    board: Board | None = None
    rows: tuple[EpochMetrics, ...] = ()

    def step(self, step: Step) -> None:
        self.how.listener.step(step)

    def epoch(self, rows: Sequence[EpochMetrics], average: Model) -> None:
        self.rows = tuple(rows)
        if self.how.processes.leads:
            apart = CLOCK if self.plan.machine.deterministic else ()
            self.run.write_metrics(map(asdict, rows), apart)
            if self.board is not None:
                self.board.add(rows[-1])
        self.how.listener.epoch(rows[-1])

    def note(self, text: str) -> None:
        self.how.listener.note(text)

    def stopping(self) -> bool:
        return self.how.listener.stopping()


def _describe(run: RunDirectory, test: Predictions, images: Data) -> None:
    """What people look at; afterwards nothing is needed that is not in the run."""
    write_report(run, test, images.test)
    write_card(run)
    run.start.unlink(missing_ok=True)


def _from_scratch(
    run: RunDirectory, plan: Frozen, ready: Ready, how: How, spent: float, fitted: Predictions
) -> Scratch | None:
    if plan.scratch is None:
        return None
    how.listener.scratch()
    keeper = Checkpoints(run.scratch_checkpoints, how.every, how.listener.note)
    scratch, test = train_scratch(plan, ready, keeper, how.listener, spent, fitted)
    write_whole(run.scratch_predictions, test.to_csv())
    return scratch


def _achieved(run: RunDirectory, plan: Frozen, device: torch.device) -> tuple[Latency, dict[str, float]]:
    """What the saved model takes here, and its cost in each limited term: measured anew where it is measured."""
    model = load(run.model)
    latency = measure_latency([model], device=device, engine=plan.engine)[0]
    values = dict(plan.scaled.values or {})
    if "latency" in values:
        values["latency"] = latency.median
    if "memory" in values:
        values["memory"] = float(measure_memory(model, device=device))
    return latency, values
