"""What a search leaves behind: network.json, which every verb takes by its path; search.json, from which its page is
made; space.json, to change and search again."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from triscale.arch import Architecture, to_json
from triscale.arch.resolve import FOUND
from triscale.engines import Latency, measure_latency
from triscale.errors import UserError
from triscale.nn import build
from triscale.plain import read_json
from triscale.reporting.search import write_search_page
from triscale.runs import RunDirectory, write_whole
from triscale.searching.halving import Candidate, Search
from triscale.searching.values import SCHEMA, search_values, worth

RESULT, SPACE = "search.json", "space.json"
TIMED = 40  # networks whose latency is measured, the best first; more where more were judged


@dataclass(frozen=True, eq=False)
class Searched:
    """A finished search. network: the best that it found; the reference where nothing was better. values: what
    search.json holds."""

    run: RunDirectory
    network: Architecture
    values: Mapping[str, Any]


def write_search(run: RunDirectory, search: Search, time: object) -> Searched:
    """Measures latencies, names the winner and writes the files."""
    latencies = _latencies(search)
    winner = name_winner(search, latencies)
    name = f"{search.setup.reference.name[:100]}-searched"
    network = search.setup.reference if winner is search.reference else replace(winner.network, name=name)
    values = search_values(search, latencies, winner, time)
    write_whole(run.path / FOUND, to_json(network))
    write_whole(run.path / SPACE, json.dumps(search.setup.space.to_dict(), indent=1) + "\n")
    write_search_page(run.report, values, _still_there(search.setup.beside))
    write_whole(run.path / RESULT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")  # last: it says that all is
    return Searched(run, network, values)


def write_page(run: RunDirectory, search: Search) -> None:
    """The page of a search that goes on."""
    write_search_page(run.report, search_values(search, {}, None, None), _still_there(search.setup.beside))


def others(places: Sequence[Path], out: str | Path) -> list[Mapping[str, Any]]:
    """search.json of other searches than the one at `out`. Raises `UserError` where one is none, or is that one, or is
    named twice: the page would take it for one more that found the same."""
    known: list[Path] = []
    for place in places:
        if place.resolve() == Path(out).resolve():
            raise UserError(f"--beside {place}: is this search itself, which its page shows anyway; leave it out")
        if place.resolve() in known:
            raise UserError(f"--beside {place}: is named twice; name every search once")
        known.append(place.resolve())
    return [_other(str(place)) for place in places]


def _still_there(places: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The same of those that can be read: no search is lost because another one was moved."""
    found = []
    for place in places:
        with suppress(UserError):
            found.append(_other(place))
    return found


def _other(place: str) -> Mapping[str, Any]:
    path = Path(place) / RESULT
    try:
        values = read_json(path.read_bytes(), str(path))
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"--beside {place}: no finished search ({why}); name the --out of one") from None
    if not isinstance(values, dict) or values.get("schema") != SCHEMA or values.get("finished") is not True:
        raise UserError(f"--beside {place}: {RESULT} is not of a finished search of this version")
    return values


def name_winner(search: Search, latencies: Mapping[int, Latency]) -> Candidate:
    """Of all that were judged and the reference the one with the highest mean worth over the seeds that all were
    trained with, by its latency at rest where that was measured; where it is limited, of those that hold it so."""
    limit = search.setup.objective.limits.get("latency")
    able = [one for one in (*search.judged, search.reference) if not one.failed]
    if limit is not None and search.setup.objective.kind == "constraint":
        held = [one for one in able if one.order in latencies and latencies[one.order].median <= limit]
        able = held or [search.reference]

    def rank(one: Candidate) -> tuple[float, int]:
        value = worth(search, one, latencies)
        return float("-inf") if value is None else value, -one.order

    return max(able, key=rank)


def _latencies(search: Search) -> dict[int, Latency]:
    """Batch 1, in turns: of the reference, all that were judged and what else went furthest."""
    rungs = search.setup.rungs
    judged = search.judged
    rest = sorted(
        (one for one in search.candidates.values() if one.rung(rungs) >= 0 and one not in judged),
        key=lambda one: (-one.rung(rungs), one.order),
    )
    first = [search.reference, *judged]
    timed = [*first, *rest[: max(0, TIMED - len(first))]]
    device = torch.device(search.setup.how.device)
    measured = measure_latency([build(one.network) for one in timed], device=device)
    return {one.order: latency for one, latency in zip(timed, measured, strict=True)}
