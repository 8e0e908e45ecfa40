"""`triscale fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.arch import to_dict
from triscale.cli import arguments
from triscale.cli.console import Output
from triscale.errors import UserError
from triscale.scaling.budget import label
from triscale.scaling.budget import show as show_term
from triscale.scaling.summary import summary
from triscale.units import format_seconds

if TYPE_CHECKING:
    from triscale.fitting import Fitted


def command(
    data: arguments.Data,
    out: Annotated[Path, typer.Option(help="Directory for the run; new or empty.", show_default=False)],
    macs: arguments.Macs = None,
    params: arguments.Params = None,
    activations: arguments.Activations = None,
    size: arguments.Size = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    baseline: Annotated[
        str, typer.Option(help="The network to scale: a zoo name, a JSON file, a run directory.")
    ] = "efficientnet_b0",
    rule: Annotated[
        str | None,
        typer.Option(
            help="How to scale it; see triscale scale --help.", show_default="compound to grow, width to shrink"
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", show_default="chosen")] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images.", show_default="where they have colours")
    ] = None,
    seed: arguments.Seed = 0,
    device: arguments.Device = None,
    on_bad: arguments.OnBad = "error",
    as_json: arguments.Json = False,
) -> None:
    """Find, train and test the best network of a family that holds the budget.

    Example: triscale fit IMAGES --macs 10M --epochs 5 --out RUN
    """
    output = Output(as_json)
    limits = arguments.budgets(macs, params, activations, size)
    if not limits:
        raise UserError("say what the network may cost: --macs 10M, --params 1M, --activations 1M or --size 5MB")
    on_bad_choice = arguments.on_bad(on_bad)
    arguments.seed(seed)
    from triscale.cli.watching import Watcher
    from triscale.fitting import fit

    with Watcher(output) as watcher:
        fitted = fit(
            data,
            out=out,
            macs=limits.get("macs"),
            params=limits.get("params"),
            activations=limits.get("activations"),
            size=limits.get("size"),
            epochs=epochs,
            baseline=baseline,
            rule=rule,
            batch=batch,
            flip=flip,
            seed=seed,
            device=device,
            on_bad=on_bad_choice,
            listener=watcher,
        )
    output.result(values(fitted), lambda console: show(console, fitted))
    output.next_command("triscale", "predict", fitted.run.path, "PICTURE")


def values(fitted: "Fitted") -> dict[str, Any]:
    """What `fit` answers with --json."""
    top = fitted.test.top()
    total = fitted.plan.scaled.cost
    return {
        "run": str(fitted.run.path),
        "report": str(fitted.run.report),
        "test_accuracy": top.value,
        "test_accuracy_interval_95": list(top.interval()),
        "test_images": top.n,
        "seconds": fitted.seconds,
        "scaling": summary(fitted.plan.scaled),
        "cost": {"params": total.params, "macs": total.macs, "activations": total.activations, "size": total.size},
        "architecture": to_dict(fitted.plan.architecture),
    }


def show(console: Console, fitted: "Fitted") -> None:
    """What `fit` answers to a person."""
    scaled = fitted.plan.scaled
    console.print(f"test accuracy {fitted.test.top()}")
    for term, limit in (scaled.limits or {}).items():
        value = (scaled.values or {})[term]
        console.print(
            f"budget of {show_term(term, limit)} {label(term)}: {show_term(term, value)} used ({value / limit:.1%})"
        )
    console.print(f"took {format_seconds(fitted.seconds)}; the run is {fitted.run.path}")
    console.print(f"report: {fitted.run.report}")
