"""The report of a run: one self-contained page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from triscale.arch import from_dict
from triscale.costing import Cost, cost
from triscale.data import Images
from triscale.errors import UserError
from triscale.evaluating import Measures, Predictions, measure
from triscale.evaluating.measures import ClassMeasures
from triscale.reporting.mistakes import Mistake, worst_mistakes
from triscale.reporting.plots import Tried, curve, reliability, tradeoff
from triscale.reporting.precision import precision_words
from triscale.reporting.templating import render
from triscale.runs import RunDirectory, write_whole
from triscale.scaling.budget import label, show

MOST_CLASSES = 40  # a confusion matrix beyond it is a carpet; the worst confusions are listed in any case
MOST_CONFUSIONS = 10

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limited cost in words: what was asked, planned and realised. used: share of the limit."""

    term: str
    asked: str
    planned: str
    value: str
    used: float


@dataclass(frozen=True, slots=True)
class ReportPage:
    """settings, plan, result, metrics: as the run has them. images: the name of their folder. batch: images of a step.
    cost, baseline: of the network and of what it was scaled from. others: limited terms with a column of their own.
    tried: finished runs on these test images, the most accurate first. matrix: images by class and answer, None where
    there are too many; shares: of each class. confusions: (images, class, answer), the most first. wrong: how many
    answers. per_class: how many images of it were learned from, and its measures."""

    settings: Values
    images: str
    plan: Values
    batch: int
    result: Values
    cost: Cost
    baseline: Cost
    budget: Sequence[Limit]
    engine: str
    answers: str
    others: Sequence[str]
    metrics: Sequence[Values]
    plots: Sequence[Markup]
    tradeoff: Markup
    tried: Sequence[Tried]
    classes: Sequence[str]
    matrix: Sequence[Sequence[int]] | None
    shares: Sequence[Sequence[float]]
    confusions: Sequence[tuple[int, str, str]]
    mistakes: Sequence[Mistake]
    wrong: int
    measures: Measures
    reliability: Markup
    per_class: Sequence[tuple[int, ClassMeasures]]


def write_report(run: RunDirectory, test: Predictions, images: Images) -> None:
    """report.html in the run directory, from what the run itself has written, the test predictions and images."""
    write_whole(run.report, render("report.html.j2", _page(run, test, images)))


def _page(run: RunDirectory, test: Predictions, images: Images) -> ReportPage:
    from triscale.engines.table import ENGINES  # brings torch, which other pages do without

    settings, metrics = run.settings(), list(run.metrics())
    plan, result = settings["plan"], settings["result"]
    scratch = result["scratch"]["metrics"] if result["scratch"] else []
    matrix, measures = test.confusion(), measure(test.table)
    tried = _tried(run, settings)
    return ReportPage(
        settings=settings,
        images=PurePath(settings["data"]["path"]).name,
        plan=plan,
        batch=min(plan["recipe"]["batch"], sum(settings["data"]["counts"]["train"].values())),
        result=result,
        cost=cost(from_dict(plan["architecture"])),
        baseline=cost(from_dict(plan["baseline"])),
        budget=[_limit(plan, term, entry) for term, entry in result["budget"].items()],
        engine=ENGINES[result["latency"]["engine"]].title,
        answers=precision_words(result["half"]),
        others=[term for term in result["budget"] if term not in ("macs", "params")],
        metrics=metrics,
        plots=[
            Markup(_curve(metrics, scratch, "val_accuracy", "validation accuracy", percent=True)),
            Markup(_curve(metrics, scratch, "loss", "training loss")),
        ],
        tradeoff=Markup(tradeoff(tried)),
        tried=sorted(tried, key=lambda one: -one.accuracy),
        classes=test.classes,
        matrix=matrix.tolist() if len(test.classes) <= MOST_CLASSES else None,
        shares=(matrix / matrix.sum(1, keepdims=True).clip(1)).tolist(),
        confusions=_confusions(test),
        mistakes=worst_mistakes(test, images),
        wrong=int(matrix.sum() - matrix.trace()),
        measures=measures,
        reliability=Markup(reliability(measures.calibration.bins)),
        per_class=_per_class(settings, measures),
    )


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


def _limit(plan: Values, term: str, entry: Values) -> Limit:
    return Limit(
        term=label(term),
        asked=show(term, entry["limit"]),
        planned=_planned(plan, term),
        value=show(term, entry["value"]),
        used=entry["used"],
    )


def _planned(plan: Values, term: str) -> str:
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
    drawn = name.encode(errors="replace").decode()  # a name on disk may be no text
    return Tried(drawn, float(macs), float(result["test_accuracy"]), float(low), float(high), own)
