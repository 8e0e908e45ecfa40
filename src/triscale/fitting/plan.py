"""The plan of a run: decided before training starts, and frozen."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from triscale.arch import Architecture, to_dict
from triscale.costing import cost
from triscale.data import Data, Preprocess, image_resolution, own_pixels, prepare
from triscale.errors import TooShortError, UserError
from triscale.fitting.candidates import (
    ATTEMPTS,
    TRAINING_OVERHEAD,
    Candidate,
    Course,
    expect,
    measure,
    shrink,
    smaller_share,
    take,
    too_slow,
)
from triscale.fitting.frozen import margin
from triscale.fitting.images import make_preprocess, make_recipe, scratch_recipe
from triscale.fitting.judging import judge
from triscale.fitting.ready import Ready
from triscale.fitting.wish import Wish
from triscale.models.model import Model, new
from triscale.plain import to_plain
from triscale.scaling import Scaled
from triscale.scaling.summary import summary
from triscale.training import Machine, Pace, Recipe, Validation, rehearse
from triscale.training.schedule import FEWEST_EPOCHS, FEWEST_STEPS
from triscale.training.session import STATISTICS_BATCHES, steps_per_epoch
from triscale.units import format_seconds
from triscale.weights import Provenance

DEFAULT_EPOCHS = 20  # without a time limit
MOST_EPOCHS, MOST_STEPS = 60, 6000  # with both behind, more bring little
PLANNING = 0.12  # of the time left when planning starts: for the plan itself and the test at the end
MEASURING = 0.25  # of the time for training: candidates that are not timed by then are left out
REHEARSAL = 0.02  # of the expected training, and at most so many seconds
LONGEST_REHEARSAL = 8.0
REPORT_SECONDS = 3.0
SAVE_SECONDS, DISK = 0.03, 2e8  # of a checkpoint: to write any file and force it to disk; bytes a second


@dataclass(frozen=True)
class Plan:
    """Which network, seen through which preprocessing, trained how, where, for how long; and what else was measured.

    candidates: all that were measured. taken: the position of the chosen one. pace: real seconds of a step and of an
    epoch's end. fewest: epochs that a candidate had to complete. after: expected seconds of what follows the training.
    planning: seconds until the plan was made. expected: seconds of all of it, or nothing where nothing was timed. time:
    the limit. weights: what the training starts from, where it is not from
    scratch. scratch: how the same network is trained from scratch afterwards, to compare.
    """

    candidates: tuple[Candidate, ...]
    taken: int
    why: str
    architecture: Architecture
    preprocess: Preprocess
    recipe: Recipe
    machine: Machine
    pace: Pace
    steps: int
    fewest: int
    after: float
    planning: float
    expected: float | None
    time: float | None
    seed: int
    weights: Provenance | None = None
    scratch: Recipe | None = None
    engine: str | None = None

    @property
    def scaled(self) -> Scaled:
        """How the chosen network came about."""
        scaled = self.candidates[self.taken].scaled
        assert scaled is not None
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "baseline": to_dict(self.scaled.baseline),
            "architecture": to_dict(self.architecture),
            "scaling": summary(self.scaled),
            "candidates": [row(candidate, i == self.taken) for i, candidate in enumerate(self.candidates)],
            "why": self.why,
            "preprocess": self.preprocess.to_json(),
            "recipe": to_plain(self.recipe),
            "weights": None if self.weights is None else self.weights.to_json(),
            "scratch": None if self.scratch is None else to_plain(self.scratch),
            "machine": asdict(self.machine),
            "steps": self.steps,
            "fewest_epochs": self.fewest,
            "step_seconds": self.pace.step,
            "epoch_end_seconds": self.pace.epoch_end,
            "after_seconds": self.after,
            "planning_seconds": self.planning,
            "expected_seconds": self.expected,
            "time": self.time,
            "seed": self.seed,
            "engine": self.engine,
        }


@dataclass(frozen=True, eq=False)
class Draft:
    """A plan and what was made for it."""

    plan: Plan
    ready: Ready


class PlanListener:
    """Told what planning does; does nothing with it."""

    def measuring(self, done: int, total: int) -> None:
        """So many of the candidates were timed."""

    def preparing(self, done: int, total: int) -> None:
        """So many of a split's images were decoded for training."""


def row(candidate: Candidate, taken: bool) -> dict[str, Any]:
    """A line of the plan's table, as plain values."""
    values: dict[str, Any] = {"name": candidate.name, "taken": taken, "refused": candidate.refused}
    if candidate.scaled is None or candidate.architecture is None:
        return values
    total = candidate.scaled.cost
    return values | {
        "rule": candidate.scaled.rule,
        "resolution": list(candidate.architecture.resolution),
        "blocks": candidate.architecture.blocks,
        "macs": total.macs,
        "params": total.params,
        "activations": total.activations,
        "size": total.size,
        "latency": None if candidate.latency is None else asdict(candidate.latency),
        "budget": summary(candidate.scaled)["budget"],
        "images_per_second": candidate.images_per_second,
        "epoch_seconds": candidate.epoch,
        "epochs": candidate.epochs,
        "shrunk": candidate.shrunk,
    }


