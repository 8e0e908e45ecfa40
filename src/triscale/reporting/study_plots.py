"""Plots of a scaling study: accuracy over the triangle of mixes, against MACs, and seed by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.tri import Triangulation

from triscale.reporting.labels import Labels, shortened
from triscale.reporting.plots import ACCENT, INK, QUIET, drawing, svg, within_shares
from triscale.units import format_count

Shares = tuple[float, float, float]  # of depth, width and resolution; sum 1
Bounded = tuple[float, float, float]  # an accuracy and the bounds of its interval
Kind = Literal["depth", "width", "resolution", "compound", "fitted"]

GROUND = "#010206"  # stands for the colour that the page lies on
CORNERS: dict[str, Shares] = {"depth": (1, 0, 0), "width": (0, 1, 0), "resolution": (0, 0, 1)}
_HEIGHT = math.sqrt(3) / 2  # of a triangle with sides of 1
_SIDE = 298.0  # points that its sides are drawn long
_BANDS = 7  # of the surface, about
_LAYER = 0.1  # of its colour that each band adds to what lies below it
_LINES: dict[Kind, tuple[str, str]] = {  # marker and line
    "depth": ("s", ":"),
    "width": ("^", "--"),
    "resolution": ("D", "-."),
    "compound": ("o", "-"),
    "fitted": ("*", "-"),
}


@dataclass(frozen=True, slots=True)
class Dot:
    """An arm in the triangle: its name, the shares that it realised, its mean accuracy."""

    name: str
    shares: Shares
    mean: float
    best: bool


@dataclass(frozen=True, slots=True)
class Series:
    """A way to grow: (MACs, accuracy with its bounds) at ever higher cost. It begins with the baseline, unless that has
    nothing to do with it."""

    name: str
    kind: Kind
    points: tuple[tuple[float, Bounded], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """An arm with the accuracy of each of its seeds."""

    name: str
    seeds: tuple[float, ...]
    mean: Bounded
    tied: bool


def place(shares: Shares) -> tuple[float, float]:
    """Where a mix stands: all depth at (0, 0), all width at (1, 0), all resolution above the middle between them."""
    _, width, resolution = shares
    return width + resolution / 2, resolution * _HEIGHT


def ternary(
    dots: Sequence[Dot],
    grid: Sequence[Sequence[float]],
    compatible: Sequence[Sequence[float]],
    optimum: Shares,
    paper: Shares,
) -> str:
    """The fitted accuracy over all mixes. grid: rows of depth, width, resolution, accuracy, …, in regular steps.
    compatible: those of its mixes that may be the best one. An arm whose label finds no room is a dot alone."""
    x, y = (-0.2, 1.2), (-0.15, 1.08)
    with drawing():
        figure = Figure(figsize=(_SIDE * (x[1] - x[0]) / 72, _SIDE * (y[1] - y[0]) / 72))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=x, ylim=y)
        axes.set_axis_off()
        labels = Labels(axes, _SIDE)
        spots = [place((row[0], row[1], row[2])) for row in grid]
        triangles = Triangulation([spot[0] for spot in spots], [spot[1] for spot in spots])
        _bands(axes, triangles, [row[3] for row in grid])
        _hatch(axes, triangles, grid, compatible)
        _frame(labels)
        _marks(labels, dots, optimum, paper)
        return _finished(figure, "Triangle of mixes with the fitted accuracy")


def _bands(axes: Axes, triangles: Triangulation, values: Sequence[float]) -> None:
    """Each band lies over all lower ones, so that no seams show; beside them the scale that this makes."""
    low, high = min(values), max(values)
    ticks = MaxNLocator(_BANDS, steps=[1, 2, 5, 10]).tick_values(low, high)
    levels = [float(each) for each in ticks if low < each < high]
    digits = _digits(levels)
    left, bottom, top = 1.0, 0.62, 0.98
    for place_, level in enumerate(levels, 1):
        axes.tricontourf(triangles, values, levels=[level, high + 1], colors=[ACCENT], alpha=_LAYER)
        at = bottom + place_ * (top - bottom) / (len(levels) + 1)
        axes.add_patch(Rectangle((left, at), 0.045, top - at, color=ACCENT, alpha=_LAYER, linewidth=0))
        axes.text(left + 0.06, at, f"{100 * level:.{digits}f} %", va="center", fontsize=8.5)
    axes.add_patch(Rectangle((left, bottom), 0.045, top - bottom, fill=False, edgecolor=QUIET, linewidth=0.8))
    axes.text(left - 0.06, top + 0.02, "fitted accuracy", fontsize=8.5)


def _digits(levels: Sequence[float]) -> int:
    """Decimals that percentages need to differ as the levels do."""
    step = min((upper - lower for lower, upper in pairwise(levels)), default=0.01)
    return max(0, -math.floor(math.log10(100 * step) + 1e-9))


def _hatch(
    axes: Axes, triangles: Triangulation, grid: Sequence[Sequence[float]], compatible: Sequence[Sequence[float]]
) -> None:
    """Over the mixes that may be the best; its border lies half-way to those that may not."""
    inside = {_key(mix) for mix in compatible}
    held = [float(_key(row) in inside) for row in grid]
    if any(held):
        hatched = axes.tricontourf(triangles, held, levels=[0.5, 1.5], colors="none", hatches=["///"])
        hatched.set(edgecolor=QUIET, linewidth=0.0)
    if any(held) and not all(held):
        axes.tricontour(triangles, held, levels=[0.5], colors=[INK], linewidths=1.2, linestyles="--")


def _key(mix: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(share, 6) for share in mix[:3])


def _frame(labels: Labels) -> None:
    """Corners with their names, sides with the shares along them."""
    corners = [place(each) for each in CORNERS.values()]
    labels.axes.add_patch(Polygon(corners, fill=False, edgecolor=INK, linewidth=1.2))
    for share in (0.25, 0.5, 0.75):
        rest = 1 - share
        for own, other, x, y in (
            ((share, rest, 0), (share, 0, rest), 0.0, -0.027),
            ((0, share, rest), (rest, share, 0), 0.05, 0.01),
            ((rest, 0, share), (0, rest, share), -0.05, 0.01),
        ):
            a, b = place(own), place(other)
            labels.axes.plot(*zip(a, b, strict=True), color=QUIET, linewidth=0.7, zorder=1.5)
            labels.write((a[0] + x, a[1] + y), f"{100 * share:.0f} %", size=7.5)
    for start, end in pairwise([*corners, corners[0]]):
        labels.keep_line_clear(start, end)
    labels.write((0.5, -0.08), "← share of depth", size=8.5)
    labels.write((0.87, 0.5), "share of width →", size=8.5, rotation=-60)
    labels.write((0.13, 0.5), "share of resolution →", size=8.5, rotation=60)
    for name, x, y in (("depth", -0.02, -0.08), ("width", 0.02, -0.08), ("resolution", 0.0, 0.09)):
        at = place(CORNERS[name])
        labels.write((at[0] + x, at[1] + y), f"all {name}", size=10.5, weight="bold")


def _marks(labels: Labels, dots: Sequence[Dot], optimum: Shares, paper: Shares) -> None:
    axes = labels.axes
    axes.plot(*place(optimum), "*", color=ACCENT, markersize=21, markeredgecolor=GROUND, zorder=4)
    axes.plot(*place(paper), "D", color=INK, markersize=9, markerfacecolor="none", markeredgewidth=1.3, zorder=5)
    for dot in dots:
        axes.plot(*place(dot.shares), "o", color=INK, markersize=6.5, markeredgecolor=GROUND, zorder=6)
    for shares, radius in ((optimum, 8.0), (paper, 5.0), *((dot.shares, 4.0) for dot in dots)):
        labels.keep_clear(place(shares), radius)
    for dot in sorted(dots, key=lambda each: (not each.best, -each.mean)):
        labels.beside(place(dot.shares), (shortened(dot.name), f"{100 * dot.mean:.1f} %"), bold=dot.best)


def curves(series: Sequence[Series], baseline: tuple[float, Sequence[float]], title: str) -> str:
    """Accuracy against MACs (in powers) for each way to grow. baseline: its MACs, and the accuracy of each seed."""
    macs, seeds = baseline
    costs = sorted({macs} | {cost for one in series for cost, _ in one.points})
    with drawing():
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        axes.plot([macs] * len(seeds), seeds, "o", color=INK, markersize=3, alpha=0.55)
        for one in series:
            _line(axes, one)
        axes.set_xscale("log")
        axes.set_xlim(costs[0] / 1.12, costs[-1] * (costs[-1] / costs[0]) ** 0.3 * 1.2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(_apart(costs))
        axes.set_xlabel("MACs")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        axes.margins(y=0.12)
        within_shares(axes)
        _name_ends(axes, series)
        return _finished(figure, f"{title}, against MACs")


def _line(axes: Axes, one: Series) -> None:
    marker, style = _LINES[one.kind]
    bounded = [value for _, value in one.points]
    axes.errorbar(
        [cost for cost, _ in one.points],
        [value for value, _, _ in bounded],
        _around(bounded),
        color=_colour(one),
        marker=marker,
        linestyle=style,
        linewidth=2.4 if one.kind == "compound" else 1.4,
        markersize=13 if one.kind == "fitted" else 5,
        elinewidth=1,
        capsize=2.5,
        zorder=4 if one.kind == "compound" else 3,
    )


def _name_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Each line's name at its end, those that end at about the same cost moved apart."""
    low, high = axes.get_ylim()
    apart, last = 0.065 * (high - low), (0.0, 0.0)
    ends = [(*one.points[-1], one) for one in series]
    dearest = max((cost for cost, _, _ in ends), default=1.0)
    for cost, (value, _, _), one in sorted(ends, key=lambda end: (end[0] > 0.8 * dearest, end[1])):
        at = max(value, last[1] + apart) if last[0] and 0.8 < cost / last[0] < 1.25 else value
        last = cost, at
        axes.annotate(
            shortened(one.name),
            (cost, at),
            (9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            weight="bold" if one.kind == "compound" else "normal",
            color=_colour(one),
            zorder=5,
        )


def _colour(one: Series) -> str:
    return ACCENT if one.kind in ("compound", "fitted") else INK


def _apart(costs: Sequence[float]) -> list[float]:
    """Of sorted costs those that have room for a label each."""
    kept = [costs[0]]
    kept += [cost for before, cost in pairwise(costs) if cost / before > 1.3]
    return kept


def strip(rows: Sequence[Row], title: str) -> str:
    """Every arm's seeds as small dots, and its mean with the interval: filled where it is tied with the best."""
    with drawing():
        figure = Figure(figsize=(5.2, 0.85 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        for at, row in enumerate(rows):
            axes.plot(row.seeds, [at] * len(row.seeds), "o", color=INK, markersize=3, alpha=0.55)
            axes.errorbar(
                [row.mean[0]],
                [at],
                xerr=_around([row.mean]),
                color=ACCENT if row.tied else INK,
                marker="o",
                markersize=6.5,
                markerfacecolor=ACCENT if row.tied else GROUND,
                elinewidth=1.3,
                capsize=2.5,
            )
        axes.set_yticks(range(len(rows)), [shortened(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        axes.tick_params(axis="y", length=0)
        return _finished(figure, title)


def _around(bounded: Sequence[Bounded]) -> tuple[list[float], list[float]]:
    """How far the bounds lie below and above the values; no accuracy is below 0 or above 1."""
    return (
        [max(0.0, value - max(0.0, low)) for value, low, _ in bounded],
        [max(0.0, min(1.0, high) - value) for value, _, high in bounded],
    )


def _finished(figure: Figure, label: str) -> str:
    text = svg(figure).replace(GROUND, "Canvas")
    return text.replace('role="img"', f'role="img" aria-label="{escape(label)}"', 1)
