"""`study`: how depth, width and resolution pay off for a network on images, measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from triscale.errors import TriscaleError
from triscale.plain import from_plain, to_plain
from triscale.reporting.study import write_study_page
from triscale.runs import RunDirectory
from triscale.studies.conclusions import Conclusions, arms_again, baseline_accuracies, conclude
from triscale.studies.designs import Arm
from triscale.studies.growing import Grown
from triscale.studies.listening import StudyListener
from triscale.studies.planning import (
    BASELINE_SEEDS,
    choose,
    ladder_values,
    lines,
)
from triscale.studies.setup import Choice, Setup
from triscale.studies.values import partial_values
from triscale.studies.wanted import Wanted
from triscale.trials import Entry, Executor, Ledger, Outcome, Progress, Spent, Timer, run_trials
from triscale.trials.paging import Paging


@dataclass(frozen=True, eq=False)
class Studied:
    """A finished study. spent: of every sitting. trials, trained: of all trials that count, with
    their seconds. values: what study.json holds."""

    run: RunDirectory
    setup: Setup
    choice: Choice
    found: Conclusions
    spent: tuple[Spent, ...]
    trials: int
    trained: float
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Sitting:
    """A study in progress: what is frozen, what is known, and who carries trials out and who is told."""

    run: RunDirectory
    settings: dict[str, Any]
    setup: Setup
    ledger: Ledger
    executor: Executor
    listener: StudyListener
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    started: float = field(kw_only=True)
    timer: Timer = field(init=False)
    wished: Wanted | None = None  # what is asked for from now on, where that has changed
    choice: Choice | None = None
    grown: list[Grown] = field(default_factory=list)
    paging: Paging = field(default_factory=Paging)

    def freeze(self, **parts: object) -> None:
        """Into run.json, whole."""
        self.settings |= parts
        self.run.write_settings(self.settings)

    def carry_out(self, stage: str, entries: Sequence[Entry], expected: Mapping[str, float]) -> None:
        """Trials that are not in the ledger yet."""
        known = self.ledger.finished()
        self.outcomes |= {key: known[key] for key in expected if key in known}

        def told(progress: Progress) -> None:
            self.timer.tick()
            self.listener.progress(stage, progress)
            if progress.last is not None:
                self.outcomes[progress.key] = progress.last[1]
            self._show()

        with self.timer.working():
            self.outcomes |= run_trials(self.ledger, self.executor, entries, dict(expected), told)

    def _show(self) -> None:
        """What is known so far, where it is time to say so."""
        if self.choice is None or not self.paging.due(len(self.outcomes)):
            return
        with self.paging.making(len(self.outcomes)):
            found = conclude(self.setup, self.grown, self.choice.seeds, self.outcomes, unseal=False)
            if found.factors:
                self.listener.so_far(found)
                write_study_page(self.run.report, partial_values(self.setup, self.choice, found))


def go_through(sitting: Sitting, wanted: Wanted | None) -> Studied:
    """All stages, from wherever the ledger stands: the baseline's runs, the choice, the arms, the best of them again,
    what follows from it. wanted: what decides the choice, where it was not made before or is to be made anew."""
    sitting.ledger.requeue()
    sitting.timer = Timer(sitting.ledger, sitting.executor.slots, sitting.started)
    _note_room(sitting)
    _baseline(sitting, BASELINE_SEEDS)
    choice = sitting.choice = _choice(sitting, wanted)
    grown = sitting.grown = [sitting.setup.grow(arm, sitting.setup.factor) for arm in choice.design.arms]
    _arms(sitting, grown, choice.seeds, f"factor {sitting.setup.factor:g}")
    _baseline(sitting, choice.seeds)
    if choice.twice:
        again = _again(sitting, grown, choice)
        grown += again
        _arms(sitting, again, choice.seeds, f"factor {again[0].factor:g}")
    found = conclude(sitting.setup, grown, choice.seeds, sitting.outcomes, unseal=True)
    used = {entry.trial.key for one in grown for entry in _entries(sitting.setup, one, choice.seeds)}
    used |= {sitting.setup.trial(sitting.setup.baseline, seed).key for seed in range(max(3, choice.seeds))}
    trained = sum(sitting.outcomes[key].seconds for key in used)
    sitting.timer.keep()
    return Studied(
        sitting.run,
        sitting.setup,
        choice,
        found,
        spent=sitting.ledger.sittings(),
        trials=len(used),
        trained=trained,
    )


def _note_room(sitting: Sitting) -> None:
    """Resolution is a dimension only while there are pixels to gain."""
    pixels, (height, width) = sitting.setup.pixels, sitting.setup.baseline.resolution
    if pixels is not None and min(height, width) >= min(pixels):
        sitting.listener.note(
            f"the baseline sees {height}×{width} pixels and the images have {pixels[0]}×{pixels[1]}: more resolution "
            "shows nothing new; for images with more to show give a lower --resolution"
        )


def _entries(setup: Setup, grown: Grown, seeds: int) -> Iterator[Entry]:
    return (setup.entry(grown, seed) for seed in range(seeds))


def _baseline(sitting: Sitting, seeds: int) -> None:
    setup = sitting.setup
    entries = [setup.entry(None, seed) for seed in range(seeds)]
    took = setup.effort.trial(setup.effort.baseline, setup.fidelity)
    sitting.carry_out("baseline", entries, {entry.trial.key: took for entry in entries})


def _choice(sitting: Sitting, wanted: Wanted | None) -> Choice:
    """The rung: as it was chosen before, or now by what the baseline's runs took and how far they lie apart."""
    if wanted is None:
        return Choice.from_json(sitting.settings["choice"], f"{sitting.run.path}/run.json")
    setup = sitting.setup
    runs = baseline_accuracies(setup, sitting.outcomes, BASELINE_SEEDS)
    expected = setup.effort.trial(setup.effort.baseline, setup.fidelity)
    pace = fmean(run.seconds for run in runs) / expected
    effort = replace(setup.effort, overhead=setup.effort.overhead * pace)
    noise = stdev(run.selection for run in runs)
    found = lines(wanted.rungs, effort, setup.fidelity, sitting.executor.slots, noise)
    apart = sitting.timer.apart  # reading, timing networks
    chosen = 0 if wanted.time is None else choose(found, wanted.time - apart, apart, begun=True)
    sitting.listener.ladder(found, chosen, noise)
    rung = found[chosen].rung
    choice = Choice(rung.design, rung.seeds, rung.twice, noise, tuple(ladder_values(found, chosen)))
    chosen_by = {} if sitting.wished is None else {"wanted": to_plain(sitting.wished)}
    sitting.freeze(choice=choice.to_json(), again=None, **chosen_by)  # together: a time that is refused changes nothing
    return choice


