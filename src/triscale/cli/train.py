"""`triscale train`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.arch import to_dict
from triscale.cli import arguments
from triscale.cli.console import Output, copies
from triscale.cli.fit import show_precision
from triscale.cli.stopping import going_on, stopping_gently
from triscale.errors import UserError
from triscale.units import format_seconds, parse_seconds_or_none

if TYPE_CHECKING:
    from triscale.fitting import Fitted


def command(
    data: arguments.RunData = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="The network: a zoo name (adapted to the images' size), a JSON file or a run directory.",
            show_default=False,
        ),
    ] = None,
    out: arguments.RunOut = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="paper, modern, finetune, quick or a JSON file (see --show-recipe).", show_default="quick"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.", show_default="as the recipe says")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", show_default="as the recipe says")] = None,
    resolution: arguments.Resolution = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images.", show_default="as the recipe says")
    ] = None,
    balance: arguments.Balance = False,
    seed: Annotated[int | None, typer.Option(help="Decides splits, weights and batches.", show_default="0")] = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="The same bytes each time on this machine; fp32, nothing is measured."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or begin it where there is none.")
    ] = False,
    checkpoint_every: Annotated[
        str, typer.Option(help="Time between two checkpoints within an epoch: 30s, 5m; 0s for every step.")
    ] = "1m",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events for TensorBoard into the run.")
    ] = False,
    device: arguments.Device = None,
    on_bad: Annotated[
        str | None,
        typer.Option("--on-bad", help="Unreadable images: error stops, skip leaves them out.", show_default="error"),
    ] = None,
    show_recipe: Annotated[
        str | None,
        typer.Option(help="Print a recipe as JSON, with the source of every field, and stop.", show_default=False),
    ] = None,
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Kill and resume a small training here, and compare the bytes; a minute."),
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Train a network that you name, on your images, by a recipe; a killed training goes on where it was.

    Example: triscale train IMAGES --architecture efficientnet_b0 --epochs 30 --out RUN

    Several processes: torchrun --nproc-per-node 2 -m triscale train IMAGES …
    """
    output = Output(as_json)
    if show_recipe is not None:
        _print_recipe(show_recipe)
        return
    if selftest:
        from triscale.cli.selftest import show_selftest

        show_selftest(output)
        return
    if out is None:
        raise UserError("say where the run shall lie: --out RUN, a new or empty directory; or the run to --resume")
    size, choice = arguments.resolution(resolution), None if on_bad is None else arguments.on_bad(on_bad)
    from triscale.cli.watching import Watcher
    from triscale.fitting import train
    from triscale.training.recipes import find_recipe

    again = going_on("train", out, data)
    balanced = balance or (recipe is not None and find_recipe(recipe).recipe.balance)
    with stopping_gently(again) as signalled, Watcher(output, signalled, may_balance=not balanced) as watcher:
        fitted = train(
            data,
            out=out,
            architecture=architecture,
            recipe=recipe,
            epochs=epochs,
            batch=batch,
            resolution=size,
            flip=flip,
            balance=balance or None,
            seed=seed,
            deterministic=deterministic or None,
            device=device,
            on_bad=choice,
            resume=resume,
            checkpoint_every=parse_seconds_or_none(checkpoint_every, "--checkpoint-every"),
            tensorboard=tensorboard,
            listener=watcher,
        )
    if fitted is not None:  # the first of the processes says it
        _answer(output, fitted)


def _print_recipe(name: str) -> None:
    from triscale.training.recipes import find_recipe, to_json

    sys.stdout.write(to_json(find_recipe(name)))


def _answer(output: Output, fitted: "Fitted") -> None:
    output.result(values(fitted), lambda console: show(console, fitted))
    output.next_command("triscale", "eval", fitted.run.path)


def values(fitted: "Fitted") -> dict[str, Any]:
    """What `train` answers with --json."""
    plan, total = fitted.plan, fitted.plan.scaled.cost
    return {
        "run": str(fitted.run.path),
        "report": str(fitted.run.report),
        **fitted.to_json(),
        "epochs": plan.recipe.epochs,
        "metrics": [asdict(row) for row in fitted.metrics],
        "recipe": plan.values["recipe"],
        "machine": plan.values["machine"],
        "cost": {"params": total.params, "macs": total.macs, "activations": total.activations, "size": total.size},
        "architecture": to_dict(plan.architecture),
    }


def show(console: Console, fitted: "Fitted") -> None:
    """What `train` answers to a person."""
    console.print(f"test accuracy {fitted.test.top()}; {copies(fitted.leaks)}")
    if fitted.plan.recipe.patience is not None:
        console.print(f"kept: epoch {fitted.kept}, the last that validation does not find worse than the best")
    seconds = sum(row.seconds for row in fitted.metrics)
    waiting = sum(row.waiting for row in fitted.metrics)
    if seconds:
        console.print(f"of {format_seconds(seconds)} of steps {waiting / seconds:.1%} went by waiting for images")
    show_precision(console, fitted)
    console.print(f"took {format_seconds(fitted.seconds)}; the run is {fitted.run.path}")
    console.print(f"report: {fitted.run.report}")
