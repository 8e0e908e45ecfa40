"""Candidates: each baseline at the budget, and how fast it trains here. Measured, then one is taken."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from triscale.arch import Architecture, adapt
from triscale.data import Data, image_resolution
from triscale.engines import Latency, measure_latency
from triscale.errors import TooShortError, UserError, is_out_of_memory
from triscale.fitting.wish import Wish
from triscale.nn import build
from triscale.scaling import RULES, Scaled, TooSmallError, grow, scale_to
from triscale.scaling.budget import MEASURED, show
from triscale.training import Machine, fastest_machine
from triscale.training.budgets import GUARD, check_memory, measured_budget
from triscale.training.machine import product_speed
from triscale.training.recipe import regularised
from triscale.units import format_count, format_epochs, format_seconds

# A real step with optimizer, average and batches, and its share of validation, over the measured one.
TRAINING_OVERHEAD = 1.5
EQUAL = 0.95  # of the most MACs, or of the pixels kept: candidates of at least so many count as equal
ROUNDS = 3  # of measuring all candidates in turns until all hold the latency
ATTEMPTS = 5  # to shrink a candidate until it completes the fewest epochs
FORWARD_AND_BACK = 3  # times the MACs of the forward pass
# Of the speed of a matrix product in fp32: what no training reaches, in bf16 neither; and what is usual.
FASTEST, USUAL = 10.0, 0.1


@dataclass(frozen=True)
class Candidate:
    """A baseline scaled to the budget and timed.

    baseline: as named. scaled, machine: None where it is refused. architecture: as it would be trained. epoch: expected
    seconds of an epoch. epochs: what the time allows (or what was asked for, without a time). latency: where that is a
    budget. shrunk: it was made smaller than the budget so that it completes the fewest epochs. refused: why it cannot
    be taken. One that no training could complete in the time is not built: it has no architecture and no machine, and
    its epoch is by the usual speed of a training.
    """

    baseline: Architecture
    scaled: Scaled | None = None
    architecture: Architecture | None = None
    machine: Machine | None = None
    epoch: float = 0.0
    images_per_second: float = 0.0
    epochs: int = 0
    latency: Latency | None = None
    shrunk: bool = False
    refused: str | None = None

    @property
    def name(self) -> str:
        """The baseline's name."""
        return self.baseline.name

    def completes(self, course: "Course") -> bool:
        """Whether it can be taken: it holds the budget, and there is time for the fewest epochs."""
        return self.refused is None and self.epochs >= course.fewest

    @property
    def hopeless(self) -> bool:
        """Whether it was left unmeasured because no training could complete it in the time."""
        return self.refused is not None and self.epoch > 0

    @property
    def macs(self) -> int:
        """Of the scaled network; 0 where it holds no budget."""
        return self.scaled.cost.macs if self.scaled else 0

    def kept(self, course: "Course") -> float:
        """The share of the images' pixels that it sees, on the shorter side: at most 1."""
        return min(1.0, min(self.architecture.resolution) / course.pixels) if self.architecture else 0.0


@dataclass(frozen=True)
class Course:
    """What all candidates are measured for: how much there is to train, and how long that may take.

    steps: of an epoch. images: of an epoch's steps. pixels: of the shorter side of the images. fewest, most: epochs
    that make sense; both the asked ones where epochs were asked for. seconds: of training, None where time plays no
    part. time: the limit that was asked, from the start to the end of everything. until: the `time.monotonic()` after
    which no more is measured than one has to.
    """

    steps: int
    batch: int
    pixels: int
    fewest: int
    most: int
    seconds: float | None
    time: float | None
    until: float | None = None

    @property
    def late(self) -> bool:
        """Whether the time for measuring is over."""
        return self.until is not None and time.monotonic() > self.until

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return self.steps * self.batch

    def epochs(self, epoch: float) -> int:
        """How many epochs of so many seconds there is time for; at most the most that make sense."""
        if self.seconds is None:
            return self.most
        return min(self.most, int(self.seconds / epoch))

    def after(self, seconds: float) -> "Course":
        """The same with so many seconds less to train."""
        return self if self.seconds is None else replace(self, seconds=self.seconds - seconds)