@dataclass(frozen=True, eq=False)
class _Asked:
    """What planning starts from."""

    images: Data
    wish: Wish
    recipe: Recipe
    started: float
    listener: PlanListener

    def left(self, after: float = 0.0) -> float | None:
        """Seconds for training; None without a time limit."""
        if self.wish.time is None:
            return None
        return self.started + self.wish.time - margin(self.wish.time) - after - time.monotonic()

    @property
    def trainings(self) -> int:
        """How many trainings of one length share the time."""
        return 2 if self.wish.scratch else 1


def make_plan(images: Data, wish: Wish, started: float, listener: PlanListener) -> Draft:
    """Times the candidates, takes one, rehearses its training, and says how many epochs it gets.

    started: `time.monotonic()` when the work began, from which a time limit counts. Raises `UserError` where no
    candidate can hold the budget, fits the memory or completes the fewest epochs.
    """
    asked = _Asked(images, wish, make_recipe(images, wish), started, listener)
    course = _course(asked)
    if course.seconds is not None and course.seconds <= 0:
        # A minute more is a guess: nothing has been measured yet.
        least = 60 + 2 * (time.monotonic() - started)
        raise TooShortError(
            f"--time {format_seconds(wish.time or 0)}: too short, all of it went by before training could be planned",
            f"give it {format_seconds(least)} or more",
            least,
        )
    if course.seconds is not None:
        course = replace(course, until=time.monotonic() + MEASURING * course.seconds)
    return _rehearsed(asked, measure(images, wish, course, listener.measuring), course)


def _course(asked: _Asked) -> Course:
    images, recipe, epochs, left = asked.images, asked.recipe, asked.wish.epochs, asked.left()
    steps, batch = steps_per_epoch(len(images.train), recipe.batch), min(recipe.batch, len(images.train))
    pixels = min(image_resolution(images))
    seconds = None if left is None else left * (1 - PLANNING) / asked.trainings
    if epochs is not None:
        return Course(steps, batch, pixels, epochs, epochs, seconds, asked.wish.time)
    if seconds is None:
        return Course(steps, batch, pixels, DEFAULT_EPOCHS, DEFAULT_EPOCHS, None, None)
    fewest = FEWEST_EPOCHS if asked.wish.weights else max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / steps))
    most = max(MOST_EPOCHS, math.ceil(MOST_STEPS / steps))
    return Course(steps, batch, pixels, fewest, most, seconds, asked.wish.time)


def _rehearsed(asked: "_Asked", candidates: tuple[Candidate, ...], course: Course) -> Draft:
    """The plan, once the candidate that is taken was rehearsed and its real pace completes the fewest epochs.

    What a rehearsal shows may change which candidate that is; where none completes them, the one rehearsed last is made
    smaller.
    """
    overheads: dict[int, float] = {}  # by position, of candidates as they were rehearsed
    taken, why = take(candidates, course)
    stage, rehearsed = None, candidates[taken]
    for _ in range(ATTEMPTS + len(candidates)):
        candidate = candidates[taken]
        stage, pace, course = _rehearse(asked, candidate, course, stage)
        overheads[taken] = pace.epoch(course.steps) / (course.images * _machine(candidate).per_image)
        candidates = tuple(
            one if one.refused else expect(one, course, overheads.get(i, min(TRAINING_OVERHEAD, overheads[taken])))
            for i, one in enumerate(candidates)
        )
        if any(one.completes(course) for one in candidates):
            again, since = take(candidates, course)
            # Each is rehearsed once: between two that are equally fast the clock would go back and forth.
            settled = course.seconds is None or (again in overheads and candidates[taken].completes(course))
            if again == taken or settled:
                # Where a clock that rehearsals corrected would take another one now, the table shows it.
                why = since if again == taken else f"{why}, as first timed"
                return _draft(asked, stage, candidates, taken, why, pace, course)
            taken, why = again, since
            continue
        rehearsed = candidates[taken]
        if course.seconds is not None and course.seconds <= 0:  # no network is small enough for no time at all
            break
        try:
            smaller = shrink(rehearsed, smaller_share(rehearsed, course), asked.images, asked.wish, course)
        except UserError:
            break
        del overheads[taken]
        candidates = (*candidates[:taken], smaller, *candidates[taken + 1 :])
    raise too_slow(rehearsed, course)  # a smaller one was only timed, which may look as if it were fast enough


def _machine(candidate: Candidate) -> Machine:
    assert candidate.machine is not None
    return candidate.machine


