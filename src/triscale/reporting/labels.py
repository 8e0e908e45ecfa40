"""Labels beside the marks of a plot, where there is room for them."""

import math
from itertools import product

from matplotlib.axes import Axes

from triscale.reporting.plots import QUIET

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top; in points

_DIRECTIONS = (0, 180, 90, 270, 35, 145, 215, 325)  # degrees; of equally good ones the first is taken
_DISTANCES = (7.0, 12.0, 19.0, 28.0, 40.0)  # points from a mark to the edge of its label
_SIZE = 8.5  # points, of a label's letters
_BARE = 0.04  # of a label may lie on something else
_PIECE = 4.0  # points of a line that one box covers
_NAME = 18  # letters


class Labels:
    """What stands where on axes that fill their figure, so that nothing is written over it.

    scale: points to a unit of the axes. Sizes are reckoned by rule of thumb: which letters the page has is known
    to the browser alone.
    """

    def __init__(self, axes: Axes, scale: float) -> None:
        self.axes, self._scale = axes, scale
        self._boxes: list[Box] = []

    def write(self, at: Point, text: str, *, size: float, rotation: float = 0.0, weight: str = "normal") -> None:
        """Around a point, whatever is there."""
        self.axes.text(*at, text, fontsize=size, ha="center", va="center", rotation=rotation, weight=weight)
        width, height, turn = wide(text, size), 1.1 * size, math.radians(rotation)
        parts = max(1, round(width / height)) if rotation else 1
        for part in range(parts):  # a slanting text is covered by small boxes
            along = ((part + 0.5) / parts - 0.5) * width
            self._take(at, (along * math.cos(turn), along * math.sin(turn)), width / parts, height)

    def keep_clear(self, at: Point, radius: float) -> None:
        """So many points around a mark."""
        self._take(at, (0.0, 0.0), 2 * radius, 2 * radius)

    def keep_line_clear(self, start: Point, end: Point) -> None:
        """A straight line, two points wide."""
        x, y = (end[0] - start[0]) * self._scale, (end[1] - start[1]) * self._scale
        parts = max(1, round(math.hypot(x, y) / _PIECE))
        for part in range(parts):
            along = (part + 0.5) / parts
            self._take(start, (along * x, along * y), max(2.0, abs(x) / parts), max(2.0, abs(y) / parts))

    def beside(self, at: Point, lines: tuple[str, str], *, bold: bool = False) -> bool:
        """Two lines near a mark, where there is room; elsewhere nothing is written, and the answer is False."""
        width, height = max(wide(line, _SIZE) for line in lines), 2.3 * _SIZE
        shifts = [
            _shift(math.radians(angle), distance, width, height) for distance, angle in product(_DISTANCES, _DIRECTIONS)
        ]
        shift = min(shifts, key=lambda one: self._covered(self._box(at, one, width, height)))
        if self._covered(self._box(at, shift, width, height)) > _BARE * width * height:
            return False
        self._take(at, shift, width, height)
        middle = at[0] + shift[0] / self._scale, at[1] + shift[1] / self._scale
        if max(abs(shift[0]) - width / 2, abs(shift[1]) - height / 2) > _DISTANCES[1] + 1:
            self.axes.plot(*zip(at, middle, strict=True), color=QUIET, linewidth=0.9, zorder=3)
        for line, above in zip(lines, (0.58, -0.58), strict=True):
            y, weight = middle[1] + above * _SIZE / self._scale, "bold" if bold else "normal"
            self.axes.text(middle[0], y, line, fontsize=_SIZE, ha="center", va="center", weight=weight, zorder=7)
        return True

    def _take(self, at: Point, shift: Point, width: float, height: float) -> None:
        self._boxes.append(self._box(at, shift, width, height))

    def _box(self, at: Point, shift: Point, width: float, height: float) -> Box:
        """Around the place that lies so many points across and up from a point of the axes."""
        x, y = at[0] * self._scale + shift[0], at[1] * self._scale + shift[1]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def _covered(self, box: Box) -> float:
        """Square points of a box that lie on something else or outside."""
        (left, right), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        page = left * self._scale, bottom * self._scale, right * self._scale, top * self._scale
        outside = (box[2] - box[0]) * (box[3] - box[1]) - common(box, page)
        return outside + sum(common(box, other) for other in self._boxes)


def _shift(angle: float, distance: float, width: float, height: float) -> Point:
    """From a mark to the middle of a label whose edge is so far away."""
    x, y = math.cos(angle), math.sin(angle)
    return (
        x * distance + math.copysign(width / 2, x) if abs(x) > 0.1 else 0.0,
        y * distance + math.copysign(height / 2, y) if abs(y) > 0.1 else 0.0,
    )


def common(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def wide(text: str, size: float) -> float:
    """Points that a text is wide, about. Letters from U+2E80 on are taken to be as wide as they are high."""
    return size * sum(1.0 if ord(letter) >= 0x2E80 else 0.56 for letter in text)


def shortened(name: str) -> str:
    """At most 18 letters of it."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
