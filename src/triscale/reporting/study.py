"""The page of a scaling study, from the plain values of its study.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from triscale.reporting.study_plots import CORNERS, Bounded, Dot, Kind, Row, Series, Shares, curves, strip, ternary
from triscale.reporting.study_words import Answer, answer
from triscale.reporting.templating import render
from triscale.runs import write_whole
from triscale.scaling.multipliers import Coefficients
from triscale.scaling.rules import PAPER
from triscale.units import format_seconds

Values = Mapping[str, Any]

COMPOUND, FITTED = "compound", "fitted"  # what studies call the paper's mix and the fitted optimum
FILES = {"fitted": "coefficients.json", "fastest": "coefficients-fastest.json"}  # beside the page
MISFIT = 0.05  # p of the lack of fit below which the surface does not describe the arms
ALONE = 1 - 1e-9  # share of a dimension that moves alone


@dataclass(frozen=True, slots=True)
class Recommended:
    """which: the fitted optimum or the fastest of the tied arms. found: None where there is none; else with the command
    that grows by it, its arm, where it is one, and the arm of the paper's mix."""

    which: str
    found: Values | None
    command: tuple[str, ...] = ()
    arm: Values | None = None
    compound: Values | None = None


@dataclass(frozen=True, slots=True)
class Factor:
    """values: of study.json. arms: the best on the selection images first. timed, enlarged: whether any of them is.
    off: the largest share by which one misses the cost that was asked. plot: seed by seed."""

    values: Values
    arms: Sequence[Values]
    timed: bool
    enlarged: bool
    off: float
    plot: Markup


@dataclass(frozen=True, slots=True)
class StudyPage:
    """study: study.json. seeds: how many. progress: trials whose results are shown, and those of the chosen design.
    misfit: whether the surface does not describe the arms. equal, time: rows of words."""

    study: Values
    finished: bool
    seeds: int
    answer: Answer
    progress: tuple[int, int | None]
    recommended: Sequence[Recommended]
    ternary: Markup | None
    no_surface: str | None
    misfit: bool
    curves: Markup | None
    factors: Sequence[Factor]
    equal: Sequence[tuple[str, str]]
    time: Sequence[tuple[str, str]]
    paper: Coefficients


def write_study_page(out: Path, values: Mapping[str, Any]) -> None:
    """One self-contained page, whole. Raises `TriscaleError` where the disk refuses."""
    write_whole(out, study_page(values))


def study_page(values: Mapping[str, Any]) -> str:
    """The page of a study, finished or not. values: what study.json holds; the page depends on nothing else. Of a study
    that is not finished no test result is shown, whatever the values hold."""
    return render("study.html.j2", _page(values))


def _page(values: Values) -> StudyPage:
    factors, surface = values["factors"], values["surface"]
    return StudyPage(
        study=values,
        finished=values["finished"],
        seeds=len(values["seeds"]),
        answer=answer(values),
        progress=_progress(values),
        recommended=[_recommended(values, which) for which in FILES] if values["finished"] else [],
        ternary=None if surface is None else Markup(_ternary(values)),
        no_surface=_why_no_surface(values),
        misfit=surface is not None and surface["lack_of_fit"] is not None and surface["lack_of_fit"] < MISFIT,
        curves=_curves(values),
        factors=[_at(values, at) for at in factors],
        equal=_equal(values),
        time=_time(values["time"]),
        paper=PAPER,
    )


def _progress(values: Values) -> tuple[int, int | None]:
    """(trials whose results are shown, trials of the chosen design)."""
    done = len(values["baseline"]["selection"])
    done += sum(len(arm["selection"]) for at in values["factors"] for arm in at["arms"])
    planned = next((line["trials"] for line in values["ladder"] if line["chosen"]), None)
    return done, planned


def _recommended(values: Values, which: str) -> Recommended:
    found = values["recommended"][which]
    if found is None:
        return Recommended(which, None)
    command = "triscale", "scale", "baseline.json", "--rule", FILES[which], "--factor", f"{values['factor']:g}"
    at = values["factors"][0] if values["factors"] else {"arms": []}
    return Recommended(which, found, command, arm=_named(at, found.get("arm")), compound=_called(at, COMPOUND))


def _named(at: Values, name: str | None) -> Values | None:
    return next((arm for arm in at["arms"] if arm["name"] == name), None)


def _called(at: Values, name: str) -> Values | None:
    """The arm that has this name among its names."""
    return next((arm for arm in at["arms"] if name in arm["names"]), None)


def _ternary(values: Values) -> str:
    surface, at = values["surface"], values["factors"][0]
    dots = [
        Dot(arm["name"], _shares(arm["shares"]), arm["selection_mean"][0], arm["name"] == at["best"])
        for arm in at["arms"]
    ]
    paper = PAPER.exponents()
    return ternary(
        dots,
        surface["grid"],
        surface["compatible"],
        _shares(surface["optimum"]),
        (paper.depth, paper.width, paper.resolution),
    )


