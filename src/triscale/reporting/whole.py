"""The page of a run of all stages: what was found, what it brought, and where each stage's own page lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triscale.reporting.templating import render
from triscale.runs import write_whole

Values = Mapping[str, Any]
TIED = "not shown to differ"
ALIKE = 0.03  # of the MACs: closer than that networks count as equally large


@dataclass(frozen=True, slots=True)
class Searched:
    """tried: how many networks. macs, resolution (height, width): the baseline's. gain: its validation accuracy less
    the reference's, with a 95 % interval where there is one. reference: whether it is the reference itself."""

    tried: int
    macs: int
    resolution: Sequence[int]
    gain: Sequence[float] | None
    reference: bool


@dataclass(frozen=True, slots=True)
class Studied:
    """surface: the fitted one, with the coefficients; where there is none, why. arms: how many at each factor. tied:
    those that are tied with the best at the first."""

    surface: Values | None
    why: str | None
    arms: Sequence[int]
    tied: Sequence[str]


@dataclass(frozen=True, slots=True)
class WholePage:
    """values: whole.json. networks: of its result, the grown one first, each with its verdict."""

    values: Values
    networks: Sequence[tuple[Values, str]]
    searched: Searched | None
    studied: Studied | None
    claim: str
    to_come: Sequence[str]


def write_whole_page(
    path: Path, values: Values, searched: Values | None, studied: Values | None, to_come: Sequence[str] = ()
) -> None:
    """The page, whole. values: whole.json; searched, studied: of the stages that there were; to_come: networks of the
    zoo that are not trained yet."""
    networks = values["result"]["networks"]
    page = WholePage(
        values=values,
        networks=[(row, verdict(row)) for row in networks],
        searched=None if searched is None else _searched(searched),
        studied=None if studied is None else _studied(studied),
        claim=claim(networks),
        to_come=to_come,
    )
    write_whole(path, render("whole.html.j2", page))


def verdict(row: Values) -> str:
    """How a network of the zoo stands to the grown one, by the interval of their paired difference."""
    if row["apart"] is None:
        return ""
    _, low, high = row["apart"]
    if high < 0:
        return "worse"
    return "better" if low > 0 else TIED


def claim(networks: list[Values]) -> str:
    """In a sentence, whether the work was worth it."""
    by: dict[str, list[str]] = {"worse": [], "better": [], TIED: []}
    for row in networks[1:]:
        by[verdict(row)].append(row["name"])
    parts = []
    if by["worse"]:
        parts.append(f"better than {_listed(by['worse'])}")
    if by[TIED]:
        parts.append(f"not shown to differ from {_listed(by[TIED])}")
    if by["better"]:
        parts.append(f"worse than {_listed(by['better'])}")
    alike = all(abs(row["macs"] / networks[0]["macs"] - 1) < ALIKE for row in networks[1:])
    at = "At the same MACs" if alike else "Beside networks of other MACs (see the table)"
    return f"{at} the grown network is {', '.join(parts)}." if parts else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _searched(values: Values) -> Searched:
    by_order = {one["order"]: one for one in (values["reference"], *values["candidates"])}
    found = by_order[values["winner"]]
    return Searched(
        tried=len(values["candidates"]),
        macs=found["macs"],
        resolution=found["network"]["resolution"],
        gain=values["gain"],
        reference=values["winner"] == -1,
    )


def _studied(values: Values) -> Studied:
    factors = values["factors"]
    return Studied(
        surface=values["surface"],
        why=values["why_no_surface"],
        arms=[len(at["arms"]) for at in factors],
        tied=factors[0]["tied"] if factors else [],
    )
