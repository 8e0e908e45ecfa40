"""Our own studies of how networks grow, as docs/paper.md shows each: commands, table, verdicts, coefficients.

Used by paper_executed.py. A study is a file of examples/studies, the study.json that `triscale study` wrote, and an
entry of examples/data/studies.json under its name: which images, and the commands that made it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import dist
from pathlib import Path
from statistics import fmean
from typing import Any

from triscale.scaling import RULES, Power
from triscale.units import format_count

HERE = Path(__file__).parent
STUDIES, ENTRIES = HERE / "studies", HERE / "data" / "studies.json"
NONE_YET = "No study has been run yet: `examples/studies` holds none."

COMPOUND, FITTED = "compound", "fitted"
DIMENSIONS = ("depth", "width", "resolution")
MISFIT = 0.05  # p of the lack of fit below which the surface does not describe the arms

Values = Mapping[str, Any]
Interval = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True)
class Study:
    """A finished study. images: the name of the data set; about: what it is; commands: what made the study."""

    images: str
    about: str
    commands: tuple[str, ...]
    values: Values

    @property
    def title(self) -> str:
        return f"{self.images}, {self.values['baseline']['name']}"


def verdict(difference: Interval) -> str:
    """wins, ties or loses: whether the interval lies above zero, holds it, or lies below."""
    _, low, high = difference
    return "wins" if low > 0 else "loses" if high < 0 else "ties"


def read_studies(folder: Path = STUDIES, entries: Path = ENTRIES) -> list[Study]:
    """The studies in order of their names. Raises `SystemExit` for one that is not finished or has no entry."""
    known = json.loads(entries.read_text("utf-8"))
    found = []
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text("utf-8"))
        if not values["finished"]:
            raise SystemExit(f"{path}: is not finished; its test images are sealed")
        if path.stem not in known:
            raise SystemExit(
                f'{entries}: say what {path.name} is: "{path.stem}": {{"images": "Fashion-MNIST", "about": "28×28 gray '
                'pictures, 10 classes, 10,000 test images", "commands": ["triscale study FASHION …"]}}'
            )
        entry = known[path.stem]
        found.append(Study(entry["images"], entry["about"], tuple(entry["commands"]), values))
    return found


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns of numbers to the right of the first."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _points(difference: Interval, interval: str = "") -> str:
    value, low, high = (100 * one for one in difference)
    return f"{value:+.2f}{' points' if interval else ''} ({interval}{low:+.2f} to {high:+.2f})"


def tables(studies: Sequence[Study]) -> str:
    """Every study: its command, what it took, its table, its coefficients, its verdicts."""
    return "\n\n".join(_one(study) for study in studies) or NONE_YET


def _one(study: Study) -> str:
    commands = "\n".join(f"    {command}" for command in study.commands)
    parts = [f"### {study.title}", commands, _effort(study), _table(study), _enlarged(study), *_verdicts(study)]
    return "\n\n".join(part for part in [*parts, _coefficients(study)] if part)


def machine_hours(study: Study) -> float:
    """Hours of a machine that carries out as many trials at once as the study did."""
    time = study.values["time"]
    trained: float = time["trained"]
    workers: int = time["workers"]
    return trained / workers / 3600


def _effort(study: Study) -> str:
    values, time = study.values, study.values["time"]
    arms = " and ".join(f"{len(at['arms'])} at ×{at['factor']:g}" for at in values["factors"])
    return (
        f"{study.about}. Networks: {arms}, and the baseline; {len(values['seeds'])} seeds, "
        f"{values['images']:,} training images × {values['epochs']} epochs. "
        f"{time['trials']} trials, {time['workers']} at a time with "
        f"{counted(values['how']['threads'], 'thread')} each: {machine_hours(study):.1f} machine-hours."
    )


def _table(study: Study) -> str:
    values = study.values
    baseline, seeds = values["baseline"], len(values["seeds"])
    rows = [
        [
            "baseline",
            "",
            "×".join(map(str, baseline["resolution"])),
            format_count(baseline["macs"]),
            f"{100 * fmean(baseline['test']):.2f}",
            "",
        ]
    ]
    for at in values["factors"]:
        rows += [_row(at, arm) for arm in _shown(at)]
    heads = ("", "depth / width / resolution", "pixels", "MACs", "test accuracy, %", "over the best single dimension")
    return (
        f"{markdown(heads, rows)}\n\nn = {seeds} seeds a row; 95 % intervals over seeds, of differences paired by seed."
    )


def _row(at: Values, arm: Values) -> list[str]:
    shares = " / ".join(f"{100 * arm['shares'][dimension]:.0f}" for dimension in DIMENSIONS)
    value, low, high = (100 * one for one in arm["test_mean"])
    over = "" if arm["to_single"] is None else _points(arm["to_single"])
    if arm["name"] == at["best_single"]:
        over = "the best one"
    pixels = "×".join(map(str, arm["resolution"])) + (" !" if arm["upscaled"] else "")
    accuracy = f"{value:.2f} ({low:.2f} to {high:.2f})"
    return [f"×{at['factor']:g} {_name(arm)}", f"{shares} %", pixels, format_count(arm["macs"]), accuracy, over]


def _name(arm: Values) -> str:
    said = {COMPOUND: "the paper's mix", FITTED: "the fitted optimum"}
    return " = ".join(said.get(name, name) for name in arm["names"])


def _shown(at: Values) -> list[Values]:
    """The rows of Tables 3 and 7: each dimension alone and the paper's mix; the fitted optimum; the best of all."""
    arms = at["arms"]
    order = [*(name for name in DIMENSIONS), COMPOUND, FITTED]
    found = [arm for name in order for arm in arms if name in arm["names"]]
    found += [arm for arm in arms if arm["name"] == at["best"]]
    return list({arm["name"]: arm for arm in found}.values())