def _rehearse(
    asked: "_Asked", candidate: Candidate, course: Course, before: Ready | None
) -> tuple[Ready, Pace, Course]:
    """The candidate set up, its real pace, and the course with the time that is really left."""
    assert candidate.architecture is not None
    stage = _set_up(asked, candidate.architecture, before)
    pace = _pace(stage, asked.recipe, _machine(candidate), course)
    left = asked.left(_after(asked, pace, course))
    return stage, pace, replace(course, seconds=None if left is None else left / asked.trainings)


def _draft(
    asked: "_Asked",
    stage: Ready,
    candidates: tuple[Candidate, ...],
    taken: int,
    why: str,
    pace: Pace,
    course: Course,
) -> Draft:
    candidate, after = candidates[taken], _after(asked, pace, course)
    epochs, wish = candidate.epochs, asked.wish
    plan = Plan(
        candidates=candidates,
        taken=taken,
        why="; ".join((why, *_remarks(asked, candidate, stage.model.architecture))),
        architecture=stage.model.architecture,
        preprocess=stage.model.preprocess,
        recipe=asked.recipe.lasting(epochs),
        machine=_machine(candidate),
        pace=pace,
        steps=epochs * course.steps,
        fewest=course.fewest,
        after=after,
        planning=(planning := time.monotonic() - asked.started),
        expected=planning + asked.trainings * epochs * candidate.epoch + after,
        time=wish.time,
        seed=wish.seed,
        weights=wish.started_from,
        scratch=scratch_recipe(asked.images, wish).lasting(epochs) if wish.scratch else None,
        engine=wish.engine,
    )
    return Draft(plan, stage)


def _remarks(asked: "_Asked", candidate: Candidate, network: Architecture) -> Iterator[str]:
    """What somebody may not expect of the network that is taken."""
    if asked.wish.weights is not None and network.channels < asked.images.channels:
        yield "its weights see gray, so colours are lost"
    if candidate.shrunk:
        yield "smaller than the budget allows, because larger ones would not"
    shown = zip(own_pixels(asked.images), image_resolution(asked.images), strict=True)
    if any(side > max(most) for side, most in zip(network.resolution, shown, strict=True)):
        own, seen = ("×".join(map(str, size)) for size in (own_pixels(asked.images), network.resolution))
        yield f"it sees images of {own} pixels enlarged to {seen}"


def _set_up(asked: "_Asked", architecture: Architecture, before: Ready | None) -> Ready:
    """The untrained model and the images as it sees them; those of the attempt before where nothing changed."""
    preprocess = make_preprocess(asked.images, architecture, asked.wish)
    model = start(architecture, asked.images.classes, preprocess, asked.wish)
    if before is not None and before.model.preprocess == preprocess:
        return replace(before, model=model)
    told = asked.listener.preparing
    training = prepare(asked.images.train, preprocess, asked.recipe.augment, progress=told)
    held_out, test = (prepare(split, preprocess, progress=told) for split in (asked.images.val, asked.images.test))
    return Ready(model, asked.images, training, held_out, test)


def start(architecture: Architecture, classes: tuple[str, ...], preprocess: Preprocess, wish: Wish) -> Model:
    """The model before its first step: random, or the weights that were named below a new, random head."""
    model = new(architecture, classes, preprocess, seed=wish.seed)
    if wish.weights is not None:
        learned = {name: value for name, value in wish.weights.state_dict().items() if "head.classifier" not in name}
        # A head of zeros says nothing at first, and so sends no noise back into what was learned.
        silent = {name: torch.zeros_like(value) for name, value in model.head.classifier.state_dict().items()}
        head = {f"head.classifier.{name}": value for name, value in silent.items()}
        model.load_state_dict(model.state_dict() | learned | head)
        model.provenance = wish.started_from
    return model


def _pace(stage: Ready, recipe: Recipe, machine: Machine, course: Course) -> Pace:
    expected = course.fewest * course.images * machine.per_image if course.seconds is None else course.seconds

    def validate(average: Model) -> Validation:
        return judge(average, stage.held_out, machine)

    seconds = min(LONGEST_REHEARSAL, REHEARSAL * max(0.0, expected))
    pace = rehearse(stage.model, stage.training, recipe, machine, validate=validate, seconds=seconds)
    saving = SAVE_SECONDS + cost(stage.model.architecture).size / DISK
    return replace(pace, epoch_end=pace.epoch_end + saving)


def _after(asked: "_Asked", pace: Pace, course: Course) -> float:
    """Expected seconds of the test and the report, by what validation took. The test computes in fp32."""
    images = asked.images
    seen = len(images.val) + (0 if asked.recipe.frozen_norm else min(STATISTICS_BATCHES, course.steps) * course.batch)
    return asked.trainings * 1.5 * pace.epoch_end * len(images.test) / seen + REPORT_SECONDS
