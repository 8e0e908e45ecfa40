"""What a study leaves behind: study.json, from which its page is made, and coefficients files for `--rule`."""

import json
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import torch

from triscale.arch import to_json
from triscale.engines import Latency, measure_latency
from triscale.nn import build
from triscale.reporting.study import write_study_page
from triscale.runs import write_whole
from triscale.scaling import Coefficients, Exponents
from triscale.studies.conclusions import Conclusions, Fit
from triscale.studies.setup import Setup
from triscale.studies.study import Studied
from triscale.studies.values import (
    PRODUCT,
    SCHEMA,
    Latencies,
    baseline_values,
    factor_values,
    shared_values,
    surface_values,
)
from triscale.trials import time_values

RESULT, BASELINE = "study.json", "baseline.json"
COEFFICIENTS, FASTEST = "coefficients.json", "coefficients-fastest.json"


def write_study(studied: Studied) -> Studied:
    """Measures latencies and writes the files; the same study, with what study.json holds."""
    latencies = _latencies(studied)
    values = study_values(studied, latencies)
    write_whole(studied.run.path / BASELINE, to_json(studied.setup.baseline))
    for name, key in ((COEFFICIENTS, "fitted"), (FASTEST, "fastest")):
        found = values["recommended"][key]
        if found is not None:
            write_whole(studied.run.path / name, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        else:  # of the study before it was extended
            (studied.run.path / name).unlink(missing_ok=True)
    write_study_page(studied.run.report, values)
    # Last: it says that all is there.
    write_whole(studied.run.path / RESULT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return replace(studied, values=values)


def _latencies(studied: Studied) -> Latencies:
    """Of every arm's network, by its label: batch 1, all of one factor in turns."""
    found: dict[str, Latency] = {}
    device = torch.device(studied.setup.how.device)
    for at in studied.found.factors:
        networks = [build(arm.grown.network) for arm in at.arms]
        measured = measure_latency(networks, device=device)
        found |= {arm.grown.label: one for arm, one in zip(at.arms, measured, strict=True)}
    return found


def study_values(studied: Studied, latencies: Latencies) -> dict[str, Any]:
    """Plain values of a finished study."""
    setup, found = studied.setup, studied.found
    return {
        "schema": SCHEMA,
        "triscale": version("triscale"),
        "finished": True,
        **shared_values(setup, studied.choice),
        "baseline": baseline_values(setup, found),
        "factors": [factor_values(at, latencies) for at in found.factors],
        "surface": None if found.fit is None else surface_values(found.fit),
        "why_no_surface": found.why_no_fit,
        "recommended": {
            "fitted": None if found.fit is None else _fitted(found.fit, setup),
            "fastest": _fastest(found, latencies),
        },
        "time": time_values(studied.spent, studied.trials, studied.trained),
    }


def _fitted(fit: Fit, setup: Setup) -> dict[str, Any]:
    how = f"the optimum of a {fit.surface.model} surface over the arms at a factor of {setup.factor:g}"
    return _coefficients(fit.optimum, how, setup.baseline.name)


def _fastest(found: Conclusions, latencies: Latencies) -> dict[str, Any] | None:
    """Of the arms that are tied with the best of the first factor the one that takes least time for an image here."""
    if not found.factors:
        return None
    at = found.factors[0]
    timed = [(latencies[arm.grown.label].median, arm) for arm in at.tied if arm.grown.label in latencies]
    if not timed:
        return None
    took, arm = min(timed, key=lambda pair: pair[0])
    how = f"{arm.name}: the fastest here of the {len(timed)} arms that are tied with the best, {1e3 * took:.3g} ms"
    return _coefficients(arm.grown.arm.shares, how, "") | {"arm": arm.name, "latency": took}


def _coefficients(shares: Exponents, how: str, baseline: str) -> dict[str, Any]:
    found: Coefficients = shares.coefficients(PRODUCT)
    values: dict[str, Any] = asdict(found) | {"shares": asdict(shares), "about": how}
    return values | ({"baseline": baseline} if baseline else {})
