"""`triscale predict`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.errors import UserError


def command(
    name: Annotated[str, typer.Argument(help="A run directory or a safetensors file.", show_default=False)],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.", show_default=False)],
    top: Annotated[int, typer.Option(help="How many classes to name.")] = 5,
    as_json: arguments.Json = False,
) -> None:
    """What a trained model sees in pictures.

    Example: triscale predict RUN photo.jpg
    """
    output = Output(as_json)
    from triscale.models import predict

    with output.progress() as bar:
        task = bar.add_task("looking at pictures", total=None)
        guesses = list(predict(name, pictures, top=top, progress=lambda n, of: bar.update(task, completed=n, total=of)))
    failed = [guess for guess in guesses if guess.error]
    if len(failed) == len(guesses):
        raise UserError(failed[0].error or "")
    values = {
        "predictions": [
            {"path": str(guess.path), "error": guess.error}
            if guess.error
            else {
                "path": str(guess.path),
                "classes": [{"name": label, "probability": share} for label, share in guess.classes],
            }
            for guess in guesses
        ]
    }

    def show(console: Console) -> None:
        rows = table("picture", *(["class", ""] * min(top, 1)), "then")
        for guess in guesses:
            if guess.error:
                continue
            (label, share), *others = guess.classes
            rest = ", ".join(f"{other} {p:.1%}" for other, p in others)
            rows.add_row(str(guess.path), label, f"{share:.1%}", rest)
        print_table(console, rows)

    output.result(values, show)
    for guess in failed:
        output.notes.print(guess.error)
    output.next_command("triscale", "eval", name, "LABELLED_IMAGES")
    if failed:
        output.notes.print(f"{len(failed)} of {len(guesses)} pictures could not be read")
        raise typer.Exit(1)
