"""Plots as SVG that stands inside a page: no file, no script, the page's own colours and letters."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from triscale.evaluating.calibration import Bin
from triscale.units import format_count

INK, ACCENT, QUIET = "#010203", "#010204", "#010205"  # stand for colours that the page gives, in light and in dark
_PAGE = {INK: "currentColor", ACCENT: "var(--accent)", QUIET: "var(--quiet)"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "triscale",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": QUIET,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True, slots=True)
class Tried:
    """A network that was trained and tested on these images: name, MACs, accuracy with its interval."""

    name: str
    macs: float
    accuracy: float
    low: float
    high: float
    own: bool


def curve(values: Sequence[float], title: str, *, percent: bool = False, scratch: Sequence[float] = ()) -> str:
    """One value an epoch, the last one named; dashed, those of a training from scratch."""
    with drawing():
        figure, axes = _axes(title)
        epochs = range(1, len(values) + 1)
        if scratch:
            axes.plot(range(1, len(scratch) + 1), scratch, color=INK, linestyle="--", linewidth=1.2)
        axes.plot(epochs, values, color=ACCENT, marker="o", markersize=3 if len(values) < 40 else 0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        text = f"{100 * values[-1]:.2f} %" if percent else f"{values[-1]:.3f}"
        axes.annotate(
            text, (len(values), values[-1]), (0, -13 if percent else 8), textcoords="offset points", ha="right"
        )
        axes.margins(x=0.03, y=0.15)
        if percent:
            within_shares(axes)
        return svg(figure)


def tradeoff(tried: Sequence[Tried]) -> str:
    """Accuracy against MACs (in powers), each with its interval; the page's own run named and filled."""
    with drawing():
        figure, axes = _axes("test accuracy, 95 % interval")
        for one in sorted(tried, key=lambda each: each.own):
            colour = ACCENT if one.own else INK
            below, above = max(0.0, one.accuracy - one.low), max(0.0, one.high - one.accuracy)
            axes.errorbar(
                [one.macs],
                [one.accuracy],
                [[below], [above]],
                color=colour,
                marker="o",
                markersize=7 if one.own else 5,
                markerfacecolor=colour if one.own else "none",
                elinewidth=1.2,
                capsize=2,
                linestyle="none",
            )
        own = next((one for one in tried if one.own), None)
        if own is not None:
            axes.annotate(own.name, (own.macs, own.accuracy), (9, 5), textcoords="offset points", color=ACCENT)
        axes.set_xscale("log")
        least, most = min(one.macs for one in tried), max(one.macs for one in tried)
        axes.set_xlim(least / 1.5, most * 2.2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        if most / least < 10:
            axes.set_xticks(sorted({one.macs for one in tried})[:: max(1, len(tried) // 3)])
        axes.set_xlabel("MACs")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        axes.margins(y=0.25)
        within_shares(axes)
        return svg(figure)


def reliability(bins: Sequence[Bin], title: str = "right, by confidence") -> str:
    """How often the model is right against how sure it is, with 95 % intervals; on the dashed line it is as often right
    as it is sure. The bars are the shares of the images."""
    with drawing():
        figure, axes = _axes(title)
        n = sum(one.images for one in bins)
        axes.bar(
            [one.low for one in bins],
            [one.images / n for one in bins],
            [one.high - one.low for one in bins],
            align="edge",
            color=QUIET,
            linewidth=0,
        )
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2)
        filled = [(one.confidence, one.accuracy) for one in bins if one.confidence is not None and one.accuracy]
        sure, right = [each for each, _ in filled], [share for _, share in filled]
        bounds = [share.interval() for share in right]
        axes.errorbar(
            sure,
            [share.value for share in right],
            # Where all are right, rounding may put the bound a hair inside the value.
            [
                [max(0.0, share.value - low) for share, (low, _) in zip(right, bounds, strict=True)],
                [max(0.0, high - share.value) for share, (_, high) in zip(right, bounds, strict=True)],
            ],
            color=ACCENT,
            marker="o",
            markersize=5,
            elinewidth=1.2,
            capsize=2,
            linestyle="none",
        )
        axes.set_xlabel("confidence")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.01, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        return svg(figure)


@contextmanager
def drawing() -> Iterator[None]:
    """The page's style. Letters that matplotlib's own font lacks are no matter: the browser draws them."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def within_shares(axes: Axes) -> None:
    """No accuracy is below 0 % or above 100 %."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.01), min(high, 1.01))


def svg(figure: Figure) -> str:
    """The drawing alone: no prologue, no metadata, no addresses; its colours the page's."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg\b[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?)\sheight="[^"]*"', r'\1 role="img"', text, count=1)
    for stand_in, colour in _PAGE.items():
        text = text.replace(stand_in, colour)
    return text
