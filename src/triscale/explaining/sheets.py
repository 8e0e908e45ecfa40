"""A sheet: pictures below each other, networks side by side, as in Figure 7 of the EfficientNet paper."""

import io
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from PIL import Image

from triscale.explaining.drawing import scale, whole
from triscale.explaining.explain import Explained, Explanation
from triscale.explaining.seeing import Pixels

DPI = 150
CELL, TALLEST = 320, 480  # pixels
MARGIN, GAP, BETWEEN, LINE = 28, 18, 48, 23
MOST, LINES = 24, 12  # pictures of a sheet, and below each other
FEW = 6  # pictures that stand below each other even where there is room beside
INK, QUIET = "#1a1a1a", "#666666"
# Letters that DejaVu lacks are taken from whichever of these is installed.
_OTHER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Noto Sans")
_TOP = MARGIN + 2 * LINE + GAP


def capacity(networks: int) -> int:
    """How many pictures a sheet takes."""
    return min(MOST, LINES * _groups(networks))


def sheet(pictures: Sequence[Explained], networks: Sequence[str]) -> bytes:
    """A PNG of the pictures that could be read: each as it was seen, then once per network with class and probability.

    networks: the heads of the columns, in the order of each picture's explanations. Many pictures of few networks
    stand in several groups of columns, from left to right, then down.
    """
    style: Any = {"text.parse_math": False, "font.family": ["DejaVu Sans", *_installed()]}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A letter that no font has is drawn as a box; that is no reason to stop.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        return _Sheet([one for one in pictures if one.picture is not None], networks).png()


