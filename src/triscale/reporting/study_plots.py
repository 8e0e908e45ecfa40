"""Plots of a scaling study: accuracy over the triangle of mixes, against MACs, and seed by seed."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal

from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.tri import Triangulation

from triscale.reporting.plots import ACCENT, INK, QUIET, _svg, _within_shares
from triscale.units import format_count

Shares = tuple[float, float, float]  # of depth, width and resolution; sum 1
Bounded = tuple[float, float, float]  # an accuracy and the bounds of its interval

GROUND = "#010206"  # stands for the colour that the page is printed on
HEIGHT = math.sqrt(3) / 2  # of a triangle whose sides are 1
CORNERS: dict[str, Shares] = {"depth": (1, 0, 0), "width": (0, 1, 0), "resolution": (0, 0, 1)}
LEVELS = 7  # bands of the surface, about
LAYER = 0.105  # how much of its colour each band adds to the one below it
NAME = 18  # letters of a name in a plot; the tables have the whole of it


@dataclass(frozen=True, slots=True)
class Dot:
    """An arm in the triangle: its name, the shares that it realised, its mean accuracy."""

    name: str
    shares: Shares
    mean: float
    best: bool


@dataclass(frozen=True, slots=True)
class Series:
    """Accuracy against MACs, from the baseline on. points: (MACs, accuracy with its bounds); the baseline's are its
    value. kind: one dimension alone, the paper's mix, or the fitted one."""

    name: str
    points: tuple[tuple[float, Bounded], ...]
    kind: Literal["depth", "width", "resolution", "compound", "fitted"]


@dataclass(frozen=True, slots=True)
class Row:
    """An arm with the accuracy of each of its seeds."""

    name: str
    seeds: tuple[float, ...]
    mean: Bounded
    tied: bool


# --- the triangle


def place(shares: Shares) -> tuple[float, float]:
    """Where a mix stands: all depth at (0, 0), all width at (1, 0), all resolution above the middle of the two."""
    _, width, resolution = shares
    return width + resolution / 2, resolution * HEIGHT


def ternary(
    dots: Sequence[Dot],
    grid: Sequence[Sequence[float]],
    compatible: Sequence[Sequence[float]],
    optimum: Shares,
    paper: Shares,
) -> str:
    """The fitted accuracy over all mixes. grid: (depth, width, resolution, accuracy, …) a row, on a regular grid;
    compatible: those of its mixes that may be the best. A label that finds no room beside the others is left out."""
    size, x, y = (5.8, 5.15), (-0.21, 1.21), (-0.175, 1.085)
    with _drawing():
        figure = Figure(figsize=size)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=x, ylim=y)
        axes.set_axis_off()
        taken = Taken(axes, 72 * size[0] / (x[1] - x[0]), 72 * size[1] / (y[1] - y[0]))
        triangles = Triangulation(*zip(*(place((row[0], row[1], row[2])) for row in grid), strict=True))
        _bands(axes, triangles, [row[3] for row in grid])
        _set(axes, triangles, grid, compatible)
        _frame(taken)
        _marks(taken, dots, optimum, paper)
        return _finished(figure, "fitted accuracy over the mixes of depth, width and resolution")


def _bands(axes: Axes, triangles: Triangulation, values: Sequence[float]) -> None:
    """Each level laid over the ones below it, so that no seams show; and the scale that they make."""
    low, high = min(values), max(values)
    inner = [float(each) for each in MaxNLocator(LEVELS, steps=[1, 2, 5, 10]).tick_values(low, high)]
    levels = [each for each in inner if low < each < high]
    for level in levels:
        axes.tricontourf(triangles, values, levels=[level, high + 1], colors=[ACCENT], alpha=LAYER)
    left, bottom, step = 1.0, 0.6, 0.36 / (len(levels) + 1)
    for i, level in enumerate(levels):
        above = bottom + (i + 1) * step
        axes.add_patch(Rectangle((left, above), 0.05, 0.36 + bottom - above, color=ACCENT, alpha=LAYER, linewidth=0))
        axes.text(left + 0.065, above, _percent(level, levels), va="center", fontsize=8)
    axes.add_patch(Rectangle((left, bottom), 0.05, 0.36, fill=False, edgecolor=QUIET, linewidth=0.8))
    axes.text(left - 0.01, bottom + 0.385, "fitted accuracy", fontsize=8, ha="left")


