"""The report of a run: one self-contained page."""

from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup

from triscale.arch import from_dict
from triscale.costing import cost
from triscale.data import Images
from triscale.errors import UserError
from triscale.evaluating import Predictions
from triscale.reporting.mistakes import worst_mistakes
from triscale.reporting.plots import Tried, curve, tradeoff
from triscale.runs import RunDirectory, write_whole
from triscale.scaling.budget import label, show
from triscale.stats import Proportion
from triscale.units import format_bytes, format_count, format_seconds

MOST_CLASSES = 40  # a confusion matrix beyond it is a carpet; the worst confusions are listed in any case
MOST_CONFUSIONS = 10


def write_report(run: RunDirectory, test: Predictions, images: Images) -> None:
    """report.html in the run directory, from what the run itself has written, the test predictions and images."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("triscale.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": format_count,
        "bytes": format_bytes,
        "seconds": format_seconds,
        "percent": _percent,
    }
    page = environment.get_template("report.html.j2").render(_values(run, test, images))
    write_whole(run.report, page)


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def _values(run: RunDirectory, test: Predictions, images: Images) -> dict[str, Any]:
    settings, metrics = run.settings(), list(run.metrics())
    plan, result = settings["plan"], settings["result"]
    scratch = result["scratch"]["metrics"] if result["scratch"] else []
    matrix = test.confusion()
    tried = _tried(run, settings)
    return {
        "settings": settings,
        "images": PurePath(settings["data"]["path"]).name,
        "plan": plan,
        "result": result,
        "cost": cost(from_dict(plan["architecture"])),
        "baseline": cost(from_dict(plan["baseline"])),
        "budget": [
            (label(term), show(term, entry["limit"]), show(term, entry["value"]), entry["used"])
            for term, entry in result["budget"].items()
        ],
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
        "per_class": _per_class(settings, test),
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


def _per_class(settings: dict[str, Any], test: Predictions) -> list[dict[str, Any]]:
    matrix, learned = test.confusion(), settings["data"]["counts"]["train"]
    rows = []
    for i, name in enumerate(test.classes):
        n, right, called = int(matrix[i].sum()), int(matrix[i, i]), int(matrix[:, i].sum())
        rows.append(
            {
                "name": name,
                "learned": learned.get(name, 0),
                "n": n,
                "recall": Proportion(right, n) if n else None,
                "precision": right / called if called else None,
                "f1": 2 * right / (n + called) if n + called else None,
            }
        )
    return rows


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