def _groups(networks: int) -> int:
    return max(1, 6 // (1 + networks))


class _Sheet:
    """Places everything in pixels from the top left."""

    def __init__(self, pictures: Sequence[Explained], networks: Sequence[str]) -> None:
        self.figure = Figure(dpi=DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(self.figure)
        self.renderer = canvas.get_renderer()
        self.several_folders = len({one.path.parent for one in pictures}) > 1
        self.columns = 1 + len(networks)
        groups = min(_groups(len(networks)), max(1, -(-len(pictures) // FEW)))
        lines = [pictures[start : start + groups] for start in range(0, len(pictures), groups)]
        captions = [[[self.caption(each) for each in one.explanations] for one in line] for line in lines]
        heights = [max(_fitted(one)[1] for one in line) for line in lines]
        texts = [LINE * max(len(text) for own in line for text in [*own, [""]]) + 8 for line in captions]
        notes = _notes(pictures)
        self.width = 2 * MARGIN + groups * (self.columns * (CELL + GAP) - GAP + BETWEEN) - BETWEEN
        self.height = _TOP + sum(heights) + sum(texts) + GAP * (len(lines) + 1) + (1 + len(notes)) * (LINE + 4) + MARGIN
        self.figure.set_size_inches(self.width / DPI, self.height / DPI)
        for group in range(groups):
            self.heads(group, pictures, networks)
        top = _TOP
        for line, own, height, text in zip(lines, captions, heights, texts, strict=True):
            for group, (one, caption) in enumerate(zip(line, own, strict=True)):
                self.picture(group, one, caption, top, height)
            top += height + text + GAP
        self.legend(top + GAP, notes, signed=any(each.method == "cam" for one in pictures for each in one.explanations))

    def heads(self, group: int, pictures: Sequence[Explained], networks: Sequence[str]) -> None:
        self.text(group, 0, MARGIN, "picture", bold=True)
        self.text(group, 0, MARGIN + LINE, "as seen", quiet=True)
        for place, name in enumerate(networks):
            self.text(group, place + 1, MARGIN, self.wrapped(name, 1, bold=True)[0], bold=True)
            if pictures:
                how = _how(pictures[0].explanations[place])
                self.text(group, place + 1, MARGIN + LINE, self.wrapped(how, 1)[0], quiet=True)

    def picture(self, group: int, one: Explained, captions: Sequence[Sequence[str]], top: int, height: int) -> None:
        """One picture with what each network finds, within a line of such a height."""
        if one.picture is not None:
            self.image(group, 0, top, one.picture, _fitted(one))
        name = f"{one.path.parent.name}/{one.path.name}" if self.several_folders else one.path.name
        below = top + height + 6
        self.text(group, 0, below, self.shortened(name), quiet=True)
        for place, (each, lines) in enumerate(zip(one.explanations, captions, strict=True)):
            self.image(group, place + 1, top, whole(one, each), _fitted(one))
            for number, line in enumerate(lines):
                last = number == len(lines) - 1
                self.text(group, place + 1, below + number * LINE, line, bold=not last, quiet=last)

    def caption(self, each: Explanation) -> list[str]:
        """The class, then how likely it is, and what is likelier."""
        share = f"{100 * each.probability:.1f} %, logit {each.logit:.1f}"
        if each.label != each.likeliest[0]:
            share += f"; says {each.likeliest[0]}, {100 * each.likeliest[1]:.1f} %"
        return [*self.wrapped(each.label, 2, bold=True), self.wrapped(share, 1)[0]]

    def legend(self, top: int, notes: Sequence[str], *, signed: bool) -> None:
        left = "against the class" if signed else "nothing"
        start = MARGIN + round(self.measure(left)) + 12
        self.place(scale(200, 16, signed=signed), start, top + 3)
        self.write(MARGIN, top, left)
        self.write(start + 212, top, "for the class")
        for number, note in enumerate(notes):
            self.write(MARGIN, top + (1 + number) * (LINE + 4), note, quiet=True)

    def image(self, group: int, column: int, top: int, picture: Pixels, size: tuple[int, int]) -> None:
        drawn = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
        self.place(np.asarray(drawn), self.left(group, column) + (CELL - size[0]) // 2, top)

    def left(self, group: int, column: int) -> int:
        return MARGIN + group * (self.columns * (CELL + GAP) - GAP + BETWEEN) + column * (CELL + GAP)

    def place(self, pixels: Pixels, left: int, top: int) -> None:
        self.figure.figimage(pixels, left, self.height - top - pixels.shape[0], origin="upper")

    def text(self, group: int, column: int, top: int, text: str, *, bold: bool = False, quiet: bool = False) -> None:
        self.write(self.left(group, column), top, text, bold=bold, quiet=quiet)

    def write(self, left: int, top: int, text: str, *, bold: bool = False, quiet: bool = False) -> None:
        self.figure.text(
            left / self.width,
            1 - top / self.height,
            text,
            va="top",
            color=QUIET if quiet else INK,
            fontproperties=_font(bold),
        )

    def measure(self, text: str, *, bold: bool = False) -> float:
        """Its width in pixels."""
        return float(self.renderer.get_text_width_height_descent(text, _font(bold), ismath=False)[0])

    def wrapped(self, text: str, lines: int, *, bold: bool = False) -> list[str]:
        """At most so many lines that fit a cell, broken between words where that is possible; the rest is cut off."""
        rest = _plain(text)
        found: list[str] = []
        while self.measure(rest, bold=bold) > CELL:
            end = self.longest(rest, partial(_start, rest), bold=bold)
            if len(found) == lines - 1:
                return [*found, _start(rest, end)]
            space = rest.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
            found.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        return [*found, rest]

    def shortened(self, text: str) -> str:
        """One line that fits a cell, its middle left out: file names tell themselves apart at either end."""
        whole = _plain(text)
        if self.measure(whole) <= CELL:
            return whole
        return _ends(whole, self.longest(whole, partial(_ends, whole)))

    def longest(self, text: str, cut: Callable[[int], str], *, bold: bool = False) -> int:
        """The most letters of a text with which what it is cut to fits a cell; at least one."""
        return max(1, bisect_left(range(1, len(text)), True, key=lambda n: self.measure(cut(n), bold=bold) > CELL))

    def png(self) -> bytes:
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
        return out.getvalue()


def _notes(pictures: Sequence[Explained]) -> list[str]:
    found = ["Colour: relative to the largest value of the same map."]
    partly = any(
        (each.seen[0].stop - each.seen[0].start, each.seen[1].stop - each.seen[1].start) != one.picture.shape[:2]
        for one in pictures
        for each in one.explanations
        if one.picture is not None
    )
    return [*found, "Pale: outside of what that network sees."] if partly else found


def _fitted(one: Explained) -> tuple[int, int]:
    """(width, height) of its picture in a cell."""
    height, width = (1, 1) if one.picture is None else one.picture.shape[:2]
    share = min(CELL / width, TALLEST / height)
    return max(1, round(width * share)), max(1, round(height * share))


def _how(each: Explanation) -> str:
    (h, w), (rows, columns) = each.resolution, each.values.shape
    if each.stage is not None:
        return f"Grad-CAM, stage {each.stage}, map {rows}×{columns}"
    return f"{h}×{w} pixels, map {rows}×{columns}"


def _start(text: str, n: int) -> str:
    return text[:n].rstrip() + "…"


def _ends(text: str, n: int) -> str:
    return text[: (n + 1) // 2] + "…" + text[len(text) - n // 2 :]


def _font(bold: bool) -> FontProperties:
    return FontProperties(size=8, weight="bold" if bold else "normal")


def _installed() -> list[str]:
    known = set(fontManager.get_font_names())
    return [name for name in _OTHER_FONTS if name in known]


def _plain(text: str) -> str:
    """One line of letters that can be drawn, whatever a file or a class is called."""
    return " ".join(text.encode("utf-8", "replace").decode().split())
