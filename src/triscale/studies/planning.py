"""Power before promises: what a study can train in the time, and which differences that can show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from triscale.errors import TooShortError, UserError
from triscale.studies.designs import FEWEST_ARMS, FEWEST_SEEDS, FIVE, TEN, Design
from triscale.studies.power import detectable
from triscale.training.schedule import FEWEST_EPOCHS, FEWEST_STEPS
from triscale.trials.pace import PART, makespan, usable
from triscale.units import format_epochs, format_seconds

EPOCHS = 6  # a part of the images is seen so often before more of them are
MOST_EPOCHS = 20
BEST = 4  # arms that are trained again at the squared factor
BASELINE_SEEDS = 3
GUESSED_NOISE = 0.003  # sd of a run's accuracy, before anything is known


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much a trial trains: training images, and how often each is seen."""

    images: int
    epochs: int

    @property
    def passes(self) -> int:
        """Images seen, all epochs together."""
        return self.images * self.epochs

    def __str__(self) -> str:
        return f"{self.images:,} images × {format_epochs(self.epochs)}"


@dataclass(frozen=True)
class Effort:
    """What trainings take: seconds of an image of a step by what is trained, and of what follows a training.

    baseline: of the baseline. arms: of each arm at the factor. again: the same at the squared factor. overhead: real
    seconds over the measured ones. judging: images that are looked at after training, as parts of one trained image.
    """

    baseline: float
    arms: tuple[float, ...]
    again: tuple[float, ...]
    overhead: float
    judging: float

    def paces(self, arms: int) -> tuple[float, ...]:
        """Of so many arms at the factor; those that were not timed, for the design has grown since, are as the mean."""
        return (*self.arms[:arms], *(arms - len(self.arms)) * (fmean(self.arms),))

    @property
    def squared(self) -> tuple[float, ...]:
        """At the squared factor: as timed, else as much slower again as the arms are than the baseline."""
        return self.again or tuple(pace * pace / self.baseline for pace in self.arms)

    def trial(self, pace: float, fidelity: Fidelity) -> float:
        """Seconds of a trial whose step takes `pace` an image."""
        return pace * self.overhead * (fidelity.passes + self.judging)


@dataclass(frozen=True)
class Rung:
    """A design with its seeds: one line of the ladder.

    twice: the best arms are trained again at the squared factor.
    """

    design: Design
    seeds: int
    twice: bool

    @property
    def trials(self) -> int:
        """Trainings, the baseline's included."""
        return (len(self.design.arms) + (BEST if self.twice else 0)) * self.seeds + max(BASELINE_SEEDS, self.seeds)

    def wall(self, effort: Effort, fidelity: Fidelity, slots: int) -> float:
        """Seconds until all trials have ended, so many at once: one stage after the other, the longest trials of each
        first, as `trials.run_trials` does."""
        arms = sorted(self.seeds * effort.paces(len(self.design.arms)), reverse=True)
        again = self.seeds * BEST * [max(effort.squared)] if self.twice else []  # which ones is not known yet
        rest = max(0, self.seeds - BASELINE_SEEDS) * [effort.baseline]
        stages = BASELINE_SEEDS * [effort.baseline], arms, rest, again
        return sum(makespan((effort.trial(pace, fidelity) for pace in stage), slots) for stage in stages)

    def detects(self, sigma: float) -> float:
        """The smallest true difference of two arms, chosen beforehand, that it shows four times in five."""
        return detectable(len(self.design.arms), self.seeds, sigma)


@dataclass(frozen=True)
class Line:
    """A rung at a fidelity: what it takes, in seconds of wall clock, and what it shows."""

    rung: Rung
    fidelity: Fidelity
    seconds: float
    detects: float


def ladder(design: Design | None, more: tuple[Design, ...] = ()) -> list[Rung]:
    """The designs to choose from, from the least to the most; those of one design where it is named."""
    if design is not None:
        named = _with(design, more)
        return [Rung(named, seeds, twice) for seeds in (3, 5, 8) for twice in (False, True)]
    five, ten = (_with(one, more) for one in (FIVE, TEN))
    return [
        Rung(five, 3, False),
        Rung(five, 5, False),
        Rung(ten, 3, False),
        Rung(ten, 3, True),
        Rung(ten, 5, True),
        Rung(ten, 8, True),
    ]