def measure(images: Data, wish: Wish, course: Course, told: Callable[[int, int], None]) -> tuple[Candidate, ...]:
    """Every baseline scaled to the budget and timed, in the order named; `told` how many of how many are.

    Only where none completes the fewest epochs, each is made smaller until it does. Where the time for measuring is
    over, none is begun after one that was timed, nor made smaller after one that completes them. One that cannot be
    taken says why; it is no error by itself.
    """
    found: list[Candidate] = []
    started = time.monotonic()
    speed = float("inf") if course.seconds is None else product_speed(wish.device)
    for baseline in wish.baselines:
        late = course.late and any(one.refused is None for one in found)
        found.append(
            Candidate(baseline, refused="there was no time left to measure it; raise --time")
            if late
            else _measure_one(baseline, images, wish, course, speed)
        )
        told(len(found), len(wish.baselines))
    if not any(candidate.completes(course) for candidate in found):
        course = course.after(time.monotonic() - started)
        for i, candidate in enumerate(found):
            if not (course.late and any(one.completes(course) for one in found)):
                found[i] = _small_enough(candidate, images, wish, course)
    return _within_latency(found, images, wish, course)


def take(candidates: tuple[Candidate, ...], course: Course) -> tuple[int, str]:
    """The position of the candidate to train, and why: the largest that completes the fewest epochs; of equally large
    ones those that give up the fewest pixels of the images, and of these the fastest to train.

    Raises `UserError` where there is none.
    """
    possible = [candidate for candidate in candidates if candidate.completes(course)]
    if not possible:
        raise _nothing_left(candidates, course)
    most = max(candidate.macs for candidate in possible)
    largest = [candidate for candidate in possible if candidate.macs >= EQUAL * most]
    most_kept = max(candidate.kept(course) for candidate in largest)
    sharpest = [candidate for candidate in largest if candidate.kept(course) >= EQUAL * most_kept]
    best = max(sharpest, key=lambda candidate: candidate.images_per_second)
    enough = "" if course.seconds is None else f" that completes at least {course.fewest} epochs in the time"
    if len(candidates) == 1:
        why = "the only candidate"
    elif len(possible) == 1:
        why = f"the only one{enough}" if enough else "the only one that holds the budget"
    elif len(largest) == 1:
        why = f"the largest{enough}"
    else:
        equal = f"{len(largest)} equally large ones{enough.replace('completes', 'complete')}"
        if len(sharpest) == len(largest):
            why = f"the fastest to train of {equal}"
        elif len(sharpest) == 1:
            why = f"it keeps the most pixels of {equal}"
        else:
            why = f"of {equal} {len(sharpest)} keep the most pixels, and it is the fastest of these to train"
    return candidates.index(best), why


def shrink(candidate: Candidate, share: float, images: Data, wish: Wish, course: Course) -> Candidate:
    """The candidate at so much less MACs, timed again. Raises `TooSmallError` where there is no such network."""
    if wish.weights is not None:
        raise TooSmallError(f"{candidate.name}: weights fix the network", "take smaller weights")
    limits = {**wish.limits, "macs": min(wish.limits.get("macs", float("inf")), candidate.macs * share)}
    scaled = _scale(candidate.baseline, images, wish, limits)
    return replace(_timed(candidate.baseline, scaled, wish, course), shrunk=True)


