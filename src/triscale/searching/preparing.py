"""Before the first trial: the reference at the limits, how trials compute here, how much each of them trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product, starmap
from time import monotonic

import torch

from triscale.arch import Architecture, adapt
from triscale.costing import cost
from triscale.data import Data, image_resolution
from triscale.errors import TooShortError, UserError
from triscale.scaling import RULES, TooSmallError, solve
from triscale.scaling.budget import ANALYTIC
from triscale.searching.asked import Asked
from triscale.searching.calibrating import FACTORS
from triscale.searching.calibrating import SEEDS as CALIBRATION_SEEDS
from triscale.searching.costs import NEAR, Costs, quiet_latency
from triscale.searching.halving import ETA, FEWEST, FINALISTS, SEEDS, SPREAD
from triscale.searching.networks import SPACES, NetworkSpace, StageChoices, space_file
from triscale.searching.objectives import Objective
from triscale.searching.references import usual
from triscale.searching.setup import Setup
from triscale.searching.space import Codes
from triscale.training import regularised
from triscale.training import resolve as resolve_recipe
from triscale.training.budgets import check_memory, measured_budget
from triscale.training.recipe import Recipe
from triscale.training.schedule import FEWEST_STEPS
from triscale.trials import Executor
from triscale.trials.pace import JUDGING, PART, TRIAL_OVERHEAD, fastest_way, makespan, usable
from triscale.units import format_seconds

EPOCHS = 9  # of a full training: rungs of 1, 3 and 9
MOST_EPOCHS = 81
SLACK = 1.5  # by which latency and memory may be off from what MACs say
MANY = 100  # candidates: where there is time for more, trainings become longer first


@dataclass(frozen=True, slots=True)
class Amount:
    """How much a search trains. images: of a trial. rungs: epochs. candidates: about how many it tries."""

    images: int
    rungs: tuple[int, ...]
    candidates: int


def prepare_search(
    images: Data, asked: Asked, pool: Executor, keep: Callable[[int], None], device: torch.device, started: float
) -> Setup:
    """Everything that all trials share. pool: a worker for every core; `keep` leaves it so many. started: the
    `time.monotonic()` from which on the asked time counts.

    Raises `UserError` where no network holds the limits, or the time is too short for `FEWEST` candidates.
    """
    objective = asked.wanted()
    space = _space(images, asked, device)
    reference = space.reference
    if str(asked.space) not in SPACES:
        _check_reach(space, objective, device, str(asked.space))
    recipe = resolve_recipe(asked.recipe_named.recipe, images, epochs=asked.epochs)
    if asked.cluster is None:
        check_memory(reference, recipe.batch, device, "give a smaller limit, or fewer --workers", pool.slots)
    quiet = quiet_latency(objective, reference, device)
    way = fastest_way(pool, reference, recipe.batch, device, asked.workers)
    keep(way.workers)
    judged = JUDGING * len(images.val)
    image = way.pace * way.workers * TRIAL_OVERHEAD  # seconds that one worker takes for one of the reference
    gone, first = monotonic() - started, 0.0
    if asked.calibrate:
        first = _calibration(images, asked, recipe, judged, way.workers) * image
    left = None if asked.time is None else max(1.0, usable(max(1.0, asked.time - gone)) - first)
    passes = math.inf if left is None else left / image
    amount = _amount(passes, images, asked, recipe, judged, way.workers)
    if asked.time is not None and amount.candidates < FEWEST:
        least = _passes(FEWEST, amount.images, amount.rungs, judged, way.workers) * image
        needed = (least + first) / usable(1.0) + gone
        raise TooShortError(
            f"--time {format_seconds(asked.time)}: the least search, {FEWEST} candidates of {amount.images:,} images × "
            f"{amount.rungs[-1]} epochs, takes about {format_seconds(needed)}",
            "give it that time, or a smaller limit",
            needed,
        )
    return Setup(
        space=space,
        objective=objective,
        strategy=asked.strategy,
        recipe=recipe,
        images=amount.images,
        rungs=amount.rungs,
        how=way.how,
        workers=way.workers,
        seed=asked.seed,
        data=images.fingerprint,
        pace=image / cost(reference).macs,
        judged=judged,
        selection=len(images.val),
        time=asked.time,
        candidates=asked.candidates,
        quiet=quiet,
        beside=tuple(str(path.resolve()) for path in asked.beside),
    )


def _space(images: Data, asked: Asked, device: torch.device) -> NetworkSpace:
    """Around the reference for these images and at the limits. One that people bring as a file keeps its size where it
    is within them, as does any that no scale brings nearer; the reference of a space that is a file always does."""
    channels, classes = images.channels, len(images.classes)
    if str(asked.space) not in SPACES:
        space = space_file(asked.space)
        changed = adapt(space.reference, resolution=asked.resolution, channels=channels, classes=classes)
        return replace(space, reference=changed)
    resolution = asked.resolution or (image_resolution(images) if asked.published else None)
    named = asked.network or usual(str(asked.space), resolution or image_resolution(images))
    fitted = adapt(named, resolution=resolution, channels=channels, classes=classes)
    budget = measured_budget(asked.limits, device)
    space, (low, _) = SPACES[str(asked.space)](fitted), asked.wanted().band
    if not asked.published and low <= budget.used(budget.values(fitted)) <= 1:
        return space
    try:  # with every pixel, up or down: the resolution is not the search's to choose
        scaled = replace(solve(fitted, RULES["slim"], budget).architecture, name=fitted.name)
    except TooSmallError as error:
        if budget.used(budget.values(fitted)) <= 1:  # a step of its channels up is too much already
            return space
        ways = "give a larger limit, or a smaller --reference"
        if error.over not in ("params", "size"):  # which pixels do not change
            ways += f"; or {_fewer_pixels(fitted, images)}"
        raise UserError(f"{error.what}; {ways}") from None
    return space.at(regularised(scaled, fitted))


def _fewer_pixels(reference: Architecture, images: Data) -> str:
    """The way out where a reference is too large: a network of one's own keeps its pixels until it is told others."""
    height, width = reference.resolution
    theirs = image_resolution(images)
    if theirs[0] * theirs[1] < height * width:
        return f"--resolution {theirs[0]}x{theirs[1]}, as the images have; the reference keeps its {height}×{width}"
    return f"a --resolution below {height}×{width}"


