"""A search as plain values: what search.json holds and its page is made from."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from triscale.arch import to_dict
from triscale.costing import cost
from triscale.engines import Latency
from triscale.plain import to_plain
from triscale.searching.halving import FINAL, Candidate, Run, Search
from triscale.searching.setup import Setup
from triscale.stats import Estimate
from triscale.studies.comparing import compare_arms, paired_seeds

SCHEMA = 1
CONFIDENCE = 0.95

Latencies = Mapping[int, Latency]
"""By the order of the candidate, -1 for the reference."""


@dataclass(frozen=True)
class Judged:
    """What the final runs say, by the order of the network (-1: the reference), each (value, low, high) of 95 %.

    seeds: those of the final runs, by which no finalist was chosen. means: of the accuracy, over further seeds too.
    gains: over the reference, paired by seed; each interval holds although the best of them is named. The noise of a
    run is estimated from all of them together (`studies.comparing`): three seeds of one network alone would be a guess.
    """

    seeds: Sequence[int]
    means: Mapping[int, Estimate]
    gains: Mapping[int, Estimate]

    def to_json(self) -> dict[str, Any] | None:
        """Plain values: which seeds judged, and among how many gains the winner's was picked."""
        return {"seeds": list(self.seeds), "out_of": len(self.gains)} if self.gains else None


def judge(search: Search) -> Judged:
    """Of the finalists, those before them and the reference, as far as they were trained with the same seeds."""
    top = search.setup.top
    seeds = [seed for seed in FINAL if (top, seed) in search.reference.outcomes]
    able = [one for one in search.judged if all((top, seed) in one.outcomes for seed in seeds)]
    if len(seeds) < 2 or not able:
        return Judged((), {}, {})
    arms = [search.reference, *able]
    y = np.array([[one.outcomes[top, seed].selection for seed in seeds] for one in arms])
    found = compare_arms(y)
    gains = {}
    for one, row in zip(able, y[1:], strict=True):
        gain = paired_seeds(row, y[0], found.sigma, found.df, out_of=len(able))
        gains[one.order] = Estimate(gain.value, max(-1.0, gain.low), min(1.0, gain.high))
    means = (Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high)) for mean in found.means)
    return Judged(seeds, {one.order: mean for one, mean in zip(arms, means, strict=True)}, gains)


def search_values(search: Search, latencies: Latencies, winner: Candidate | None, time: object) -> dict[str, Any]:
    """Everything that a page or another search needs. winner: None while the search goes on."""
    setup = search.setup
    tried = [one for one in search.candidates.values() if one.outcomes]
    judged = judge(search)
    return {
        "schema": SCHEMA,
        "triscale": version("triscale"),
        "finished": winner is not None,
        "objective": {
            "kind": setup.objective.kind,
            "limits": dict(setup.objective.limits),
            "exponent": setup.objective.exponent,
            "band": list(setup.objective.band),
        },
        "strategy": setup.strategy,
        "seed": setup.seed,
        "data": setup.data,
        "selection_images": setup.selection,
        "asked": {"time": setup.time, "candidates": setup.candidates},
        "calibrated": search.calibrated,
        "space": _space_values(setup),
        "images": setup.images,
        "rungs": list(setup.rungs),
        "recipe": to_plain(setup.recipe),
        "how": asdict(setup.how),
        "workers": search.slots(),
        "reference": candidate_values(search, search.reference, latencies, judged),
        "candidates": [candidate_values(search, one, latencies, judged) for one in tried],
        "used_up": search.used_up,
        "failed": sum(bool(one.failed) for one in search.candidates.values()),
        "finalists": [one.order for one in search.judged],
        "winner": None if winner is None else winner.order,
        "judged": judged.to_json(),
        "gain": None if winner is None else _bounds(judged.gains.get(winner.order)),
        "curve": curve(search),
        "learned": learned(search),
        "time": time,
    }


def _space_values(setup: Setup) -> dict[str, Any]:
    space = setup.space
    return {"name": space.name, "points": float(space.space.size), "networks": float(space.networks)}