def _enlarged(study: Study) -> str:
    marked = any(arm["upscaled"] for at in study.values["factors"] for arm in _shown(at))
    return "!: more pixels than the images have; enlarging them adds no detail." if marked else ""


def _verdicts(study: Study) -> Iterator[str]:
    """A paragraph a factor: the paper's mix against the best single dimension, the fitted optimum against both."""
    for at in study.values["factors"]:
        said = []
        compound, fitted, single = arm_named(at, COMPOUND), arm_named(at, FITTED), _alone(at)
        if compound is not None and single:
            said.append(f"the paper's mix against the best single dimension, {single}: {_says(compound['to_single'])}")
        if fitted is not None and compound is not None:
            said.append(f"the fitted optimum against the paper's mix: {_says(fitted['to_compound'])}")
        if fitted is not None and fitted["name"] != at["best_single"] and single:
            said.append(f"the fitted optimum against {single}: {_says(fitted['to_single'])}")
        if said:
            yield (
                f"At ×{at['factor']:g}, {'; '.join(said)}. "
                f"A difference of {100 * at['detects']:.2f} points between two that were chosen beforehand shows four "
                "times in five."
            )


def _says(difference: Interval | None) -> str:
    if difference is None:
        return "is the same network, and **ties**"
    return f"**{verdict(difference)}**, {_points(difference, '95 % interval ')}"


def arm_named(at: Values, name: str) -> Values | None:
    return next((arm for arm in at["arms"] if name in arm["names"]), None)


def _alone(at: Values) -> str:
    """What people call the best single dimension; nothing where no arm moves one alone."""
    names: Sequence[str] = next((arm["names"] for arm in at["arms"] if arm["name"] == at["best_single"]), [])
    return next((name for name in names if name in DIMENSIONS), next(iter(names), ""))


def _coefficients(study: Study) -> str:
    surface = study.values["surface"]
    if surface is None:
        return f"No coefficients: {study.values['why_no_surface']}."
    optimum = " / ".join(f"{100 * surface['optimum'][dimension]:.0f}" for dimension in DIMENSIONS)
    # The optimum lies between the grid's mixes, and may be the best one as well.
    columns = zip(*surface["compatible"], [surface["optimum"][dimension] for dimension in DIMENSIONS], strict=True)
    ranges = ", ".join(
        f"{name} {100 * min(column):.0f} to {100 * max(column):.0f} %"
        for name, column in zip(DIMENSIONS, columns, strict=True)
    )
    own = " / ".join(f"{100 * share:.0f}" for share in _paper())
    said = [
        "Fitted: α = {alpha:.3f}, β = {beta:.3f}, γ = {gamma:.3f}".format(**surface)
        + f" (depth / width / resolution {optimum} % of the growth).",
        f"95 % set: {ranges}; {len(surface['compatible'])} of the {len(surface['grid'])} mixes looked at.",
        f"The paper's mix ({own} %) is {'in' if holds_paper(study) else 'not in'} it.",
    ]
    if not describes(study):
        said.append(f"The surface does not describe the arms (lack of fit: p = {surface['lack_of_fit']:.2g}).")
    return " ".join(said)


def _paper() -> tuple[float, float, float]:
    rule = RULES["compound"]
    assert isinstance(rule, Power)
    return rule.exponents.depth, rule.exponents.width, rule.exponents.resolution


def holds_paper(study: Study) -> bool:
    """Whether the mix of the grid that is nearest to the paper's may be the best one."""
    surface = study.values["surface"]
    nearest = min((mix(point[:3]) for point in surface["grid"]), key=lambda one: dist(one, _paper()))
    return nearest in map(mix, surface["compatible"])


def describes(study: Study) -> bool:
    """Whether the fitted surface describes its arms: no significant lack of fit."""
    p = study.values["surface"]["lack_of_fit"]
    return p is None or p >= MISFIT


def mix(point: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(share, 6) for share in point)


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