def _percent(level: float, levels: Sequence[float]) -> str:
    step = min((b - a for a, b in pairwise(levels)), default=0.01)
    return f"{100 * level:.{max(0, -math.floor(math.log10(100 * step) + 1e-9))}f} %"


def _set(
    axes: Axes, triangles: Triangulation, grid: Sequence[Sequence[float]], compatible: Sequence[Sequence[float]]
) -> None:
    """The mixes that may be the best, hatched, their border half-way to those that may not."""
    inside = {tuple(round(share, 6) for share in mix) for mix in compatible}
    held = [float(tuple(round(share, 6) for share in row[:3]) in inside) for row in grid]
    if any(held):
        hatched = axes.tricontourf(triangles, held, levels=[0.5, 1.5], colors="none", hatches=["////"])
        hatched.set(edgecolor=INK, linewidth=0.0, alpha=0.45)
    if any(held) and not all(held):
        axes.tricontour(triangles, held, levels=[0.5], colors=[INK], linewidths=1.1, linestyles="--")


def _frame(taken: "Taken") -> None:
    """Sides with their shares, corners with their names."""
    axes = taken.axes
    axes.add_patch(Polygon([place(one) for one in CORNERS.values()], fill=False, edgecolor=INK, linewidth=1.2))
    for quarter in (0.25, 0.5, 0.75):
        rest = 1 - quarter
        for a, b in (
            ((quarter, rest, 0.0), (quarter, 0.0, rest)),
            ((0.0, quarter, rest), (rest, quarter, 0.0)),
            ((rest, 0.0, quarter), (0.0, rest, quarter)),
        ):
            axes.plot(*zip(place(a), place(b), strict=True), color=QUIET, linewidth=0.6, zorder=1.5)
        (x, y), text = place((quarter, rest, 0.0)), f"{quarter:.0%}".replace("%", " %")
        taken.text((x, y - 0.03), text, size=7.5)
        taken.text((1 - quarter / 2 + 0.05 - rest / 2 + 0.0, 0.0), "", size=1)
        x, y = place((0.0, quarter, rest))
        taken.text((x + 0.05, y + 0.012), text, size=7.5)
        x, y = place((rest, 0.0, quarter))
        taken.text((x - 0.05, y + 0.012), text, size=7.5)
    taken.text((0.5, -0.075), "← share of depth", size=8.5)
    taken.text((0.875, 0.55), "← share of width", size=8.5, rotation=-60)
    taken.text((0.125, 0.55), "share of resolution →", size=8.5, rotation=60)
    for (name, shares), (dx, dy) in zip(CORNERS.items(), ((-0.02, -0.075), (0.02, -0.075), (0, 0.075)), strict=True):
        x, y = place(shares)
        taken.text((x + dx, y + dy), f"all {name}", size=10.5, weight="bold")


def _marks(taken: "Taken", dots: Sequence[Dot], optimum: Shares, paper: Shares) -> None:
    axes = taken.axes
    axes.plot(*place(optimum), "*", color=ACCENT, markersize=21, markeredgecolor=GROUND, zorder=4)
    axes.plot(*place(paper), "D", color=INK, markersize=9, markerfacecolor="none", markeredgewidth=1.4, zorder=5)
    for dot in dots:
        axes.plot(*place(dot.shares), "o", color=INK, markersize=6.5, markeredgecolor=GROUND, zorder=6)
    for shares, radius in ((optimum, 9.0), (paper, 6.0), *((dot.shares, 4.0) for dot in dots)):
        taken.mark(place(shares), radius)
    for dot in sorted(dots, key=lambda each: (not each.best, -each.mean)):
        taken.beside(place(dot.shares), (shortened(dot.name), f"{100 * dot.mean:.1f} %"), bold=dot.best)


Box = tuple[float, float, float, float]  # left, bottom, right, top; in points