def _with(design: Design, more: tuple[Design, ...]) -> Design:
    for one in more:
        design = design.with_arms(one.arms)
    return design


def least(images: int, batch: int) -> Fidelity:
    """The least that a trial trains: 5 epochs of all images or of 8,000 of them, and 300 steps."""
    part = min(images, PART)
    per_epoch = max(1, part // batch)
    return Fidelity(part, max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / per_epoch)))


def reaching(passes: float, images: int, batch: int) -> Fidelity:
    """The fidelity of about so many images seen: six epochs of ever more images, then more epochs of all."""
    low = least(images, batch)
    if passes <= low.passes:
        return low
    if passes >= images * EPOCHS:
        return Fidelity(images, min(max(MOST_EPOCHS, low.epochs), int(passes / images)))
    part = int(passes / EPOCHS) // 100 * 100
    return Fidelity(part, EPOCHS) if part >= PART else low


def fidelity_for(
    rungs: Sequence[Rung], effort: Effort, seconds: float, slots: int, images: int, batch: int
) -> Fidelity:
    """How much a trial trains: so much that the fullest of the first four rungs takes the time; at least the least.

    More seeds than three, and then eight, are only for time that is left when every image is seen twenty times.
    """
    target = rungs[min(3, len(rungs) - 1)]
    one = Fidelity(1_000_000, 1)
    per_pass = target.wall(replace(effort, judging=0.0), one, slots) / one.passes
    fixed = target.wall(effort, Fidelity(0, 0), slots)
    return reaching(max(0.0, usable(seconds) - fixed) / per_pass, images, batch)


def lines(rungs: Sequence[Rung], effort: Effort, fidelity: Fidelity, slots: int, sigma: float) -> list[Line]:
    """The ladder as it is printed."""
    return [Line(rung, fidelity, rung.wall(effort, fidelity, slots), rung.detects(sigma)) for rung in rungs]


def choose(found: Sequence[Line], seconds: float, gone: float = 0.0, *, begun: bool = False) -> int:
    """The position of the fullest line that the time allows. gone: seconds of the asked time that are over. begun:
    whether there is a study, whose baseline is no longer to be chosen. Raises `UserError` where there is none, with
    what the least takes."""
    fitting = [place for place, line in enumerate(found) if line.seconds <= usable(seconds)]
    if not fitting:
        first = found[0]
        needed = first.seconds / usable(1.0) + gone
        trials = f"{len(first.rung.design.arms)} arms × {first.rung.seeds} seeds"
        smaller = "" if begun else ", or a smaller baseline by --macs"
        raise TooShortError(
            f"--time {format_seconds(seconds + gone)}: the least study, {trials} of "
            f"{first.fidelity}, takes about {format_seconds(needed)}",
            f"give it that time{smaller}",
            needed,
        )
    return max(fitting)


def check_least(design: Design | None, seeds: int) -> None:
    """Raises `UserError` below five arms or three seeds: differences between such few say nothing."""
    if design is not None and len(design.arms) < FEWEST_ARMS:
        raise UserError(f"design {design.name}: {len(design.arms)} arms are no study; take at least {FEWEST_ARMS}")
    if seeds < FEWEST_SEEDS:
        raise UserError(f"--seeds {seeds}: a study takes at least {FEWEST_SEEDS}, or its intervals mean nothing")


def ladder_values(found: Sequence[Line], chosen: int) -> list[Mapping[str, object]]:
    """Plain values of it, for run.json and pages."""
    return [
        {
            "design": line.rung.design.name,
            "arms": len(line.rung.design.arms),
            "seeds": line.rung.seeds,
            "twice": line.rung.twice,
            "trials": line.rung.trials,
            "images": line.fidelity.images,
            "epochs": line.fidelity.epochs,
            "seconds": line.seconds,
            "detects": line.detects,
            "chosen": place == chosen,
        }
        for place, line in enumerate(found)
    ]
