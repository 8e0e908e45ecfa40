"""`triscale eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, copies

if TYPE_CHECKING:
    from triscale.evaluating import Evaluation

WHICH = {
    "test": "the data's test split",
    "held out": "the images that the run held out",
    "val": "the data's validation split",
    "all": "all images",
}


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="A zoo name, published weights, a run directory or a file of weights; triscale models lists names.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Argument(help="Labelled images; what the run was made from if left out.", show_default=False)
    ] = None,
    device: arguments.Device = None,
    on_bad: Annotated[
        str | None, typer.Option("--on-bad", help="Unreadable images: error or skip.", show_default="as the run did")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """How good a trained model is, on the images held out for it or on others.

    Example: triscale eval RUN IMAGES
    """
    output = Output(as_json)
    choice = None if on_bad is None else arguments.on_bad(on_bad)
    from triscale.evaluating import evaluate

    found = evaluate(name, data, device=device, on_bad=choice)
    top = found.predictions.top()
    matrix = found.predictions.confusion()
    values = {
        "accuracy": top.value,
        "accuracy_interval_95": list(top.interval()),
        "top5": found.predictions.top(5).value if len(found.predictions.classes) > 5 else None,
        "images": top.n,
        "evaluated": found.which,
        "data": str(found.data),
        "missing": found.missing,
        "learned": found.learned,
        "skipped": found.skipped,
        "classes": {
            label: {"images": int(matrix[i].sum()), "right": int(matrix[i, i]), "called": int(matrix[:, i].sum())}
            for i, label in enumerate(found.predictions.classes)
        },
    }
    output.result(values, lambda console: _show(console, found))
    output.next_command("triscale", "predict", name, "PICTURE")


def _show(console: Console, found: "Evaluation") -> None:
    console.print(f"accuracy {found.predictions.top()}; {_copies(found.learned)}")
    console.print(f"of {WHICH[found.which]} in {found.data}")
    if len(found.predictions.classes) > 5:
        console.print(f"among the five likeliest {found.predictions.top(5)}")
    if found.missing:
        console.print(f"{found.missing:,} images that the run held out are missing or changed")
    if found.skipped:
        console.print(f"{found.skipped:,} unreadable images were left out")


def _copies(learned: int | None) -> str:
    if learned is None:
        return "no run says what the model learned from: some of these images may be among it"
    return copies(learned)