class Taken:
    """What stands where on axes, so that labels do not stand on each other. across, up: points to a unit."""

    DIRECTIONS = (0, 180, 90, 270, 35, 145, 215, 325)  # degrees, the liked ones first
    DISTANCES = (8.0, 13.0, 20.0, 30.0)  # points from the mark to the label's edge

    def __init__(self, axes: Axes, across: float, up: float) -> None:
        self.axes, self.across, self.up = axes, across, up
        self.boxes: list[Box] = []

    def text(
        self, at: tuple[float, float], text: str, *, size: float, rotation: float = 0.0, weight: str = "normal"
    ) -> None:
        """Written around a point, whatever is there."""
        self.axes.text(*at, text, fontsize=size, ha="center", va="center", rotation=rotation, weight=weight)
        width, height = _wide(text, size), size * 1.1
        turn = math.radians(rotation)
        steps = max(1, round(width / height)) if rotation else 1
        for i in range(steps):  # what is turned is covered by small boxes
            along = (i + 0.5) / steps * width - width / 2
            part = width / steps
            self._add(at, along * math.cos(turn), along * math.sin(turn), part, height)

    def mark(self, at: tuple[float, float], radius: float) -> None:
        """No label is written over it."""
        self._add(at, 0.0, 0.0, 2 * radius, 2 * radius)

    def beside(self, at: tuple[float, float], lines: tuple[str, str], *, bold: bool) -> bool:
        """Written near a point where there is room; else not at all, and False."""
        size = 8.5
        width, height = max(_wide(line, size) for line in lines), 2.2 * size
        tried = [
            (self._beside(at, math.radians(angle), distance, width, height), distance + 0.01 * i)
            for distance, (i, angle) in product(self.DISTANCES, enumerate(self.DIRECTIONS))
        ]
        (x, y, box), _ = min(tried, key=lambda one: (self._covered(one[0][2]), one[1]))
        if self._covered(box) > 0.04 * width * height:
            return False
        self.boxes.append(box)
        middle = at[0] + x / self.across, at[1] + y / self.up
        if math.hypot(x, y) > math.hypot(width, height) / 2 + 12:
            self.axes.plot([at[0], middle[0]], [at[1], middle[1]], color=QUIET, linewidth=0.8, zorder=3)
        for line, shift in zip(lines, (0.55, -0.55), strict=True):
            self.axes.text(
                middle[0],
                middle[1] + shift * size / self.up,
                line,
                fontsize=size,
                ha="center",
                va="center",
                weight="bold" if bold else "normal",
                zorder=7,
            )
        return True

    def _beside(
        self, at: tuple[float, float], angle: float, distance: float, width: float, height: float
    ) -> tuple[float, float, Box]:
        """(shift to the label's middle, its box): the mark is so far from the label's edge."""
        across, up = math.cos(angle), math.sin(angle)
        x = across * (distance + width / 2) if abs(across) > 0.1 else 0.0
        y = up * (distance + height / 2) if abs(up) > 0.1 else 0.0
        return x, y, self._box(at, x, y, width, height)

    def _add(self, at: tuple[float, float], x: float, y: float, width: float, height: float) -> None:
        self.boxes.append(self._box(at, x, y, width, height))

    def _box(self, at: tuple[float, float], x: float, y: float, width: float, height: float) -> Box:
        x, y = at[0] * self.across + x, at[1] * self.up + y
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def _covered(self, box: Box) -> float:
        """Square points of it that something stands on, or that lie outside."""
        (left, right), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        page = left * self.across, bottom * self.up, right * self.across, top * self.up
        outside = (box[2] - box[0]) * (box[3] - box[1]) - _common(box, page)
        return outside + sum(_common(box, other) for other in self.boxes)