def _measure_one(baseline: Architecture, images: Data, wish: Wish, course: Course, speed: float) -> Candidate:
    """speed: MACs a second of a matrix product."""
    try:
        scaled = _scale(baseline, images, wish, wish.limits)
        # To build and time it alone could take longer than all the time there is.
        epoch = course.images * FORWARD_AND_BACK * scaled.cost.macs / speed
        if course.seconds is not None and course.fewest * epoch / FASTEST > course.seconds:
            return _hopeless(baseline, scaled, course, epoch)
        check_memory(scaled.architecture, course.batch, wish.device, "lower --batch or the budget")
        return _timed(baseline, scaled, wish, course)
    except UserError as error:
        return Candidate(baseline, refused=str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        refused = f"a training step of batches of {course.batch} does not fit the memory; lower --batch or the budget"
        return Candidate(baseline, refused=refused)


def _hopeless(baseline: Architecture, scaled: Scaled, course: Course, epoch: float) -> Candidate:
    """The candidate, not built. epoch: its seconds at the speed of a matrix product."""
    network, least = f"{format_count(scaled.cost.macs)} MACs", format_seconds(course.fewest * epoch / FASTEST)
    refused = f"{format_epochs(course.fewest)} of {network} take more than {least} here; raise --time"
    return Candidate(baseline, scaled, epoch=epoch / USUAL, refused=refused)


def _small_enough(candidate: Candidate, images: Data, wish: Wish, course: Course) -> Candidate:
    """The candidate with less MACs, so that it completes the fewest epochs; or the smallest that was tried."""
    for _ in range(ATTEMPTS):
        if (candidate.refused is not None and not candidate.hopeless) or candidate.completes(course):
            break
        try:
            candidate = shrink(candidate, smaller_share(candidate, course), images, wish, course)
        except UserError:
            break
    return candidate


def smaller_share(candidate: Candidate, course: Course) -> float:
    """The share of its MACs at which a candidate should complete the fewest epochs: of one that was timed less than in
    proportion, because small networks do fewer MACs a second."""
    share = max(1e-6, course.seconds or 0.0) / (course.fewest * candidate.epoch)
    return min(0.9, 0.95 * float(share ** (1.0 if candidate.hopeless else 1.3)))


def too_slow(candidate: Candidate, course: Course) -> TooShortError:
    """That a candidate does not complete the fewest epochs, in a sentence."""
    assert course.seconds is not None
    assert course.time is not None
    needed, left = course.fewest * candidate.epoch, max(0.0, course.seconds)
    least = course.time + 2 * (needed - left)  # enough for two trainings, with and without weights to start from
    fewer = ", or ask for fewer --epochs" if course.fewest == course.most > 1 else ""
    training = f"{format_epochs(course.fewest)} of {candidate.name} with {format_count(candidate.macs)} MACs"
    return TooShortError(
        f"--time: {training} take about {format_seconds(needed)}, and there are {format_seconds(left)} for training",
        f"give it {format_seconds(least)} or more{fewer}",
        least,
    )


def _starts_at(baseline: Architecture, images: Data, wish: Wish) -> tuple[int, int]:
    """(h, w) of the network that is scaled: the images' own. With a rule that somebody names, a baseline of fewer
    pixels keeps them: to go from there is what the rule was measured for, as by `study`."""
    shown, own = image_resolution(images), baseline.resolution
    smaller = all(a <= b for a, b in zip(own, shown, strict=True))
    return own if smaller and wish.rule is not None else shown


def _scale(baseline: Architecture, images: Data, wish: Wish, limits: Mapping[str, float]) -> Scaled:
    if wish.weights is not None:
        return _as_it_is(baseline, images, wish)
    adapted = adapt(
        baseline, resolution=_starts_at(baseline, images, wish), channels=images.channels, classes=len(images.classes)
    )
    scaled = scale_to(adapted, wish.rule, measured_budget(limits, wish.device, wish.engine))
    # Of what was solved for, what was asked; of what was measured, what it was.
    values = {term: (scaled.values or {})[term] * (GUARD if term in MEASURED else 1.0) for term in wish.limits}
    return replace(scaled, limits=dict(wish.limits), values=values)


def _as_it_is(baseline: Architecture, images: Data, wish: Wish) -> Scaled:
    """The network of the weights with a head for these classes. Raises `UserError` where it is over a limit."""
    network = replace(baseline, head=replace(baseline.head, classes=len(images.classes)))
    values = measured_budget(wish.limits, wish.device, wish.engine).values(network) if wish.limits else {}
    values = {term: value * (GUARD if term in MEASURED else 1.0) for term, value in values.items()}
    for term, value in values.items():
        if value > wish.limits[term]:
            raise UserError(
                f"--{term} {show(term, wish.limits[term])}: {baseline.name} takes {show(term, value)}, and weights fix "
                "the network; raise the budget, take smaller weights (see triscale models) or leave --weights out"
            )
    return replace(grow(network, RULES["compound"], factor=1), rule="none", limits=dict(wish.limits), values=values)


def _timed(baseline: Architecture, scaled: Scaled, wish: Wish, course: Course) -> Candidate:
    name = f"{baseline.name[:100].removesuffix('-fit')}-fit"
    network = replace(regularised(scaled.architecture, baseline), name=name)
    machine = fastest_machine(build(network, seed=wish.seed), course.batch, wish.device, course.until)
    return expect(Candidate(baseline, scaled, network, machine), course, TRAINING_OVERHEAD)


def expect(candidate: Candidate, course: Course, overhead: float) -> Candidate:
    """The candidate with what an epoch takes: the measured step times the overhead."""
    assert candidate.machine is not None
    epoch = course.images * candidate.machine.per_image * overhead
    return replace(candidate, epoch=epoch, images_per_second=course.images / epoch, epochs=course.epochs(epoch))


def _within_latency(found: list[Candidate], images: Data, wish: Wish, course: Course) -> tuple[Candidate, ...]:
    """All candidates measured once more, in turns, for only so are their latencies comparable; those over it again."""
    limit = wish.limits.get("latency")
    if limit is None:
        return tuple(found)
    found, stricter = _with_latency(found, wish), dict.fromkeys(range(len(found)), limit)
    for _ in range(ROUNDS):
        over = [i for i, candidate in enumerate(found) if candidate.latency and candidate.latency.median > limit]
        if not over:
            break
        for i in over:
            candidate = found[i]
            assert candidate.latency is not None
            stricter[i] *= GUARD * limit / candidate.latency.median
            try:
                scaled = _scale(candidate.baseline, images, wish, {**wish.limits, "latency": stricter[i]})
            except UserError:
                continue
            found[i] = replace(_timed(candidate.baseline, scaled, wish, course), shrunk=candidate.shrunk)
        found = _with_latency(found, wish)
    return tuple(_over(candidate, limit) for candidate in found)


def _with_latency(found: list[Candidate], wish: Wish) -> list[Candidate]:
    built = {i: build(candidate.architecture) for i, candidate in enumerate(found) if candidate.architecture}
    if not built:
        return found
    latencies = measure_latency(list(built.values()), device=wish.device, engine=wish.engine)
    measured = dict(zip(built, latencies, strict=True))
    return [replace(candidate, latency=measured.get(i)) for i, candidate in enumerate(found)]


def _over(candidate: Candidate, limit: float) -> Candidate:
    if candidate.latency is None or candidate.latency.median <= limit:
        return candidate
    took, more = format_seconds(candidate.latency.median), candidate.latency.median / limit - 1
    return replace(
        candidate,
        refused=f"one image takes {took} when measured again, {more:.1%} more than {format_seconds(limit)}; "
        "raise --latency, or try again when the machine is less busy",
    )


def _nothing_left(candidates: tuple[Candidate, ...], course: Course) -> UserError:
    slow = [candidate for candidate in candidates if candidate.refused is None]
    if slow := slow or [candidate for candidate in candidates if candidate.hopeless]:
        return too_slow(min(slow, key=lambda candidate: candidate.epoch), course)
    first, *others = candidates
    names = ", ".join(candidate.name for candidate in others)
    return UserError(f"{first.refused}" + (f" (nor can the other candidates be taken: {names})" if others else ""))