def _check_reach(space: NetworkSpace, objective: Objective, device: torch.device, name: str) -> None:
    """Raises `UserError` where all networks of a file's space are about too small or too large: the search would draw
    for long and find none."""
    (smallest, largest), (low, high) = map(cost, extremes(space)), objective.band
    costs = Costs(objective, space.reference, device).of(space.reference)
    shares = []
    for term, limit in objective.limits.items():
        if term in ANALYTIC:
            shares.append((getattr(smallest, term) / limit, getattr(largest, term) / limit))
        else:  # measured only of networks near the reference, see `Costs`
            share = costs[term] / limit
            shares.append((share * low / (NEAR * SLACK), share * high * NEAR * SLACK))
    least, most = (max(share[end] for share in shares) for end in (0, 1))
    if least > high or most < low:
        raise UserError(
            f"--space {name}: its networks use about {least:.0%} to {most:.0%} of the limits, and wanted are "
            f"{low:.0%} to {high:.0%}; take another limit or --resolution, or a space around a network of that size"
        )


def extremes(space: NetworkSpace) -> tuple[Architecture, Architecture]:
    """The networks of the fewest and the most MACs, about: every stage is chosen as if it alone were free."""
    width, least, most = len(StageChoices.__slots__), list[int](), list[int]()
    for at in range(0, len(space.space.counts), width):
        least += _extreme(space, at, min)
        most += _extreme(space, at, max)
    return space.network(tuple(least)), space.network(tuple(most))


# Once the kind and the channels of a stage are settled, which value of these costs most does not depend on those after
# it. (The expansion's does on those before it: with that of 1 a fused MBConv is another convolution.)
ONE_BY_ONE = ("repeats", "kernel", "skip", "squeeze_excite", "expansion")