def _common(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _wide(text: str, size: float) -> float:
    """Points, about: what letters the page has is not known here. Letters from U+2E80 on are as wide as high."""
    return size * sum(1.0 if ord(letter) >= 0x2E80 else 0.56 for letter in text)


# --- the curves


_LINES = {
    "depth": ("s", ":"),
    "width": ("^", "--"),
    "resolution": ("D", "-."),
    "compound": ("o", "-"),
    "fitted": ("*", "-"),
}


def curves(series: Sequence[Series], baseline: tuple[float, Sequence[float]], title: str) -> str:
    """Accuracy against MACs (in powers) for each way to grow. baseline: its MACs and the accuracy of each seed."""
    with _drawing():
        figure = Figure(figsize=(6.2, 3.7), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        macs, seeds = baseline
        axes.plot([macs] * len(seeds), seeds, ".", color=INK, markersize=4, alpha=0.6)
        for one in series:
            _line(axes, one)
        costs = sorted({point for one in series for point, _ in one.points})
        axes.set_xscale("log")
        axes.set_xlim(costs[0] / 1.12, costs[-1] * (costs[-1] / costs[0]) ** 0.42)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(_apart(costs))
        axes.set_xlabel("MACs")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        axes.margins(y=0.12)
        _within_shares(axes)
        _ends(axes, series)
        return _finished(figure, f"{title}, against MACs")


def _line(axes: Axes, one: Series) -> None:
    marker, style = _LINES[one.kind]
    strong = one.kind in ("compound", "fitted")
    colour = ACCENT if strong else INK
    macs, bounded = [point for point, _ in one.points], [value for _, value in one.points]
    below, above = _around(bounded)
    axes.errorbar(
        macs,
        [value for value, _, _ in bounded],
        [below, above],
        color=colour,
        marker=marker,
        linestyle=style if len(macs) > 1 else "none",
        linewidth=2.4 if strong else 1.4,
        markersize=12 if one.kind == "fitted" else 5,
        elinewidth=1,
        capsize=2.5,
        zorder=4 if strong else 3,
    )


def _ends(axes: Axes, series: Sequence[Series]) -> None:
    """Each line's name at its end; those that end at one cost moved apart."""
    low, high = axes.get_ylim()
    gap = 0.062 * (high - low)
    ends = sorted(((one.points[-1][0], one.points[-1][1][0], one) for one in series), key=lambda end: end[:2])
    last: tuple[float, float] | None = None
    for macs, value, one in ends:
        near = last is not None and macs / last[0] < 1.25
        at = max(value, last[1] + gap) if near and last is not None else value
        last = macs, at
        strong = one.kind in ("compound", "fitted")
        axes.annotate(
            shortened(one.name),
            (macs, at),
            (9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            weight="bold" if strong else "normal",
            color=ACCENT if strong else INK,
            zorder=5,
        )


def _apart(costs: Sequence[float]) -> list[float]:
    """Of sorted costs those that have room for a label each."""
    kept = [costs[0]]
    for cost in costs[1:]:
        if cost / kept[-1] > 1.3:
            kept.append(cost)
    return kept


# --- seeds


def strip(rows: Sequence[Row], title: str) -> str:
    """Every arm's seeds as small dots, its mean with the interval; in colour those that are tied with the best."""
    with _drawing():
        figure = Figure(figsize=(6.2, 0.85 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        for place_, row in enumerate(rows):
            colour = ACCENT if row.tied else INK
            axes.plot(row.seeds, [place_] * len(row.seeds), "o", color=INK, markersize=3, alpha=0.55)
            below, above = _around([row.mean])
            axes.errorbar(
                [row.mean[0]],
                [place_],
                xerr=[below, above],
                color=colour,
                marker="o" if row.tied else "D",
                markersize=6,
                markerfacecolor=colour if row.tied else GROUND,
                elinewidth=1.3,
                capsize=2.5,
            )
        axes.set_yticks(range(len(rows)), [shortened(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.tick_params(axis="y", length=0)
        return _finished(figure, title)


# --- all of them


def shortened(name: str) -> str:
    """At most 18 letters of it."""
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _around(bounded: Sequence[Bounded]) -> tuple[list[float], list[float]]:
    """What the bounds lie below and above the values, none beyond 0 or 1."""
    return (
        [max(0.0, value - max(0.0, low)) for value, low, _ in bounded],
        [max(0.0, min(1.0, high) - value) for value, _, high in bounded],
    )


class _drawing(warnings.catch_warnings):  # noqa: N801
    """The page's style; letters that matplotlib's font lacks are no matter, since the browser draws them."""


def _finished(figure: Figure, label: str) -> str:
    text = _svg(figure).replace(GROUND, "Canvas")
    return text.replace('role="img"', f'role="img" aria-label="{escape(label)}"', 1)


_ = Callable