def candidate_values(search: Search, one: Candidate, latencies: Latencies, judged: Judged) -> dict[str, Any]:
    """A network, its costs, and every run. order: -1 for the reference."""
    total, setup = cost(one.network), search.setup
    latency = latencies.get(one.order)
    full = full_runs(search, one)
    return {
        "order": one.order,
        "label": one.label,
        "network": to_dict(one.network),
        "choices": None if one.codes is None else dict(setup.space.space.decode(one.codes)),
        "macs": total.macs,
        "params": total.params,
        "costs": dict(one.costs),
        "used": setup.objective.used(costs_at_rest(one, latencies)),
        "latency": None if latency is None else asdict(latency),
        "rung": one.rung(setup.rungs),
        "runs": [
            {
                "epochs": epochs,
                "seed": seed,
                "accuracy": outcome.selection,
                "seconds": outcome.seconds,
                "final": epochs == setup.top and seed in FINAL,
            }
            for (epochs, seed), outcome in sorted(one.outcomes.items())
        ],
        "accuracy": _bounds(judged.means.get(one.order)) or _mean([one.outcomes[run].selection for run in full]),
        "value": worth(search, one, latencies),
        "gain": _bounds(judged.gains.get(one.order)),
    }


def full_runs(search: Search, one: Candidate) -> list[Run]:
    """Its full trainings that it is judged by: the final ones; before there are any, that by which it was chosen."""
    full = sorted(run for run in one.outcomes if run[0] == search.setup.top)
    return [run for run in full if run[1] in FINAL] or full


def worth(search: Search, one: Candidate, latencies: Latencies) -> float | None:
    """The mean worth of its full trainings, at what it costs at rest; None before any ended."""
    objective, costs = search.setup.objective, costs_at_rest(one, latencies)
    values = [objective.value(one.outcomes[run].selection, costs) for run in full_runs(search, one)]
    return fmean(values) if values else None


def costs_at_rest(one: Candidate, latencies: Latencies) -> dict[str, float]:
    """With the latency at rest once it is known, not as it was measured beside trials."""
    latency = latencies.get(one.order)
    at_rest = {} if latency is None or "latency" not in one.costs else {"latency": latency.median}
    return {**one.costs, **at_rest}


def _bounds(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _mean(values: Sequence[float]) -> list[float] | None:
    """[mean, low, high] with the t interval; of a single value the bounds are infinite, and so left out."""
    if not values:
        return None
    mean = fmean(values)
    if len(values) < 2:
        return [mean]
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return [mean, mean - half, mean + half]


def curve(search: Search) -> list[list[float]]:
    """[seconds spent by all workers, trials, the leader's accuracy in a full training]: after every trial that
    changed it. The leader is the candidate whose only full training so far, with the first seed, is worth most. Counted
    are the candidates' trials in the rungs: final runs and the reference's choose nobody who leads."""
    found: list[list[float]] = []
    spent, best = 0.0, None
    top = search.setup.top, 0
    rungs = [(one, run) for one, run in search.ends if one.codes is not None and run[1] == 0]
    for count, (one, run) in enumerate(rungs, start=1):
        spent += one.outcomes[run].seconds
        if run == top:
            value = search.value(one, run)
            if best is None or value > best:
                best = value
                found.append([spent, count, one.outcomes[run].selection])
    return found


def learned(search: Search) -> list[dict[str, Any]]:
    """Of every choice with several values: for each value how many candidates had it, and their mean worth in the first
    rung, with its 95 % interval. The choices that set candidates apart most stand first.

    A description: few candidates were drawn at random, and other choices differ too. Those that could not be trained
    are left out.
    """
    known = [scored for scored in search.known().history if math.isfinite(scored.value)]
    space = search.setup.space.space
    found = []
    for place, (name, values) in enumerate(zip(space.names, space.values, strict=True)):
        by_value: dict[int, list[float]] = defaultdict(list)
        for scored in known:
            by_value[scored.codes[place]].append(scored.value)
        if len(by_value) < 2:
            continue
        rows = [
            {"value": values[code], "n": len(by_value[code]), "mean": _mean(by_value[code])}
            for code in sorted(by_value)
        ]
        found.append({"choice": name, "values": rows, "explained": explained(list(by_value.values()))})
    return sorted(found, key=lambda one: -one["explained"])


def explained(groups: Sequence[Sequence[float]]) -> float:
    """The share of the variance between candidates that lies between the groups, corrected for their number (ω²). A
    group of one says nothing of the noise, and is left out; with fewer than two others there is no share."""
    groups = [group for group in groups if len(group) > 1]
    everything = [value for group in groups for value in group]
    n, k = len(everything), len(groups)
    total = sum((value - fmean(everything)) ** 2 for value in everything)
    within = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    if k < 2 or total <= 0:
        return 0.0
    noise = within / (n - k)
    return max(0.0, (total - within - (k - 1) * noise) / (total + noise))
