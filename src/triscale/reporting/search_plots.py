"""Plots of a search: accuracy against cost, what each choice was worth, the leader against the work that was done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from triscale.reporting.labels import shortened
from triscale.reporting.plots import ACCENT, INK, QUIET, drawing, svg, within_shares
from triscale.reporting.search_curves import Band, Course
from triscale.reporting.study_plots import GROUND
from triscale.scaling.budget import label, show

Standing = Literal["winner", "finalist", "reference", "full", "left"]

OTHER = "#010207"  # stands for the page's second colour
_WIDE = 4.0  # times the least cost: from there on costs are drawn in powers
_LINES: Mapping[str, tuple[str, str]] = {"evolution": (ACCENT, "-"), "random": (INK, "--"), "tpe": (OTHER, "-.")}
_MARKS: Mapping[Standing, tuple[str, float, str, str]] = {  # marker, size, colour and filling
    "full": ("o", 5.0, INK, INK),
    "finalist": ("o", 7.0, ACCENT, ACCENT),
    "reference": ("D", 8.0, INK, GROUND),
    "winner": ("*", 16.0, ACCENT, ACCENT),
}
_LEFT = (("o", 4.5), ("o", 2.5), ("|", 4.0))  # from the rung before the last on: markers and sizes
_UNITS = (("seconds", 1.0, 300.0), ("minutes", 60.0, 10_800.0), ("hours", 3600.0, float("inf")))


@dataclass(frozen=True, slots=True)
class Spot:
    """A network in the plane of cost and accuracy. runs: of its highest rung. rung: counted from the last, the full
    training, which is 0."""

    cost: float
    accuracy: float
    runs: tuple[float, ...]
    rung: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Learned:
    """A value of a choice: how many candidates had it, their mean with the bounds of its interval, if there are any."""

    value: str
    n: int
    mean: float
    low: float | None
    high: float | None


def front(spots: Sequence[Spot]) -> list[tuple[float, float]]:
    """(cost, accuracy) of those that were trained in full and are beaten by none that costs no more; by cost."""
    best, found = float("-inf"), []
    for one in sorted((one for one in spots if not one.rung), key=lambda one: (one.cost, -one.accuracy)):
        if one.accuracy > best:
            best = one.accuracy
            found.append((one.cost, best))
    return found


def fronts(spots: Sequence[Spot], term: str, limit: float | None) -> str:
    """Accuracy against a cost: above what was trained in full with the front, below what was left behind, whose shorter
    trainings compare with nothing above."""
    full, left = [one for one in spots if not one.rung], [one for one in spots if one.rung]
    above, below = 2.6 if full else 0.0, 1.35 if left else 0.0
    heights = [height for height in (above, below) if height]
    with drawing():
        figure = Figure(figsize=(5.2, 0.75 + above + below), layout="constrained")
        panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        if full:
            panels[0].set_title("validation accuracy, trained in full")
            _full(panels[0], full)
        if left:
            panels[-1].set_title("left behind at an earlier rung")
            _left(panels[-1], left)
        for axes in panels:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1 if axes is panels[0] else 0, symbol=" %"))
            axes.yaxis.set_major_locator(MaxNLocator(5 if axes is panels[0] and full else 3, steps=[1, 2, 5, 10]))
            axes.margins(y=0.12)
            within_shares(axes)
            if limit is not None:
                axes.axvline(limit, color=INK, linewidth=0.9, linestyle=":")
        _costs(panels[-1], [one.cost for one in spots] + ([] if limit is None else [limit]), term)
        return _finished(figure, f"Validation accuracy against {label(term)}")


def _full(axes: Axes, full: Sequence[Spot]) -> None:
    line = front(full)
    line.append((max(one.cost for one in full), line[-1][1]))
    axes.plot(*zip(*line, strict=True), color=ACCENT, linewidth=1.3, alpha=0.6, drawstyle="steps-post")
    order = tuple(_MARKS)
    for one in sorted(full, key=lambda one: order.index(one.standing)):
        marker, size, colour, filling = _MARKS[one.standing]
        axes.plot([one.cost] * 2, [min(one.runs), max(one.runs)], color=colour, linewidth=0.9, alpha=0.6)
        axes.plot(
            one.cost,
            one.accuracy,
            marker,
            color=colour,
            markersize=size,
            markerfacecolor=filling,
            markeredgecolor=GROUND if filling != GROUND else colour,
            markeredgewidth=0.8 if filling != GROUND else 1.4,
            zorder=3 + order.index(one.standing),
        )


def _left(axes: Axes, left: Sequence[Spot]) -> None:
    for one in left:
        marker, size = _LEFT[min(one.rung, len(_LEFT)) - 1]
        filling = GROUND if one.rung == 1 else INK
        axes.plot(
            one.cost, one.accuracy, marker, color=INK, alpha=0.7, markersize=size, markerfacecolor=filling, zorder=3
        )


def _costs(axes: Axes, costs: Sequence[float], term: str) -> None:
    """The axis of costs, in powers where they lie far apart."""
    least, most = min(costs), max(costs)
    if most > _WIDE * least:
        axes.set_xscale("log")
        axes.set_xlim(least / 1.15, most * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        room = 0.06 * (most - least) or 0.05 * most
        axes.set_xlim(least - room, most + room)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(term, value)))
    axes.set_xlabel(label(term) if term != "latency" else "latency, an image")


def learned(choices: Sequence[tuple[str, Sequence[Learned]]], seen: tuple[float, float], title: str) -> str:
    """Of each choice its values, one below the other, with their means. seen: what the axis shows, see `seen_of`."""
    rows = [row for _, values in choices for row in (None, *values)]
    names = [name for choice, values in choices for name in (choice, *(f"{one.value} ({one.n})" for one in values))]
    heads = [at for at, row in enumerate(rows) if row is None]
    with drawing():
        figure = Figure(figsize=(5.2, 0.75 + 0.2 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        for at, row in enumerate(rows):
            if row is not None:
                _worth(axes, at, row)
        axes.set_xlim(*seen)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [name if at in heads else shortened(name) for at, name in enumerate(names)])
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.grid(visible=False, axis="y")
        for at in heads:
            axes.get_yticklabels()[at].set_fontweight("bold")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0 if seen[1] - seen[0] > 0.05 else 1, symbol=" %"))
        return _finished(figure, f"{title}: {', '.join(choice for choice, _ in choices)}")


def _worth(axes: Axes, at: int, row: Learned) -> None:
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [at, at], color=INK, linewidth=1.2)
    filling = GROUND if row.low is None else ACCENT
    axes.plot(row.mean, at, "o", color=ACCENT, markersize=6, markerfacecolor=filling, zorder=3)


def seen_of(rows: Sequence[Learned]) -> tuple[float, float]:
    """What a picture of them shows: all means, and as much to either side as they lie apart at most. Intervals of few
    candidates may leave it."""
    means = [row.mean for row in rows]
    apart = (max(means) - min(means)) or 0.02
    low = min([*means, *(max(0.0, row.low, min(means) - apart) for row in rows if row.low is not None)])
    high = max([*means, *(min(1.0, row.high, max(means) + apart) for row in rows if row.high is not None)])
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def progress(courses: Sequence[Course], bands: Sequence[Band], title: str) -> str:
    """The leader's accuracy against the work of all workers, this search's drawn bold; several of a strategy as a band
    about their mean. Beside it how far each is below the highest of all."""
    top = max(accuracy for one in courses for _, accuracy in one.steps)
    unit, size = next((name, size) for name, size, most in _UNITS if max(one.end for one in courses) < most)
    with drawing():
        figure = Figure(figsize=(5.2, 3.3 + 0.2 * len(courses) ** 0.5), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        banded = {band.strategy for band in bands}
        for one in sorted(courses, key=lambda one: not one.own):
            if one.own or one.strategy not in banded:
                _course(axes, one, size)
        for band in bands:
            colour, style = _line(band.strategy)
            x, least, mean, most = zip(*band.points, strict=True)
            x = tuple(at / size for at in x)
            axes.fill_between(x, least, most, step="post", color=colour, alpha=0.15, linewidth=0)
            name = f"{shortened(band.strategy)}, mean of {band.searches}"
            axes.plot(x, mean, style, color=colour, linewidth=1.5, drawstyle="steps-post", label=name)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"work of all workers, {unit}")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        axes.margins(y=0.1)
        within_shares(axes)
        if len(courses) > 1:
            beside = axes.secondary_yaxis(
                "right", functions=(lambda y: 100 * (top - np.asarray(y, float)), lambda y: top - np.asarray(y) / 100)
            )
            beside.set_ylabel("regret, points")
            beside.spines["right"].set_visible(False)
            axes.axhline(top, color=QUIET, linewidth=1.0, linestyle="--")
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        return _finished(figure, f"{title}, against the work that was done")


def _course(axes: Axes, one: Course, size: float) -> None:
    colour, style = _line(one.strategy)
    ends = [*one.steps, (one.end, one.steps[-1][1])]
    axes.plot(
        [at / size for at, _ in ends],
        [accuracy for _, accuracy in ends],
        style,
        color=colour,
        linewidth=2.6 if one.own else 1.5,
        drawstyle="steps-post",
        label=f"{shortened(one.strategy)}{', this search' if one.own else ''}",
        zorder=4 if one.own else 3,
    )


def _line(strategy: str) -> tuple[str, str]:
    """The same for a strategy on every page."""
    return _LINES.get(strategy, (OTHER, ":"))


def _finished(figure: Figure, name: str) -> str:
    text = svg(figure).replace(GROUND, "Canvas").replace(OTHER, "var(--wrong)")
    return text.replace('role="img"', f'role="img" aria-label="{escape(name)}"', 1)
