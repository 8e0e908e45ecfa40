"""The page of a run of all stages: what was found, what it brought, and where each stage's own page lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triscale.reporting.templating import render
from triscale.runs import write_whole

Values = Mapping[str, Any]
TIED = "not shown to differ"
ALIKE = 0.03  # of the MACs: closer than that networks count as equally large


def write_whole_page(
    path: Path, values: Values, searched: Values | None, studied: Values | None, to_come: Sequence[str] = ()
) -> None:
    """The page, whole. values: whole.json; searched, studied: of the stages that there were; to_come: networks of the
    zoo that are not trained yet."""
    networks = values["result"]["networks"]
    page = {
        "values": values,
        "grown": networks[0],
        "networks": [row | {"verdict": verdict(row)} for row in networks],
        "searched": None if searched is None else _searched(searched),
        "studied": None if studied is None else _studied(studied),
        "claim": claim(networks),
        "to_come": to_come,
    }
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


def _searched(values: Values) -> dict[str, Any]:
    by_order = {one["order"]: one for one in (values["reference"], *values["candidates"])}
    found = by_order[values["winner"]]
    return {
        "tried": len(values["candidates"]),
        "macs": found["macs"],
        "resolution": found["network"]["resolution"],
        "gain": values["gain"],
        "reference": values["winner"] == -1,
    }


def _studied(values: Values) -> dict[str, Any]:
    surface = values["surface"]
    return {
        "surface": surface,
        "why": values["why_no_surface"],
        "arms": [len(at["arms"]) for at in values["factors"]],
        "tied": values["factors"][0]["tied"] if values["factors"] else [],
    }
