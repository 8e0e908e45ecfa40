"""What a study finds, as the plain values that its page is made of: two factors, a surface, six mixes."""

import json
import math
from functools import cache
from typing import Any

from triscale.plain import to_plain
from triscale.training import Recipe

TOP = (0.25, 0.45, 0.3)
MIXES = {
    "depth": (1.0, 0.0, 0.0),
    "width": (0.0, 1.0, 0.0),
    "resolution": (0.0, 0.0, 1.0),
    "uniform": (0.34, 0.33, 0.33),
    "compound": (0.28, 0.29, 0.43),
    "depth+width": (0.5, 0.5, 0.0),
}
GRID = [(d / 20, w / 20, (20 - d - w) / 20) for d in range(21) for w in range(21 - d)]


def height(mix: tuple[float, ...]) -> float:
    return 0.85 - 0.06 * sum((a - b) ** 2 for a, b in zip(mix, TOP, strict=True))


SET = [mix for mix in GRID if height(mix) > 0.849]


def named(mix: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("depth", "width", "resolution"), mix, strict=True))


def arm(place_: int, name: str, factor: float) -> dict[str, Any]:
    mix = MIXES.get(name, TOP)
    mean, jitter = height(mix) + 0.03 * math.log2(factor), 0.0001 * place_
    return {
        "name": name,
        "names": [name],
        "asked_shares": named(mix),
        "shares": named(mix),
        "multipliers": {"depth": 1.1 + jitter, "width": 1.2 + jitter, "resolution": 1.3 + jitter},
        "asked": factor,
        "nominal": factor * (1.01 + jitter),
        "realised": factor * (0.99 + jitter),
        "trim": place_ % 3,
        "blocks": [1, 2 + place_],
        "channels": [16, 24 + place_],
        "resolution": [20 + place_, 20 + place_],
        "upscaled": place_ > 4,
        "macs": int(1e7 * factor * (0.99 + jitter)),
        "params": 1_000_000 + 1000 * place_,
        "latency": {
            "median": (0.004 + jitter),
            "low": 0.003 + jitter,
            "high": 0.006 + jitter,
            "n": 11,
            "device": "cpu",
            "threads": 2,
            "engine": "native",
            "precision": "fp32",
        },
        "selection": [mean - 0.001, mean, mean + 0.001],
        "selection_mean": [mean, mean - 0.004, mean + 0.004],
        "test": [mean - 0.011, mean - 0.01, mean - 0.009],
        "test_mean": [mean - 0.01, mean - 0.015, mean - 0.005],
        "seconds": 30.0,
        "tied": name in ("compound", "uniform", "fitted"),
        "to_compound": None if name == "compound" else [0.001 + jitter, -0.002, 0.004],
        "to_single": None if name == "width" else [0.012 + jitter, 0.007, 0.017],
    }


def at_factor(factor: float, names: list[str]) -> dict[str, Any]:
    arms = [arm(place_, name, factor) for place_, name in enumerate(names)]
    return {
        "factor": factor,
        "sigma": 0.0042,
        "df": 10,
        "detects": 0.0087,
        "needed": 43,
        "best": "compound" if factor == 2 else "fitted",
        "best_single": "width",
        "tied": [one["name"] for one in arms if one["tied"]],
        "arms": arms,
    }


@cache
def _study() -> str:
    line = {"seeds": 3, "twice": True, "images": 8000, "epochs": 6, "seconds": 3600.0, "detects": 0.0099}
    found = {"alpha": 1.189, "beta": 1.169, "gamma": 1.11, "shares": named(TOP), "about": "the optimum of a surface"}
    values = {
        "schema": 1,
        "triscale": "0.1.0",
        "finished": True,
        "factor": 2.0,
        "design": {"name": "six", "about": "six mixes"},
        "seeds": [0, 1, 2],
        "images": 8000,
        "epochs": 6,
        "pixels": [24, 24],
        "how": {"device": "cpu", "precision": "bf16", "threads": 1, "kernels": True},
        "recipe": to_plain(Recipe(epochs=6)),
        "noise": 0.0031,
        "ladder": [
            {"design": "five", "arms": 5, "trials": 30, "chosen": False} | line,
            {"design": "six", "arms": 6, "trials": 33, "chosen": True} | line,
        ],
        "baseline": {
            "name": "efficientnet_b0",
            "macs": 10_000_000,
            "params": 900_000,
            "resolution": [20, 20],
            "selection": [0.79, 0.8, 0.81],
            "test": [0.78, 0.79, 0.8],
        },
        "factors": [at_factor(2.0, list(MIXES)), at_factor(4.0, ["fitted", "width", "compound", "uniform"])],
        "surface": {
            "model": "quadratic",
            "coefficients": [0.8] * 6,
            "sigma": 0.0042,
            "df": 10,
            "lack_of_fit": 0.41,
            "slope_per_doubling": 0.0312,
            "optimum": named(TOP),
            "alpha": 1.189,
            "beta": 1.169,
            "gamma": 1.11,
            "ranges": {
                **{
                    name: [min(column), max(column)]
                    for name, column in zip(named(TOP), zip(*SET, strict=True), strict=True)
                },
                "alpha": [1.0, 1.21],
                "beta": [1.1, 1.31],
                "gamma": [1.05, 1.26],
            },
            "compatible": SET,
            "grid": [[*mix, height(mix), 0.002] for mix in GRID],
        },
        "why_no_surface": None,
        "recommended": {
            "fitted": found | {"baseline": "efficientnet_b0"},
            "fastest": found | {"shares": named(MIXES["uniform"]), "arm": "uniform", "latency": 0.0043},
        },
        "time": {"seconds": 7200.0, "trained": 13000.0, "trials": 33, "workers": 2, "share_of_trials": 0.903}
        | {"share_without_trials": 0.021},
    }
    return json.dumps(values)


def study() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(_study())
    return values


def unfinished() -> dict[str, Any]:
    values = study() | {"finished": False, "time": None, "recommended": {"fitted": None, "fastest": None}}
    values["baseline"]["test"] = None
    values["factors"] = values["factors"][:1]
    for one in values["factors"][0]["arms"]:
        one |= dict.fromkeys(("test", "test_mean", "to_compound", "to_single", "latency"))
    return values


def plain() -> dict[str, Any]:
    """A study whose page needs few plots."""
    values = study() | {"surface": None, "why_no_surface": "the arms are too few"}
    values["recommended"]["fitted"] = None
    values["factors"] = values["factors"][:1]
    return values
