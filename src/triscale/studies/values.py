"""A study as plain values: what study.json holds and its page is made from."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from triscale.costing import cost
from triscale.engines import Latency
from triscale.plain import to_plain
from triscale.scaling import Exponents
from triscale.stats import Estimate
from triscale.studies.conclusions import ArmResult, AtFactor, Conclusions, Fit
from triscale.studies.designs import COMPOUND
from triscale.studies.setup import Choice, Setup
from triscale.studies.surface import simplex

SCHEMA = 1
STEPS = 20
PRODUCT = 2.0  # α·β²·γ² of the coefficients: one step of φ doubles the MACs

Latencies = Mapping[str, Latency]


def partial_values(setup: Setup, choice: Choice, found: Conclusions) -> dict[str, Any]:
    """The same of a study that is not over: what the selection images say so far; the test images stay sealed."""
    return {
        "schema": SCHEMA,
        "triscale": version("triscale"),
        "finished": False,
        **shared_values(setup, choice),
        "baseline": baseline_values(setup, found),
        "factors": [factor_values(at, {}) for at in found.factors],
        "surface": None if found.fit is None else surface_values(found.fit),
        "why_no_surface": found.why_no_fit,
        "recommended": {"fitted": None, "fastest": None},
        "time": None,
    }


def shared_values(setup: Setup, choice: Choice) -> dict[str, Any]:
    """What all trials share, and the ladder."""
    return {
        "factor": setup.factor,
        "design": {"name": choice.design.name, "about": choice.design.about},
        "seeds": [setup.seed + seed for seed in range(choice.seeds)],
        "images": setup.fidelity.images,
        "epochs": setup.fidelity.epochs,
        "pixels": setup.pixels,
        "how": asdict(setup.how),
        "recipe": to_plain(setup.recipe),
        "noise": choice.noise,
        "ladder": [dict(line) for line in choice.ladder],
    }


def baseline_values(setup: Setup, found: Conclusions) -> dict[str, Any]:
    """The network that grows."""
    total = cost(setup.baseline)
    return {
        "name": setup.baseline.name,
        "macs": total.macs,
        "params": total.params,
        "resolution": list(setup.baseline.resolution),
        "selection": found.baseline.tolist(),
        "test": None if found.baseline_test is None else found.baseline_test.tolist(),
    }


def factor_values(at: AtFactor, latencies: Latencies) -> dict[str, Any]:
    """All arms of a factor, and on the test images every arm's difference to the paper's mix and to the best single
    dimension."""
    tied = {arm.grown.label for arm in at.tied}
    compound, single = at.arm(COMPOUND), at.single()
    return {
        "factor": at.factor,
        "sigma": at.chosen.sigma,
        "df": at.chosen.df,
        "detects": at.detects,
        "needed": at.needed,
        "best": at.best.name,
        "best_single": None if single is None else single.name,
        "tied": [arm.name for arm in at.tied],
        "arms": [
            arm_values(arm, latencies.get(arm.grown.label))
            | {
                "tied": arm.grown.label in tied,
                "to_compound": None if compound is None else _estimate(at.difference(arm, compound)),
                "to_single": None if single is None else _estimate(at.difference(arm, single)),
            }
            for arm in at.arms
        ],
    }


def arm_values(arm: ArmResult, latency: Latency | None) -> dict[str, Any]:
    """One network: asked, nominal and realised; accuracies; what it takes."""
    grown = arm.grown
    total = grown.scaled.cost
    return {
        "name": arm.name,
        "names": list(arm.names),
        "asked_shares": asdict(grown.arm.shares),
        "shares": asdict(grown.shares),
        "multipliers": asdict(grown.scaled.multipliers),
        "asked": grown.factor,
        "nominal": grown.scaled.nominal,
        "realised": grown.scaled.realised,
        "trim": len(grown.scaled.trim),
        "blocks": [stage.repeats for stage in grown.network.stages],
        "channels": [stage.channels for stage in grown.network.stages],
        "resolution": list(grown.network.resolution),
        "upscaled": grown.upscaled,
        "macs": total.macs,
        "params": total.params,
        "latency": None if latency is None else asdict(latency),
        "selection": arm.selection.tolist(),
        "selection_mean": _estimate(arm.mean),
        "test": None if arm.test is None else arm.test.tolist(),
        "test_mean": _estimate(arm.test_mean),
        "seconds": arm.seconds,
    }


def surface_values(fit: Fit) -> dict[str, Any]:
    """The fitted surface on a grid, its optimum, and the mixes that may be the best."""
    grid = simplex(STEPS)
    values, errors = fit.surface.predict(grid)
    return {
        "model": fit.surface.model,
        "coefficients": fit.surface.coefficients.tolist(),
        "sigma": fit.surface.sigma,
        "df": fit.surface.df,
        "lack_of_fit": fit.surface.lack_of_fit,
        "slope_per_doubling": fit.slope,
        "optimum": asdict(fit.optimum),
        **asdict(fit.optimum.coefficients(PRODUCT)),
        "ranges": _ranges(fit),
        "compatible": fit.compatible.tolist(),
        "grid": [[*point, float(v), float(e)] for point, v, e in zip(grid.tolist(), values, errors, strict=True)],
    }


def _ranges(fit: Fit) -> dict[str, list[float]]:
    """What each share and each coefficient is, at least and at most, over the mixes that may be the best one: those of
    a grid, and the optimum, which lies between its points."""
    shares = [*(Exponents(*point) for point in fit.compatible.tolist()), fit.optimum]
    mixes = [mix.coefficients(PRODUCT) for mix in shares]
    columns = {key: [getattr(mix, key) for mix in shares] for key in ("depth", "width", "resolution")}
    columns |= {key: [getattr(mix, key) for mix in mixes] for key in ("alpha", "beta", "gamma")}
    return {key: [min(values), max(values)] for key, values in columns.items()}


def _estimate(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]