def _arms(sitting: Sitting, grown: Sequence[Grown], seeds: int, stage: str) -> None:
    entries = [entry for one in grown for entry in _entries(sitting.setup, one, seeds)]
    for one in grown:
        if one.upscaled:
            height, width = one.network.resolution
            sitting.listener.note(f"{one.label} asks for {height}×{width} pixels, more than the images have")
    sitting.carry_out(stage, entries, _expected(sitting, grown, seeds))


def _expected(sitting: Sitting, grown: Sequence[Grown], seeds: int) -> dict[str, float]:
    """Seconds of each trial: as its arm was timed; an arm that was not, in proportion to its MACs."""
    setup, effort = sitting.setup, sitting.setup.effort
    paces = {}
    for place, one in enumerate(grown):
        timed = effort.arms if one.factor == setup.factor else effort.squared
        typical = fmean(timed) * one.scaled.realised / one.factor
        pace = timed[place] if place < len(timed) and one.factor == setup.factor else typical
        for entry in _entries(setup, one, seeds):
            paces[entry.trial.key] = effort.trial(pace, setup.fidelity)
    return paces


def _again(sitting: Sitting, grown: Sequence[Grown], choice: Choice) -> list[Grown]:
    """The arms at the squared factor, chosen on the selection images once and then frozen."""
    setup, kept = sitting.setup, sitting.settings.get("again")
    if kept is None:
        found = conclude(setup, grown, choice.seeds, sitting.outcomes, unseal=False)
        if not found.factors:
            raise TriscaleError(f"{sitting.run.path}: no two arms differ, so none is better; take another baseline")
        arms = arms_again(found.factors[0], found.fit)
        sitting.freeze(again=[to_plain(arm) for arm in arms])
    else:
        arms = tuple(from_plain(Arm, arm, f"{sitting.run.path}/run.json", "again") for arm in kept)
    return [setup.grow(arm, setup.factor**2) for arm in arms]
