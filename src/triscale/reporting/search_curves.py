"""How far searches are after so much work: each one's leader, step by step, and those of a strategy together."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Values = Mapping[str, Any]

SEVERAL = 2  # searches of a strategy that make a band
WEIGHED = ("abs", "paper")  # objectives in which the exponent counts


@dataclass(frozen=True, slots=True)
class Course:
    """A search's leader in a full training with the first seed. steps: (seconds of all workers together, accuracy)
    where it changed. end: the seconds at which the last leader still led."""

    strategy: str
    own: bool
    steps: tuple[tuple[float, float], ...]
    end: float

    def at(self, seconds: float) -> float:
        """The leader's accuracy after so much work, not before the first leader."""
        return self.steps[bisect_right(self.steps, seconds, key=lambda step: step[0]) - 1][1]


@dataclass(frozen=True, slots=True)
class Band:
    """Several searches of a strategy. points: (seconds, least, mean and highest accuracy of their leaders), where each
    has a leader and none has ended."""

    strategy: str
    searches: int
    points: tuple[tuple[float, float, float, float], ...]


def course(values: Values, *, own: bool = False) -> Course | None:
    """None before the first full training. Final runs, which choose among finalists, are no part of it."""
    steps = tuple((float(seconds), float(accuracy)) for seconds, _, accuracy in values["curve"])
    if not steps:
        return None
    end = sum(run["seconds"] for one in values["candidates"] for run in one["runs"] if run["seed"] == 0)
    return Course(str(values["strategy"]), own, steps, max(end, steps[-1][0]))


def bands(courses: Sequence[Course]) -> list[Band]:
    """One for each strategy of which there are several searches that ran at the same time of their lives."""
    found = []
    for strategy in dict.fromkeys(one.strategy for one in courses):
        same = [one for one in courses if one.strategy == strategy]
        first, last = max(one.steps[0][0] for one in same), min(one.end for one in same)
        if len(same) < SEVERAL or first >= last:
            continue
        times = sorted({first, last} | {at for one in same for at, _ in one.steps if first < at < last})
        rows = [(at, [one.at(at) for one in same]) for at in times]
        found.append(Band(strategy, len(same), tuple((at, min(all_), fmean(all_), max(all_)) for at, all_ in rows)))
    return found


def together(courses: Sequence[Course]) -> float | None:
    """The most work that all of them have done, where each has a leader by then."""
    last = min(one.end for one in courses)
    return last if all(one.steps[0][0] <= last for one in courses) else None


def incomparable(values: Values, other: Values) -> list[str]:
    """Why the curve of another search cannot stand beside this one's: it answers another question."""
    found = ["another validation split or other images"] if other.get("data") != values["data"] else []
    return found + (["another objective"] if _aim(other) != _aim(values) else [])


def different(values: Values, other: Values) -> list[str]:
    """In what else another search differs, so that its curve is to be read with care."""
    names = {"space": "space", "images": "training images", "rungs": "epochs", "how": "how trials compute"}
    found = [words for key, words in names.items() if other[key] != values[key]]
    return found + (["recipe"] if _recipe(other) != _recipe(values) else [])


def _aim(values: Values) -> tuple[object, ...]:
    objective = values.get("objective", {})
    kind = objective.get("kind")
    return kind, objective.get("limits"), objective.get("exponent") if kind in WEIGHED else None


def _recipe(values: Values) -> dict[str, Any]:
    """Without its epochs, which the rungs decide."""
    return {key: value for key, value in values["recipe"].items() if key != "epochs"}
