"""What a search finds, as the plain values that its page is made of: nine candidates around a network of three stages,
three rungs, three finalists."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean, stdev
from typing import Any

from triscale.arch import Architecture, Basic, FusedMBConv, Head, MBConv, Stage, Stem, to_dict
from triscale.costing import cost
from triscale.data import Augment
from triscale.plain import to_plain
from triscale.training import Recipe

REFERENCE = Architecture(
    stem=Stem(8, stride=1),
    stages=(
        Stage(MBConv(3, 1), 8),
        Stage(MBConv(5, 6), 16, repeats=2, stride=2),
        Stage(MBConv(3, 6), 24, repeats=2, stride=2),
    ),
    head=Head(5, 64),
    resolution=(16, 16),
    name="tiny_net",
)
BLOCKS = (MBConv(5, 4, 0.0), FusedMBConv(3, 4), Basic(5))
LIMIT, RUNGS, FINALISTS, WINNER = 2_100_000.0, [1, 3, 9], [4, 1, 7], 4
FINAL = (1, 2, 3)  # seeds of the runs that judge; by the first one, 0, candidates are chosen
RECIPE = Recipe(9, batch=80, augment=Augment(shift=0.1, flip=True, policy="randaugment", mixup=0.2))
T = 4.302652729911275  # Student's, two degrees of freedom, 97.5 %


def network(order: int) -> Architecture:
    """Of a candidate: a block of another kind in one stage, and in the last channels, repeats and shortcut."""
    at = order % 3
    stages = list(REFERENCE.stages)
    stages[at] = replace(stages[at], block=BLOCKS[order // 3])
    skip = "none" if order % 2 else "identity"
    stages[2] = replace(stages[2], channels=16 + 8 * (order % 4), repeats=1 + order % 3, skip=skip)
    return replace(REFERENCE, stages=tuple(stages), name="candidate")


def interval(values: Sequence[float]) -> list[float]:
    """[mean, low, high] of three."""
    mean, half = fmean(values), T * stdev(values) / math.sqrt(3)
    return [mean, mean - half, mean + half]


def final(order: int) -> list[float]:
    """What the final runs of a network reach, seed by seed."""
    return [_end(order) + 0.002 * place * (-1) ** order for place in range(len(FINAL))]


def gain(order: int) -> list[float]:
    """[mean, low, high] of what it reaches more than the reference."""
    return interval([a - b for a, b in zip(final(order), final(-1), strict=True)])


def _end(order: int) -> float:
    return 0.8 + 0.004 * order + (0.02 if order == WINNER else 0.0)


def candidate(order: int) -> dict[str, Any]:
    """order: -1 for the reference."""
    made, judged = REFERENCE if order < 0 else network(order), order < 0 or order in FINALISTS
    last = 2 if judged or order == 2 else order % 2
    reached = [] if order < 0 else [_end(order) - (0.3, 0.1, 0.0)[place] for place in range(last + 1)]
    runs = [
        {"epochs": epochs, "seed": 0, "accuracy": accuracy, "seconds": 4.0 * epochs + order, "final": False}
        for epochs, accuracy in zip(RUNGS, reached, strict=False)
    ]
    runs += [
        {"epochs": RUNGS[-1], "seed": seed, "accuracy": accuracy, "seconds": 37.0 + order, "final": True}
        for seed, accuracy in zip(FINAL, final(order), strict=True)
        if judged
    ]
    full = final(order) if judged else [run["accuracy"] for run in runs if run["epochs"] == RUNGS[-1]]
    median = 0.003 + 0.0001 * order
    return {
        "order": order,
        "label": "reference" if order < 0 else f"candidate {order}",
        "network": to_dict(made),
        "choices": None if order < 0 else {"stages.2.skip": made.stages[2].skip, "stages.2.repeats": order % 3 - 1},
        "macs": cost(made).macs,
        "params": cost(made).params,
        "costs": {"macs": float(cost(made).macs)},
        "used": cost(made).macs / LIMIT,
        "latency": {"median": median, "low": median - 0.001, "high": median + 0.002, "n": 11}
        | {"device": "cpu", "threads": 2, "engine": "native", "precision": "fp32"},
        "rung": last,
        "runs": runs,
        "accuracy": None if not full else interval(full) if len(full) == 3 else full,
        "value": fmean(full) if full else None,
        "gain": gain(order) if order in FINALISTS else None,
    }


@cache
def _search() -> str:
    reference, candidates = candidate(-1), [candidate(order) for order in range(9)]
    runs = [run for one in (reference, *candidates) for run in one["runs"]]
    mean = [0.51, 0.47, 0.55]
    values = {
        "schema": 1,
        "triscale": "0.1.0",
        "finished": True,
        "objective": {"kind": "constraint", "limits": {"macs": LIMIT}, "exponent": -0.07, "band": [0.85, 1.0]},
        "strategy": "evolution",
        "seed": 3,
        "data": "1643f6",
        "selection_images": 1_234,
        "asked": {"time": None, "candidates": 10},
        "calibrated": None,
        "space": {"name": "around tiny_net", "points": 6.14e21, "networks": 5184.0},
        "images": 1293,
        "rungs": RUNGS,
        "recipe": to_plain(RECIPE),
        "how": {"device": "cpu", "precision": "bf16", "threads": 1, "kernels": True},
        "workers": 2,
        "reference": reference,
        "candidates": candidates,
        "used_up": False,
        "failed": 0,
        "finalists": FINALISTS,
        "winner": WINNER,
        "judged": {"seeds": list(FINAL), "out_of": len(FINALISTS)},
        "gain": gain(WINNER),
        "curve": [[60.0, 5, 0.79], [120.0, 9, 0.804], [200.0, 12, 0.836]],
        "learned": [
            {
                "choice": "stages.2.skip",
                "values": [{"value": "identity", "n": 5, "mean": mean}, {"value": "none", "n": 1, "mean": [0.443]}],
                "explained": 0.371,
            },
            {
                "choice": "stages.1.repeats",
                "values": [{"value": -1, "n": 4, "mean": [0.46, 0.4, 0.52]}, {"value": 1, "n": 2, "mean": mean}],
                "explained": 0.0,
            },
        ],
        "time": {"seconds": 221.8, "trials": len(runs), "trained": sum(run["seconds"] for run in runs), "workers": 2}
        | {"share_of_trials": 0.843, "share_without_trials": 0.11},
    }
    return json.dumps(values)


def search() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(_search())
    return values


def plain() -> dict[str, Any]:
    """A search whose page needs few plots."""
    values = search() | {"learned": [], "curve": []}
    for one in (values["reference"], *values["candidates"]):
        one["latency"] = None
    return values


def control(seed: int = 0, height: float = 0.81, strategy: str = "random") -> dict[str, Any]:
    """A random search on the same images under the same limit, whose leader ends at that height."""
    return search() | {
        "strategy": strategy,
        "seed": seed,
        "curve": [[50.0 + seed, 4, height - 0.03], [150.0, 10, height]],
    }


def reference_won() -> dict[str, Any]:
    return search() | {"winner": -1, "gain": None}


def unfinished() -> dict[str, Any]:
    """Halving goes on: nothing has a second seed, and the reference was not trained yet."""
    values = search() | {"finished": False, "winner": None, "judged": None, "gain": None, "time": None, "finalists": []}
    for one in values["candidates"]:
        one["runs"] = [run for run in one["runs"] if run["seed"] == 0]
        full = [run["accuracy"] for run in one["runs"] if run["epochs"] == RUNGS[-1]]
        one |= {"latency": None, "accuracy": full or None, "value": full[0] if full else None, "gain": None}
    values["reference"] |= {"runs": [], "rung": -1, "accuracy": None, "value": None, "latency": None}
    return values


def begun() -> dict[str, Any]:
    """Before the first trial ended."""
    return unfinished() | {"candidates": [], "curve": [], "learned": []}


def limited(kind: str, **limits: float) -> dict[str, Any]:
    """Under other limits, by another objective."""
    values = search()
    values["objective"] |= {"kind": kind, "limits": limits}
    for one in (values["reference"], *values["candidates"]):
        known = {"macs": one["macs"], "params": one["params"], "latency": 0.9 * one["latency"]["median"]}
        known |= {"activations": 90_000.0, "size": 4.0 * one["params"], "memory": 5.0 * one["params"]}
        one["costs"] = {term: float(known[term]) for term in limits}
        one["used"] = max(known[term] / limit for term, limit in limits.items())
    return values
