"""The report of a run: one self-contained page."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from triscale.arch import from_dict
from triscale.costing import cost
from triscale.data import Images
from triscale.errors import UserError
from triscale.evaluating import Measures, Predictions, measure
from triscale.evaluating.measures import ClassMeasures
from triscale.reporting.mistakes import worst_mistakes
from triscale.reporting.plots import Tried, curve, reliability, tradeoff
from triscale.reporting.precision import precision_words
from triscale.reporting.templating import render
from triscale.runs import RunDirectory, write_whole
from triscale.scaling.budget import label, show

MOST_CLASSES = 40  # a confusion matrix beyond it is a carpet; the worst confusions are listed in any case
MOST_CONFUSIONS = 10


def write_report(run: RunDirectory, test: Predictions, images: Images) -> None:
    """report.html in the run directory, from what the run itself has written, the test predictions and images."""
    write_whole(run.report, render("report.html.j2", _values(run, test, images)))


def _values(run: RunDirectory, test: Predictions, images: Images) -> dict[str, Any]:
    from triscale.engines.table import ENGINES  # brings torch, which other pages do without

    settings, metrics = run.settings(), list(run.metrics())
    plan, result = settings["plan"], settings["result"]
    scratch = result["scratch"]["metrics"] if result["scratch"] else []
    matrix, measures = test.confusion(), measure(test.table)
    tried = _tried(run, settings)
    return {
        "settings": settings,
        "images": PurePath(settings["data"]["path"]).name,
        "plan": plan,
        "batch": min(plan["recipe"]["batch"], sum(settings["data"]["counts"]["train"].values())),
        "result": result,
        "cost": cost(from_dict(plan["architecture"])),
        "baseline": cost(from_dict(plan["baseline"])),
        "budget": [
            (label(term), show(term, entry["limit"]), _planned(plan, term), show(term, entry["value"]), entry["used"])
            for term, entry in result["budget"].items()
        ],
        "engine": ENGINES[result["latency"]["engine"]].title,
        "answers": precision_words(result["half"]),
        "others": [term for term in result["budget"] if term not in ("macs", "params")],
        "label": label,
        "show": show,
        "metrics": metrics,
        "plots": [
            Markup(_curve(metrics, scratch, "val_accuracy", "validation accuracy", percent=True)),
            Markup(_curve(metrics, scratch, "loss", "training loss")),
        ],
        "tradeoff": Markup(tradeoff(tried)),
        "tried": sorted(tried, key=lambda one: -one.accuracy),
        "classes": test.classes,
        "matrix": matrix.tolist() if len(test.classes) <= MOST_CLASSES else None,
        "shares": (matrix / matrix.sum(1, keepdims=True).clip(1)).tolist(),
        "confusions": _confusions(test),
        "mistakes": worst_mistakes(test, images),
        "wrong": int(matrix.sum() - matrix.trace()),
        "calibration": measures.calibration,
        "log_loss": measures.log_loss,
        "reliability": Markup(reliability(measures.calibration.bins)),
        "per_class": _per_class(settings, measures),
    }


def _curve(
    metrics: list[dict[str, Any]], scratch: list[dict[str, Any]], key: str, title: str, *, percent: bool = False
) -> str:
    return curve([row[key] for row in metrics], title, percent=percent, scratch=[row[key] for row in scratch])


def _confusions(test: Predictions) -> list[tuple[int, str, str]]:
    matrix = test.confusion()
    pairs = zip(*matrix.nonzero(), strict=True)
    wrong = [(int(matrix[i, j]), test.classes[i], test.classes[j]) for i, j in pairs if i != j]
    return sorted(wrong, reverse=True)[:MOST_CONFUSIONS]


def _per_class(settings: dict[str, Any], measures: Measures) -> list[tuple[int, ClassMeasures]]:
    """Every class, with how many images of it were learned from."""
    learned = settings["data"]["counts"]["train"]
    return [(learned.get(one.name, 0), one) for one in measures.classes]


def _planned(plan: Mapping[str, Any], term: str) -> str:
    """What was planned with in a limited term: of a latency what the last measurement of the candidates said."""
    taken = next((row for row in plan["candidates"] if row["taken"]), None)
    if taken is None:
        return ""
    latency = taken.get("latency") if term == "latency" else None
    return show(term, latency["median"] if latency else taken["budget"][term]["value"])


def _tried(run: RunDirectory, settings: dict[str, Any]) -> list[Tried]:
    """This run, and the finished ones beside it that were tested on exactly the same images."""
    found = [_point(run.path.resolve().name, settings, own=True)]
    for other in run.beside():
        try:
            theirs = other.settings()
            if theirs["data"]["test_fingerprint"] == settings["data"]["test_fingerprint"]:
                found.append(_point(other.path.name, theirs, own=False))
        except (UserError, KeyError, TypeError, ValueError):
            continue  # an unfinished run, or somebody's file of the same name
    return found


def _point(name: str, settings: dict[str, Any], *, own: bool) -> Tried:
    result = settings["result"]
    low, high = result["test_accuracy_interval_95"]
    macs = cost(from_dict(settings["plan"]["architecture"])).macs
    return Tried(name, float(macs), float(result["test_accuracy"]), float(low), float(high), own)