def _shares(values: Values) -> Shares:
    return values["depth"], values["width"], values["resolution"]


def _why_no_surface(values: Values) -> str | None:
    if values["surface"] is not None:
        return None
    if values["why_no_surface"]:
        return str(values["why_no_surface"])
    return f"no two arms at ×{values['factor']:g} have all their seeds yet"


def _accuracy(values: Values, arm: Values) -> Bounded:
    """On the test images once they are unsealed, on the selection images before."""
    value, low, high = arm["test_mean"] if values["finished"] else arm["selection_mean"]
    return value, low, high


def _runs(values: Values, of: Values) -> Sequence[float]:
    found: Sequence[float] = of["test"] if values["finished"] else of["selection"]
    return found


def _curves(values: Values) -> Markup | None:
    """None where no arm moves one dimension alone and none is the paper's mix."""
    baseline = values["baseline"]
    runs = _runs(values, baseline)
    start = [(baseline["macs"], (fmean(runs),) * 3)] if runs else []
    series: list[Series] = []
    for kind, arms in _ways(values).items():
        points = [(arm["macs"], _accuracy(values, arm)) for arm in arms]
        if points:
            name = "the paper's mix" if kind == COMPOUND else kind
            series.append(Series(name, kind, tuple(points if kind == FITTED else start + points)))
    title = f"{'test' if values['finished'] else 'selection'} accuracy, 95 % interval over seeds"
    return Markup(curves(series, (baseline["macs"], runs), title)) if series else None


def _ways(values: Values) -> dict[Kind, list[Values]]:
    """The arms of each way to grow, at ever larger factors; fitted only where it is none of the others."""
    factors = sorted(values["factors"], key=lambda at: at["factor"])
    found: dict[Kind, list[Values]] = {"depth": [], "width": [], "resolution": [], "compound": [], "fitted": []}
    for at in factors:
        for arm in at["arms"]:
            alone = [kind for kind in CORNERS if arm["asked_shares"][kind] > ALONE]
            kinds = [*alone, *([COMPOUND] if COMPOUND in arm["names"] else [])]
            for kind in kinds or ([FITTED] if FITTED in arm["names"] else []):
                found[kind].append(arm)  # type: ignore[index]  # one of the five
    return found


def _at(values: Values, at: Values) -> Factor:
    arms = sorted(at["arms"], key=lambda arm: -arm["selection_mean"][0])
    rows = [Row(arm["name"], tuple(_runs(values, arm)), _accuracy(values, arm), arm["tied"]) for arm in arms]
    title = f"{'test' if values['finished'] else 'selection'} accuracy at ×{at['factor']:g}, seed by seed"
    return Factor(
        values=at,
        arms=arms,
        timed=any(arm["latency"] is not None for arm in arms),
        enlarged=any(arm["upscaled"] for arm in arms),
        off=max(abs(arm["realised"] / arm["asked"] - 1) for arm in arms),
        plot=Markup(strip(rows, title)),
    )


def _equal(values: Values) -> list[tuple[str, str]]:
    """What all trials share, in words."""
    how, pixels = values["how"], values["pixels"]
    return [
        ("recipe", "one for all arms; run.json beside this page holds it"),
        ("training images", f"{values['images']:,}, the same for every trial"),
        ("epochs", str(values["epochs"])),
        ("seeds", f"{_list(values['seeds'])}; every arm is trained with each"),
        ("size of the images", "they differ" if pixels is None else f"{pixels[0]}×{pixels[1]} pixels"),
        ("precision", how["precision"]),
        ("device", how["device"]),
        ("threads of a trial", str(how["threads"])),
        ("kernels", "Triscale's own, where a layer has one" if how["kernels"] else "PyTorch's"),
    ]


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) if len(seeds) <= 4 else f"{seeds[0]} to {seeds[-1]}"


def _time(time: Values | None) -> list[tuple[str, str]]:
    """Of all sittings. Where one of them was killed its time is not known, and no rates follow."""
    if time is None:
        return []
    rows = [("trials", f"{time['trials']:,}, {time['workers']} at a time")]
    share, without = time["share_of_trials"], time.get("share_without_trials")
    if share is None or share > 1:
        took = format_seconds(time["seconds"])
        rows.append(("time", f"{took}, without the sittings that were killed, whose trials count as well"))
    else:
        rows.append(("time", f"{time['seconds'] / 3600:.2f} hours ({format_seconds(time['seconds'])})"))
        rows.append(("trials an hour", f"{3600 * time['trials'] / time['seconds']:.1f}"))
        rows.append(("share of the workers' time that was training", f"{100 * share:.1f} %"))
        if without is not None:
            rows.append(("share of the time without trials", f"{100 * without:.1f} %: measuring, planning, concluding"))
    return [*rows, ("time of all trials together", format_seconds(time["trained"]))]
