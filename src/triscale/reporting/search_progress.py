"""What the page of a search says of how fast it went, beside others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from triscale.reporting.search_curves import SEVERAL, Course, bands, course, different, incomparable, together
from triscale.reporting.search_plots import progress
from triscale.reporting.search_words import by_order

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CourseRow:
    """A search whose curve is shown; own: this one. tried: how many candidates. end: seconds of work. leader: the
    accuracy of the last one. winner: its label, with the mean accuracy as an interval. different: in what else it
    differs from this one."""

    strategy: str
    own: bool
    seed: int
    tried: int
    end: float | None
    leader: float | None
    winner: str | None
    accuracy: Sequence[float] | None
    different: Sequence[str]


@dataclass(frozen=True, slots=True)
class Common:
    """Every strategy's leaders after the most work that all searches have done (at, in seconds). several: whether each
    strategy has as many searches as make a band."""

    at: float
    reached: Mapping[str, Sequence[float]]
    several: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """The curves, with what is known of the searches that they are of. refused: strategy of other ones, and why they
    are not drawn."""

    plot: Markup | None
    rows: Sequence[CourseRow]
    common: Common | None
    banded: bool
    refused: Sequence[tuple[str, str]]


def progressed(values: Values, others: Sequence[Values]) -> Progress:
    """others: search.json of other searches."""
    fit = [other for other in others if not incomparable(values, other)]
    shown = [(values, course(values, own=True)), *((other, course(other)) for other in fit)]
    courses = [one for _, one in shown if one is not None]
    title = "the leader's validation accuracy in a full training"
    return Progress(
        plot=Markup(progress(courses, bands(courses), title)) if courses else None,
        rows=[_course_row(values, other, one) for other, one in shown],
        common=_common(courses),
        banded=bool(bands(courses)),
        refused=[(str(other["strategy"]), ", ".join(why)) for other in others if (why := incomparable(values, other))],
    )


def _course_row(values: Values, other: Values, one: Course | None) -> CourseRow:
    winner = by_order(other, other["winner"]) if other["finished"] else None
    return CourseRow(
        strategy=other["strategy"],
        own=other is values,
        seed=other["seed"],
        tried=len(other["candidates"]),
        end=None if one is None else one.end,
        leader=None if one is None else one.steps[-1][1],
        winner=None if winner is None else winner["label"],
        accuracy=None if winner is None else winner["accuracy"],
        different=different(values, other),
    )


def _common(courses: Sequence[Course]) -> Common | None:
    """None where one is alone."""
    at = together(courses) if len(courses) > 1 else None
    if at is None:
        return None
    reached: dict[str, list[float]] = {}
    for one in courses:
        reached.setdefault(one.strategy, []).append(one.at(at))
    return Common(at, reached, several=all(len(each) >= SEVERAL for each in reached.values()))