def _extreme(space: NetworkSpace, at: int, pick: Callable[..., tuple[int, Codes]]) -> Codes:
    """The codes of the stage whose first code has the place `at`, with all others at their first values. Its points are
    a product of seven choices, far too many to go through in a space that people write."""
    names, counts = StageChoices.__slots__, space.space.counts
    before, after = (0,) * at, (0,) * (len(counts) - at - len(names))

    def macs(codes: Codes) -> tuple[int, Codes]:
        return cost(space.network((*before, *codes, *after))).macs, codes

    def settled(kind: int, channels: int) -> tuple[int, Codes]:
        chosen = {"kind": kind, "channels": channels}
        codes = tuple(chosen.get(name, 0) for name in names)
        for place in map(names.index, ONE_BY_ONE):
            tried = ((*codes[:place], code, *codes[place + 1 :]) for code in range(counts[at + place]))
            codes = pick(map(macs, tried))[1]
        return macs(codes)

    kinds, channels = (range(counts[at + names.index(name)]) for name in ("kind", "channels"))
    return pick(starmap(settled, product(kinds, channels)))[1]


def _amount(passes: float, images: Data, asked: Asked, recipe: Recipe, judged: float, workers: int) -> Amount:
    """How much a trial trains: as asked; else nine epochs of so many images that a hundred candidates take the time,
    then more epochs of all images. Never less than 300 steps; without a time, 8,000 images where there are more.
    passes: images that each of the workers trains on in the time."""
    most = len(images.train) if asked.images is None else min(asked.images, len(images.train))
    epochs = asked.epochs or _enough(min(most, PART), recipe.batch)
    rungs = rungs_of(epochs)
    if not math.isfinite(passes):
        return Amount(most if asked.images is not None else min(most, PART), rungs, asked.candidates or FEWEST)
    wanted, part = min(MANY, asked.candidates or MANY), most
    if asked.images is None:
        least = min(most, recipe.batch * math.ceil(FEWEST_STEPS / epochs))
        one = _passes(wanted, 1, rungs, 0.0, workers)
        grown = int((passes - _passes(wanted, 0, rungs, judged, workers)) / one) // 100 * 100
        part = min(most, max(least, grown))
    while asked.epochs is None and part == most and epochs + EPOCHS <= MOST_EPOCHS:
        if _passes(wanted, part, rungs_of(epochs + EPOCHS), judged, workers) > passes:
            break
        epochs += EPOCHS
        rungs = rungs_of(epochs)
    tried = 0
    while tried < (asked.candidates or 100_000) and _passes(tried + 1, part, rungs, judged, workers) <= passes:
        tried += 1
    return Amount(part, rungs, tried)


def _calibration(images: Data, asked: Asked, recipe: Recipe, judged: float, workers: int) -> float:
    """Images that a worker trains on at least until the calibration is over, in those of the reference."""
    part = min(len(images.train), asked.images or PART)
    epochs = asked.epochs or _enough(part, recipe.batch)
    longest_first = sorted(CALIBRATION_SEEDS * FACTORS, reverse=True)
    return makespan(longest_first, workers) * (part * epochs + judged)


def _enough(images: int, batch: int) -> int:
    """The least epochs of a full training, in nines."""
    steps = EPOCHS * max(1, images // batch)
    return min(MOST_EPOCHS, EPOCHS * max(1, math.ceil(FEWEST_STEPS / steps)))


def rungs_of(epochs: int) -> tuple[int, ...]:
    """Epochs of the rungs: a ninth, a third, all; fewer rungs where these are the same."""
    return tuple(sorted({max(1, epochs // ETA**2), max(1, epochs // ETA), epochs}))


def _passes(candidates: int, images: int, rungs: tuple[int, ...], judged: float, workers: int) -> float:
    """Images that a worker trains on until a search is over, judging included: halving, then the final runs with the
    reference's. No training is cut: however many workers there are, a candidate goes from rung to rung, and then as
    many full trainings follow as one of them does."""
    trials, count, halving = [epochs * images + judged for epochs in rungs], float(candidates), 0.0
    for each in trials:
        halving += count * each
        count /= ETA
    again = (FINALISTS + 1) * SEEDS
    shared = (halving + SPREAD * again * trials[-1]) / workers
    return max(shared, sum(trials) + SPREAD * math.ceil(again / workers) * trials[-1])
