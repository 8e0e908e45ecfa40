"""The report of a run: one self-contained page."""

from pathlib import PurePath
from typing import Any

import jinja2

from triscale.arch import from_dict
from triscale.costing import cost
from triscale.data import Images
from triscale.evaluating import Predictions
from triscale.runs import RunDirectory, write_whole
from triscale.scaling.budget import label, show
from triscale.units import format_bytes, format_count, format_seconds

MOST_CLASSES = 40  # a confusion matrix beyond it is a carpet; the worst confusions are listed in any case
MOST_CONFUSIONS = 12


def write_report(run: RunDirectory, test: Predictions, images: Images) -> None:
    """report.html in the run directory, from what the run itself has written and the test predictions."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("triscale.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"count": format_count, "bytes": format_bytes, "seconds": format_seconds}
    page = environment.get_template("report.html.j2").render(_values(run, test))
    write_whole(run.report, page)


def _values(run: RunDirectory, test: Predictions) -> dict[str, Any]:
    settings = run.settings()
    plan = settings["plan"]
    matrix = test.confusion()
    wrong = sorted(
        (
            (int(matrix[i, j]), test.classes[i], test.classes[j])
            for i, j in zip(*matrix.nonzero(), strict=True)
            if i != j
        ),
        reverse=True,
    )
    per_class = [
        {"name": name, "n": int(matrix[i].sum()), "right": int(matrix[i, i]), "called": int(matrix[:, i].sum())}
        for i, name in enumerate(test.classes)
    ]
    return {
        "settings": settings,
        "images": PurePath(settings["data"]["path"]).name,
        "plan": plan,
        "result": settings["result"],
        "cost": cost(from_dict(plan["architecture"])),
        "baseline": cost(from_dict(plan["baseline"])),
        "budget": [
            (label(term), show(term, entry["limit"]), show(term, entry["value"]), entry["used"])
            for term, entry in plan["scaling"]["budget"].items()
        ],
        "metrics": list(run.metrics()),
        "classes": test.classes,
        "matrix": matrix.tolist() if len(test.classes) <= MOST_CLASSES else None,
        "most": int(matrix.max()),
        "confusions": wrong[:MOST_CONFUSIONS],
        "per_class": per_class,
    }
