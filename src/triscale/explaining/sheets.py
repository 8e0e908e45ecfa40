"""A sheet: pictures below each other, networks side by side, as in Figure 7 of the EfficientNet paper."""

import io
import warnings
from collections.abc import Sequence
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
MARGIN, GAP, LINE = 28, 18, 23
INK, QUIET = "#1a1a1a", "#666666"
# Letters that DejaVu lacks are taken from whichever of these is installed.
_OTHER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Noto Sans")
_TOP = MARGIN + 2 * LINE + GAP
_FOOT = 3 * LINE + MARGIN


def sheet(rows: Sequence[Explained], networks: Sequence[str]) -> bytes:
    """A PNG of the pictures that could be read: each as it was seen, then once per network with class and probability.

    networks: the heads of the columns, in the order of each picture's explanations.
    """
    style: Any = {"text.parse_math": False, "font.family": ["DejaVu Sans", *_installed()]}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A letter that no font has is drawn as a box; that is no reason to stop.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        return _Sheet([row for row in rows if row.picture is not None], networks).png()


class _Sheet:
    """Places everything in pixels from the top left."""

    def __init__(self, rows: Sequence[Explained], networks: Sequence[str]) -> None:
        self.figure = Figure(dpi=DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(self.figure)
        self.renderer = canvas.get_renderer()
        several = len({row.path.parent for row in rows}) > 1
        names = [f"{row.path.parent.name}/{row.path.name}" if several else row.path.name for row in rows]
        captions = [[self.caption(each) for each in row.explanations] for row in rows]
        heights = [_fitted(row.picture)[1] for row in rows if row.picture is not None]
        texts = [LINE * max(map(len, own), default=1) + 8 for own in captions]
        self.width = 2 * MARGIN + (CELL + GAP) * (1 + len(networks)) - GAP
        self.height = _TOP + sum(heights) + sum(texts) + GAP * (len(rows) - 1) + GAP + _FOOT
        self.figure.set_size_inches(self.width / DPI, self.height / DPI)
        self.heads(rows, networks)
        top = _TOP
        for row, name, own, height, text in zip(rows, names, captions, heights, texts, strict=True):
            self.row(row, name, own, top, height)
            top += height + text + GAP
        self.legend(top + GAP, signed=any(each.method == "cam" for row in rows for each in row.explanations))

    def heads(self, rows: Sequence[Explained], networks: Sequence[str]) -> None:
        self.text(0, MARGIN, "picture", bold=True)
        self.text(0, MARGIN + LINE, "as seen", quiet=True)
        for place, name in enumerate(networks):
            self.text(place + 1, MARGIN, self.wrapped(name, 1, bold=True)[0], bold=True)
            if rows:
                self.text(place + 1, MARGIN + LINE, _how(rows[0].explanations[place]), quiet=True)

    def row(self, row: Explained, name: str, captions: Sequence[Sequence[str]], top: int, height: int) -> None:
        if row.picture is not None:
            self.image(0, top, row.picture)
        below = top + height + 6
        self.text(0, below, self.wrapped(name, 1, cut_start=True)[0], quiet=True)
        for place, (each, lines) in enumerate(zip(row.explanations, captions, strict=True)):
            self.image(place + 1, top, whole(row, each))
            for number, line in enumerate(lines):
                last = number == len(lines) - 1
                self.text(place + 1, below + number * LINE, line, bold=not last, quiet=last)

    def caption(self, each: Explanation) -> list[str]:
        """The class, then how likely it is, and what is likelier."""
        share = f"{100 * each.probability:.1f} %"
        if each.label != each.likeliest[0]:
            share += f"; likeliest {each.likeliest[0]} {100 * each.likeliest[1]:.1f} %"
        return [*self.wrapped(each.label, 2, bold=True), self.wrapped(share, 1)[0]]

    def legend(self, top: int, *, signed: bool) -> None:
        left = "against the class" if signed else "nothing"
        start = MARGIN + round(self.measure(left)) + 12
        bar = scale(200, 16, signed=signed)
        self.place(bar, start, top + 3)
        self.write(MARGIN, top, left)
        self.write(start + 212, top, "for the class")
        self.write(MARGIN, top + LINE + 8, "Colour: evidence relative to the largest of the same map.", quiet=True)

    def image(self, column: int, top: int, picture: Pixels) -> None:
        width, height = _fitted(picture)
        drawn = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        self.place(np.asarray(drawn), MARGIN + column * (CELL + GAP) + (CELL - width) // 2, top)

    def place(self, pixels: Pixels, left: int, top: int) -> None:
        self.figure.figimage(pixels, left, self.height - top - pixels.shape[0], origin="upper")

    def text(self, column: int, top: int, text: str, *, bold: bool = False, quiet: bool = False) -> None:
        self.write(MARGIN + column * (CELL + GAP), top, text, bold=bold, quiet=quiet)

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

    def wrapped(self, text: str, lines: int, *, bold: bool = False, cut_start: bool = False) -> list[str]:
        """At most so many lines that fit a cell, broken between words where that is possible."""
        rest = _plain(text)
        found: list[str] = []
        while rest and self.measure(rest, bold=bold) > CELL:
            end = next(
                n for n in range(len(rest) - 1, 0, -1) if n == 1 or self.measure(rest[:n] + "…", bold=bold) <= CELL
            )
            if len(found) == lines - 1:
                return [*found, "…" + rest[-end:] if cut_start else rest[:end].rstrip() + "…"]
            space = rest.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
            found.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        return [*found, rest]

    def png(self) -> bytes:
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
        return out.getvalue()


def _fitted(picture: Pixels) -> tuple[int, int]:
    """(width, height) in a cell."""
    height, width = picture.shape[:2]
    share = min(CELL / width, TALLEST / height)
    return max(1, round(width * share)), max(1, round(height * share))


def _how(each: Explanation) -> str:
    (h, w), (rows, columns) = each.resolution, each.values.shape
    map_size = f"{h}×{w} pixels, map {rows}×{columns}"
    return map_size if each.stage is None else f"{map_size}, stage {each.stage}"


def _font(bold: bool) -> FontProperties:
    return FontProperties(size=8, weight="bold" if bold else "normal")


def _installed() -> list[str]:
    known = set(fontManager.get_font_names())
    return [name for name in _OTHER_FONTS if name in known]


def _plain(text: str) -> str:
    """One line of letters that can be drawn, whatever a file or a class is called."""
    return " ".join(text.encode("utf-8", "replace").decode().split())
