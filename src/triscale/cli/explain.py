"""`triscale explain`."""

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.errors import UserError

if TYPE_CHECKING:
    from triscale.explaining import Explained, Explanation, Gallery, Sanity
    from triscale.models import Model

    Found = list[tuple[Explained, tuple[Path, ...]]]

MOST = 240  # pictures that are explained at once


def command(
    name: Annotated[
        str, typer.Argument(help="A run directory, published weights or a file of weights.", show_default=False)
    ],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.", show_default=False)],
    beside: Annotated[
        list[str] | None, typer.Option(help="One more network to set beside it; may be repeated.", show_default=False)
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--class", help="The class to explain.", show_default="each network's likeliest"),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(
            help="Grad-CAM after this stage, from 0 as `triscale cost --layers` counts, instead of the exact maps.",
            show_default=False,
        ),
    ] = None,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Compare the maps with those of random weights: they must differ.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for the pictures; new or empty.", show_default="explained, explained-2, …"),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Which parts of pictures speak for a class: class activation maps, laid over what the network saw.

    Example: triscale explain RUN photo.jpg --beside OTHER_RUN
    """
    output = Output(as_json)
    from triscale.explaining import Gallery, choose, named

    models = named([name, *(beside or ())])
    for model in models.values():
        arguments.tell_reading(output, model)
    gallery = Gallery(_fresh() if out is None else out, list(models))
    chosen, left = choose(pictures, MOST)
    found = _look(output, models, chosen, gallery, label, stage)
    checks = _check(output, models, found) if sanity else None
    values = {
        "pictures": [_picture(one, files) for one, files in found],
        "sheets": [str(sheet) for sheet in gallery.sheets],
        "left": left,
        **({} if checks is None else {"sanity": {network: _sanity(check) for network, check in checks.items()}}),
    }
    output.result(values, lambda console: _show(console, found, gallery.sheets, checks or {}))
    failed = _tell(output, found, left)
    if failed:
        output.notes.print(f"{failed} of {len(found)} pictures could not be read")
    if sanity:
        output.next_command("triscale", "eval", Path(name), "LABELLED_IMAGES")
    else:
        again: list[object] = [word for network in beside or () for word in ("--beside", Path(network))]
        again += [] if label is None else ["--class", label]
        again += [] if stage is None else ["--stage", str(stage)]
        again += ["--sanity"] if out is None else ["--sanity", "--out", Path(f"{out}-checked")]
        output.next_command("triscale", "explain", Path(name), *pictures[:3], *again)
    if failed:
        raise typer.Exit(1)


def _fresh() -> Path:
    """A name that nothing has yet."""
    names = (Path("explained" if number == 1 else f"explained-{number}") for number in count(1))
    return next(place for place in names if not os.path.lexists(place))


def _look(
    output: Output,
    models: "Mapping[str, Model]",
    pictures: list[Path],
    gallery: "Gallery",
    label: str | None,
    stage: int | None,
) -> "Found":
    """What was found in each picture, without its pixels, and the files of the overlays."""
    from triscale.explaining import explain_files

    found: Found = []
    with output.progress() as bar:
        task = bar.add_task("looking at pictures", total=len(pictures))
        for one in explain_files(models, pictures, label=label, stage=stage):
            found.append((replace(one, picture=None), gallery.add(one)))
            bar.update(task, completed=len(found))
        gallery.finish()
    if not gallery.sheets:
        raise UserError(found[0][0].error or "")
    return found


def _check(output: Output, models: "Mapping[str, Model]", found: "Found") -> "dict[str, Sanity]":
    from triscale.explaining import check_sanity

    with output.progress() as bar:
        task = bar.add_task("with random weights", total=None)
        explained = [one for one, _ in found]
        return check_sanity(models, explained, progress=lambda done, of: bar.update(task, completed=done, total=of))


def _tell(output: Output, found: "Found", left: int) -> int:
    """What a person should know besides; how many pictures could not be read."""
    failed = [one for one, _ in found if one.error]
    for one in failed:
        output.notes.print(one.error)
    for each in next(one.explanations for one, _ in found if one.explanations):
        if each.values.size == 1:
            output.notes.print(
                f"{each.network}: its map has one position, so it shows nothing; --stage 0 looks at an earlier one"
            )
    if left:
        output.notes.print(
            f"{len(found):,} of {len(found) + left:,} pictures were explained, spread evenly over their names; "
            "name a smaller folder for the others"
        )
    return len(failed)


def _picture(one: "Explained", files: tuple[Path, ...]) -> dict[str, Any]:
    if one.error:
        return {"path": str(one.path), "error": one.error}
    return {
        "path": str(one.path),
        "networks": [_network(each, file) for each, file in zip(one.explanations, files, strict=True)],
    }


def _network(each: "Explanation", file: Path) -> dict[str, Any]:
    return {
        "network": each.network,
        "class": each.label,
        "probability": each.probability,
        "likeliest": {"name": each.likeliest[0], "probability": each.likeliest[1]},
        "logit": each.logit,
        "bias": each.bias,
        "sum": each.total,
        "method": each.method,
        "stage": each.stage,
        "map": list(each.values.shape),
        "overlay": str(file),
    }


def _sanity(check: "Sanity") -> dict[str, Any]:
    return {
        "rank_correlation": check.correlation,
        "range": [check.low, check.high],
        "signed": check.signed,
        "other_pictures": check.other,
        "seeds": check.seeds,
        "pictures": check.pictures,
        "flat": check.flat,
        "explains_network": check.explains_network,
        "verdict": check.verdict,
    }


def _show(
    console: Console,
    found: "Found",
    sheets: list[Path],
    checks: "Mapping[str, Sanity]",
) -> None:
    rows = table("picture", "network", "class", "", "logit", "overlay")
    for one, files in found:
        for each, file in zip(one.explanations, files, strict=False):
            rows.add_row(
                str(one.path),
                each.network,
                each.label,
                f"{each.probability:.1%}",
                _logit(each),
                str(file),
            )
    print_table(console, rows)
    for network, check in checks.items():
        console.print(f"{network}: {check.verdict}")
        console.print(f"  {check}")
    console.print(f"to look at: {', '.join(map(str, sheets))}")


def _logit(each: "Explanation") -> str:
    """An exact map sums to the logit without its bias; a Grad-CAM sums to nothing."""
    if each.method == "grad-cam":
        return f"{each.logit:.2f}"
    return f"{each.logit:.2f} = {each.total:.2f} of the map {'-' if each.bias < 0 else '+'} {abs(each.bias):.2f}"
