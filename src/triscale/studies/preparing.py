"""Before the first trial: the baseline on these images, how trials compute here, how much each of them trains."""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import torch

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.data import Data
from triscale.studies.asked import Asked
from triscale.studies.designs import Arm
from triscale.studies.growing import baseline_for, grow_arm, slimmed, slimmest
from triscale.studies.planning import (
    GUESSED_NOISE,
    Effort,
    Fidelity,
    Rung,
    choose,
    fidelity_for,
    least,
    lines,
)
from triscale.studies.setup import Setup
from triscale.training import resolve as resolve_recipe
from triscale.training.budgets import check_memory
from triscale.training.recipe import Recipe
from triscale.trials import Executor, Probe
from triscale.trials.pace import JUDGING, TRIAL_OVERHEAD, Way, fastest_way, usable

TYPICAL_MACS = 4e6  # of a baseline whose size is not known yet


def prepare_study(
    images: Data, asked: Asked, pool: Executor, keep: Callable[[int], None], device: torch.device, started: float
) -> Setup:
    """Everything that all trials share. pool: a worker for every core; `keep` leaves it so many. started: the
    `time.monotonic()` from which on the asked time counts.

    Raises `UserError` where the time is too short for the least study, with what that takes.
    """
    named = baseline_for(
        asked.network,
        images,
        asked.factor**2,
        published=asked.published,
        resolution=asked.resolution,
    )
    recipe = resolve_recipe(asked.recipe_named.recipe, images, epochs=asked.epochs)
    fewest = least(len(images.train) if asked.images is None else asked.images, recipe.batch)
    way, baseline = _sized(named, images, asked, recipe, pool, fewest, device)
    keep(way.workers)
    rungs, pixels = asked.wanted.rungs, images.size if images.uniform else None
    effort = _effort(baseline, rungs, asked, images, pool, way, recipe.batch, device)
    gone = 0.0
    if asked.wanted.time is not None:
        gone = min(asked.wanted.time - 1.0, monotonic() - started)
        asked = replace(asked, wanted=replace(asked.wanted, time=asked.wanted.time - gone))
    fidelity = _fidelity(rungs, effort, asked, way.workers, len(images.train), recipe)
    if asked.wanted.time is not None:  # said before anything is trained
        choose(lines(rungs, effort, fidelity, way.workers, GUESSED_NOISE), asked.wanted.time, gone)
    return Setup(
        baseline=baseline,
        factor=asked.factor,
        recipe=recipe.lasting(fidelity.epochs),
        fidelity=fidelity,
        how=way.how,
        workers=way.workers,
        seed=asked.seed,
        data=images.fingerprint,
        pixels=pixels,
        effort=effort,
    )


def _sized(
    named: Architecture,
    images: Data,
    asked: Asked,
    recipe: Recipe,
    pool: Executor,
    fewest: Fidelity,
    device: torch.device,
) -> tuple[Way, Architecture]:
    """The baseline at the MACs that are asked, or that the time allows: the largest with which the fullest of the
    first four rungs trains twice the least. One that people bring as a file keeps its size."""
    if asked.macs is not None:
        baseline = slimmed(named, asked.macs)
        return fastest_way(pool, baseline, recipe.batch, device, asked.workers), baseline
    small = slimmed(named, max(TYPICAL_MACS, cost(slimmest(named)).macs)) if asked.published else named
    way = fastest_way(pool, small, recipe.batch, device, asked.workers)
    if not asked.published or asked.wanted.time is None:
        return way, small
    per_mac = way.pace * way.workers / cost(small).macs
    rungs = asked.wanted.rungs
    rung = rungs[min(3, len(rungs) - 1)]
    effort = Effort(1.0, (asked.factor,) * len(rung.design.arms), (asked.factor**2,), TRIAL_OVERHEAD, _judging(images))
    twice = replace(fewest, epochs=2 * fewest.epochs)
    most = usable(asked.wanted.time) / (rung.wall(effort, twice, way.workers) * per_mac)
    if most >= cost(named).macs:
        return way, named
    return way, slimmed(named, max(cost(slimmest(named)).macs, most))


def _judging(images: Data) -> float:
    return JUDGING * (len(images.val) + len(images.test))


def _effort(
    baseline: Architecture,
    rungs: list[Rung],
    asked: Asked,
    images: Data,
    pool: Executor,
    way: Way,
    batch: int,
    device: torch.device,
) -> Effort:
    """Timed: the baseline and every arm at the factor, the slowest kinds again at the squared one."""
    pixels = images.size if images.uniform else None
    arms: tuple[Arm, ...] = max((rung.design for rung in rungs), key=lambda design: len(design.arms)).arms
    twice = any(rung.twice for rung in rungs)
    once = [grow_arm(baseline, arm, asked.factor, pixels).network for arm in arms]
    again = [grow_arm(baseline, arm, asked.factor**2, pixels).network for arm in arms if arm.single] if twice else []
    if asked.cluster is None:
        for network in (baseline, *once, *again):
            check_memory(network, batch, device, "take a smaller baseline by --macs, or fewer --workers", way.workers)
    probes = [Probe(network, batch, way.how) for network in (baseline, *once, *again)]
    first, *paces = pool.measure(probes)
    return Effort(first, tuple(paces[: len(once)]), tuple(paces[len(once) :]), TRIAL_OVERHEAD, _judging(images))


def _fidelity(rungs: list[Rung], effort: Effort, asked: Asked, slots: int, images: int, recipe: Recipe) -> Fidelity:
    """As asked, and by the time where it is not."""
    most = images if asked.images is None else min(images, asked.images)
    if asked.wanted.time is None:
        return Fidelity(most, recipe.epochs)
    found = fidelity_for(rungs, effort, asked.wanted.time, slots, most, recipe.batch)
    if asked.images is not None:
        found = Fidelity(most, max(1, round(found.passes / most)))
    return found if asked.epochs is None else replace(found, epochs=asked.epochs)
