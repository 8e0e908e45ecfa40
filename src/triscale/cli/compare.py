"""`triscale compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, copies, print_table, table
from triscale.cli.evaluate import WHICH as OF_ONE
from triscale.cli.evaluate import check_new

if TYPE_CHECKING:
    from triscale.evaluating import Comparison
    from triscale.evaluating.comparison import ClassDifference
    from triscale.stats import Estimate

WHICH = {**OF_ONE, "held out": "the images that were held out, from both runs where both were made from this data"}
SHOWN = 5  # flipped images for people
MOST = 10  # classes
CHANCE = 0.05

_Side = typer.Argument(
    help="A run directory or a prediction table (predictions.csv); with --data any trained model.", show_default=False
)


def command(
    first: Annotated[str, _Side],
    second: Annotated[str, _Side],
    data: Annotated[
        Path | None,
        typer.Option(help="Evaluate both models on these images, instead of comparing what is stored."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a page with the flipped images to PAGE.html, new.", show_default=False)
    ] = None,
    device: arguments.Device = None,
    on_bad: Annotated[
        str | None, typer.Option("--on-bad", help="Unreadable images: error or skip.", show_default="as the runs did")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Which of two models is better on the same test images, by how much, and on which images they differ.

    Example: triscale compare RUN OTHER_RUN
    """
    output = Output(as_json)
    choice = None if on_bad is None else arguments.on_bad(on_bad)
    if out is not None:
        check_new(out, ".html")
    from triscale.evaluating import compare

    found = compare(first, second, data, device=device, on_bad=choice)
    if out is not None:
        from triscale.reporting.comparison import write_comparison

        write_comparison(out, found)
    values = {**found.to_dict(), "page": None if out is None else str(out)}
    output.result(values, lambda console: _show(console, found, out))
    output.next_command(*_following(first, second, data, out, found))


def _following(first: str, second: str, data: Path | None, out: Path | None, found: "Comparison") -> list[object]:
    """The page, then a look at a flipped image that can be looked at."""
    if out is None:
        where = ["--data", data] if data else []
        return ["triscale", "compare", Path(first), Path(second), *where, "--out", "comparison.html"]
    folder = found.data
    if folder is not None and Path(first).is_dir() and Path(second).is_dir():
        from triscale.data.spelling import Spelled

        files = Spelled(folder if folder.is_dir() else folder.parent)
        for picture in filter(None, (files.find(flip.names[0]) for flip in found.flips)):
            return ["triscale", "explain", Path(first), picture, "--beside", Path(second)]
    return ["triscale", "eval", Path(first)]


def _show(console: Console, found: "Comparison", out: Path | None) -> None:
    difference = found.difference
    for letter, name, measures, learned in zip("AB", found.names, found.measures, found.learned, strict=True):
        console.print(f"{letter}  {name}: accuracy {measures.top1}" + (f"; {copies(learned)}" if learned else ""))
    console.print(f"of {WHICH[found.which]}" + (f" in {found.data}" if found.data and found.which != "stored" else ""))
    if not found.by_content:
        console.print("an older table keeps no digests: images were matched by their names alone")
    p = difference.p_value()
    verdict = "more than chance explains" if p < CHANCE else "chance alone may explain it"
    console.print(f"A - B  {difference}; McNemar's exact p = {p:.2g}: {verdict}")
    console.print(
        f"right: both {found.both:,}, only A {difference.first:,}, only B {difference.second:,}, "
        f"neither {found.neither:,}"
    )
    console.print()
    _show_measures(console, found)
    _show_classes(console, [one for one in found.classes if one.difference is not None])
    _show_flips(console, found)
    if out is not None:
        console.print(f"{out}: the page")


def _show_measures(console: Console, found: "Comparison") -> None:
    a, b = found.measures
    rows = table("", "A", "B", "A - B", "95 % interval")
    shares = (
        ("calibration error", a.calibration.error, b.calibration.error, found.calibration),
        ("mean recall of the classes", a.balanced, b.balanced, found.balanced),
    )
    for title, one, other, apart in shares:
        rows.add_row(title, f"{one.value:.2%}", f"{other.value:.2%}", *_points(apart))
    if a.log_loss is not None and b.log_loss is not None and found.log_loss is not None:
        apart = found.log_loss
        bounds = f"{apart.low:+.4f} to {apart.high:+.4f}"
        rows.add_row("log loss", f"{a.log_loss.value:.4f}", f"{b.log_loss.value:.4f}", f"{apart.value:+.4f}", bounds)
    print_table(console, rows)


def _points(apart: "Estimate") -> tuple[str, str]:
    return f"{100 * apart.value:+.2f} points", f"{100 * apart.low:+.2f} to {100 * apart.high:+.2f}"


def _show_classes(console: Console, classes: "list[ClassDifference]") -> None:
    """The classes whose recall differs most."""
    apart = [one for one in classes if one.difference is not None and one.difference.value]
    if not apart:
        return
    console.print()
    rows = table("class", "images", "recall A", "recall B", "A - B", "95 % interval")
    apart.sort(key=lambda one: -abs(one.difference.value if one.difference else 0.0))
    for one in apart[:MOST]:
        assert one.difference is not None
        low, high = (100 * bound for bound in one.difference.interval())
        shares = [f"{right / one.images:.1%}" for right in one.right]
        points = f"{100 * one.difference.value:+.1f} points"
        rows.add_row(one.name, f"{one.images:,}", *shares, points, f"{low:+.1f} to {high:+.1f}")
    print_table(console, rows)
    if len(apart) > MOST:
        console.print(f"the {MOST} that differ most of {len(apart):,}; --json has them all")


def _show_flips(console: Console, found: "Comparison") -> None:
    if not found.flips:
        return
    console.print()
    rows = table("only one is right", "is", "A says", "", "B says", "")
    for flip in found.flips[:SHOWN]:
        answers = [text for label, sure in flip.answers for text in (label, f"{sure:.0%}")]
        rows.add_row(flip.names[0], flip.label, *answers)
    print_table(console, rows)
    if len(found.flips) > SHOWN:
        console.print(f"the {SHOWN} that the wrong one is surest of, of {len(found.flips):,}; --json has them all")
