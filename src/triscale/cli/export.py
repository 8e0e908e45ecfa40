"""`triscale export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output
from triscale.errors import UserError
from triscale.units import format_bytes

if TYPE_CHECKING:
    from triscale.exporting import Exported

POINTS = 0.5  # `quantizing.LOST_BY_ESTIMATE`, which would bring the engines along


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="A run directory, a file of weights, or published weights; triscale models lists names.",
            show_default=False,
        ),
    ],
    to: Annotated[str, typer.Option(help="onnx, openvino or torch (an archive of torch.export).")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(help="The new file.", show_default="model.onnx, .xml or .pt2 in the run's directory"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Pictures to check the file with; of a run, where its images are now.", show_default="the run's own"
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="In int8, calibrated on the run's images; what costs too much stays in fp32.")
    ] = False,
    most_lost: Annotated[
        float | None,
        typer.Option(help="With --int8: points of validation accuracy that may be lost.", show_default="0.5"),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Write a model as a file of another engine, once it agrees with PyTorch on real images.

    Example: triscale export RUN --to onnx
    """
    output = Output(as_json)
    if most_lost is not None and not int8:
        raise UserError(f"--most-lost {most_lost:g}: says what int8 may lose; add --int8, or leave it out")
    points = POINTS if most_lost is None else most_lost
    if not 0 <= points < 100:
        raise UserError(f"--most-lost {points:g}: is not from 0 to below 100 points; write for example {POINTS}")
    from triscale.exporting import export

    with output.progress() as bar:
        task = bar.add_task("reading", total=None)

        def told(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        made = export(model, to, out=out, images=images, int8=int8, most_lost=points / 100, progress=told)
    output.result(values(made), lambda console: _show(console, made))
    if made.format == "torch":
        output.next_command("triscale", "predict", Path(model), "PICTURE")
    else:
        output.next_command("triscale", "serve", made.path)


def values(made: "Exported") -> dict[str, object]:
    """What `export` answers with --json."""
    found = made.agreement
    return {
        "file": str(made.path),
        "format": made.format,
        "size": made.size,
        "images": found.n,
        "same_class": found.same,
        "largest_difference": found.largest,
        "int8": None if made.quantized is None else made.quantized.values(),
    }


def _show(console: Console, made: "Exported") -> None:
    found = made.agreement
    console.print(f"{made.path}: {format_bytes(made.size)}")
    if made.quantized is not None:
        for line in made.quantized.lines():
            console.print(line)
        return
    console.print(
        f"on {found.n:,} real images {found.same:,} keep their class; logits are apart by at most {found.largest:.1e} "
        "of the largest"
    )
