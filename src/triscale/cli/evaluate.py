"""`triscale eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, copies, print_table, table
from triscale.errors import UserError
from triscale.runs import write_whole

if TYPE_CHECKING:
    from triscale.evaluating import Evaluation
    from triscale.evaluating.measures import ClassMeasures
    from triscale.stats import Proportion

WHICH = {
    "test": "the data's test split",
    "held out": "the images that the run held out",
    "val": "the data's validation split",
    "all": "all images",
    "stored": "stored answers",
}
MOST = 10  # classes in the table for people


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="A zoo name, published weights, a run directory or a file of weights; triscale models lists names. Or "
            "a prediction table, predictions.csv.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Argument(help="Labelled images; what the run was made from if left out.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the prediction table to TABLE.csv, new.", show_default=False)
    ] = None,
    device: arguments.Device = None,
    precision: arguments.Precision = "fp32",
    on_bad: Annotated[
        str | None, typer.Option("--on-bad", help="Unreadable images: error or skip.", show_default="as the run did")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """How good a trained model is, on the images held out for it or on others; or what a stored table says.

    Example: triscale eval RUN IMAGES
    """
    output = Output(as_json)
    choice = None if on_bad is None else arguments.on_bad(on_bad)
    if out is not None:
        check_new(out, ".csv")
    from triscale.evaluating import evaluate

    found = evaluate(name, data, device=device, precision=precision, on_bad=choice)
    if out is not None:
        write_whole(out, found.table.to_csv())
    values = {
        **found.measures.to_dict(),
        "images": len(found.table),
        "evaluated": found.which,
        "precision": None if found.which == "stored" else precision,
        "data": str(found.data),
        "missing": found.missing,
        "learned": found.learned,
        "skipped": found.skipped,
        "table": None if out is None else str(out),
    }
    output.result(values, lambda console: _show(console, found, out))
    if found.which == "stored":
        output.next_command("triscale", "compare", Path(name), "OTHER_RUN")
    else:
        output.next_command("triscale", "predict", Path(name), "PICTURE")


def check_new(out: Path, ending: str) -> None:
    """Before any work is done. Raises `UserError` where the file cannot be written, or is there already."""
    if out.suffix.lower() != ending:
        raise UserError(f"--out {out}: does not end in {ending}, which is what is written")
    if out.exists():
        raise UserError(f"--out {out}: exists already; name another file")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: {out.parent} is no directory; make it first")


def _show(console: Console, found: "Evaluation", out: Path | None) -> None:
    measures = found.measures
    console.print(f"accuracy {measures.top1}; {_copies(found.learned)}")
    console.print(f"of {WHICH[found.which]} in {found.data}")
    if measures.top5 is not None:
        console.print(f"among the five likeliest {measures.top5}")
    error, chance = measures.calibration.error, measures.calibration.by_chance
    console.print(f"calibration error {error.percent()}; a perfectly calibrated model: up to {chance:.2%} by chance")
    if measures.log_loss is not None:
        console.print(f"log loss {measures.log_loss}")
    else:
        console.print("the table is of an earlier version, without what top-5 and log loss need")
    console.print(f"mean over the classes: recall {measures.balanced.percent()}, F1 {measures.macro_f1}")
    if found.missing:
        console.print(f"{found.missing:,} images that the run held out are missing or changed")
    if found.skipped:
        console.print(f"{found.skipped:,} unreadable images were left out")
    _show_classes(console, [one for one in measures.classes if one.f1 is not None])
    if out is not None:
        console.print(f"{out}: every image with its answer")


def _show_classes(console: Console, classes: "list[ClassMeasures]") -> None:
    """All of few classes, the worst of many."""
    console.print()
    worst = sorted(classes, key=lambda one: one.f1 or 0.0)[:MOST] if len(classes) > MOST else classes
    rows = table("class", "images", "recall", "95 % interval", "precision", "95 % interval", "F1")
    for one in worst:
        rows.add_row(one.name, f"{one.images:,}", *_share(one.recall), *_share(one.precision), f"{one.f1:.3f}")
    print_table(console, rows)
    if len(classes) > MOST:
        console.print(f"the {MOST} with the lowest F1 of {len(classes):,} classes; --json has them all")


def _share(share: "Proportion | None") -> tuple[str, str]:
    if share is None:
        return "–", "–"
    low, high = share.interval()
    return f"{share.value:.1%}", f"{low:.1%} to {high:.1%}"


def _copies(learned: int | None) -> str:
    if learned is None:
        return "no run says what the model learned from: some of these images may be among it"
    return copies(learned)
