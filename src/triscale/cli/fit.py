"""`triscale fit`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.arch import to_dict
from triscale.cli import arguments, trials, wholes
from triscale.cli.console import Output, copies
from triscale.cli.plans import show_plan
from triscale.cli.stopping import going_on, stopping_gently
from triscale.errors import UserError
from triscale.scaling.budget import ANALYTIC, MEASURED, label
from triscale.scaling.budget import show as show_term
from triscale.scaling.summary import summary
from triscale.units import format_seconds, parse_seconds

if TYPE_CHECKING:
    from triscale.fitting import Asked, Fitted, Wish

# What a run was begun with, and so may be said once more where it goes on.
REPEATED = frozenset({"baseline", "rule", "time", "epochs", "batch", "flip", "balance", "seed", "device", "on_bad"}) | {
    *("weights", "scratch", "engine", *ANALYTIC, *MEASURED)
}


def command(
    context: typer.Context,
    data: arguments.RunData = None,
    out: arguments.RunOut = None,
    macs: arguments.Macs = None,
    params: arguments.Params = None,
    activations: arguments.Activations = None,
    size: arguments.Size = None,
    latency: arguments.Latency = None,
    memory: arguments.Memory = None,
    engine: arguments.Engine = None,
    time: arguments.Time = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training images.", show_default="20, or what --time allows"),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="A network to scale: a zoo name, a JSON file, a run directory. Several may be named; the plan takes "
            "one.",
            show_default="efficientnet_b0, efficientnet_lite0, mobilenet_v2, resnet18",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How to scale it; see triscale scale --help.",
            show_default="compound to grow; slim to shrink, then fewer pixels",
        ),
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Search the network to scale on these images first; needs --macs, --time. When the model is there, "
            "networks of the zoo are trained as long, to compare: three times the training, on top of the time.",
        ),
    ] = False,
    study: Annotated[
        bool, typer.Option("--study", help="Measure first how to scale it on these images; needs --macs, --time.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Start from these instead of from scratch: published weights, a run, a file. They fix the network.",
            show_default=False,
        ),
    ] = None,
    scratch: Annotated[
        bool,
        typer.Option(
            "--scratch/--no-scratch", help="With --weights: train from scratch too, and report the difference."
        ),
    ] = True,
    batch: Annotated[int | None, typer.Option(help="Images a step.", show_default="chosen")] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images.", show_default="where they have colours")
    ] = None,
    balance: arguments.Balance = False,
    seed: arguments.Seed = 0,
    device: arguments.Device = None,
    on_bad: arguments.OnBad = "error",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, by its plan; needs nothing else.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop; write nothing.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """Find, train and test the best network that holds the budget.

    Example: triscale fit IMAGES --macs 10M --time 10m --out RUN. All that the paper does: triscale fit IMAGES --search
    --study --macs 10M --time 2h --out RUN
    """
    output = Output(as_json)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("fit runs in one process; what torchrun starts is triscale train --architecture NAME|FILE")
    words = wholes.Words(macs, time, search, study, baseline or (), seed, device, on_bad)
    typed = trials.said(context)
    if resume and wholes.is_begun(out):
        wholes.go_on(output, out, data, words, typed)
        return
    if data is None and not resume:
        raise UserError("say which images: triscale fit IMAGES --macs 10M --out RUN")
    if weights is None and "scratch" in typed and not resume:
        option = "--scratch" if scratch else "--no-scratch"
        raise UserError(f"{option}: only with --weights is a network trained from scratch besides; leave it out")
    if data is not None and (search or study) and not resume:
        wholes.begin(output, data, out, words, typed)
        return
    limits = arguments.budgets(macs, params, activations, size, latency, memory)
    seconds, on_bad_choice = None if time is None else parse_seconds(time, "--time"), arguments.on_bad(on_bad)
    from triscale.fitting import Asked

    asked = Asked(
        limits,
        baseline=baseline or None,
        rule=rule,
        time=seconds,
        epochs=epochs,
        batch=batch,
        flip=flip,
        balance=balance,
        seed=seed,
        device=device,
        on_bad=on_bad_choice,
        weights=weights,
        scratch=scratch,
        engine=engine,
    )
    if resume:
        _go_on(output, out, data, asked, typed)
    elif data is not None:
        _begin(output, data, out, asked, dry_run=dry_run)


def _begin(output: Output, data: Path, out: Path | None, asked: "Asked", *, dry_run: bool) -> None:
    if not asked.limits and asked.weights is None:
        raise UserError(
            "say what the network may cost: --macs 10M, --params 1M, --activations 1M, --size 5MB, --latency 10ms or "
            "--memory 50MB; or start from --weights, which fix it"
        )
    if out is None and not dry_run:
        raise UserError("say where the run shall lie: --out RUN, a new or empty directory; or --dry-run for the plan")
    wish = asked.wish()
    if out is None or dry_run:
        _plan_only(output, data, wish, out)
    else:
        _fit(output, data, wish, out)


def _plan_only(output: Output, data: Path, wish: "Wish", out: Path | None) -> None:
    from triscale.cli.watching import Watcher
    from triscale.fitting import draft

    with (
        stopping_gently(going_on("fit", out)) as signalled,
        Watcher(output, signalled, may_balance=not wish.balance) as watcher,
    ):
        drafted = draft(data, wish, watcher, out)
    plan, images = drafted.plan, len(drafted.ready.images.train)
    output.result({"plan": plan.to_dict()}, lambda console: show_plan(console, plan, images))
    again = [word for word in sys.argv[1:] if word != "--dry-run"]
    at = again.index("--") if "--" in again else len(again)  # after it all words are places
    output.next_command("triscale", *again[:at], *([] if out else ["--out", "RUN"]), *again[at:])


def _fit(output: Output, data: Path, wish: "Wish", out: Path) -> None:
    from triscale.cli.watching import Watcher
    from triscale.fitting import How, begin

    with (
        stopping_gently(going_on("fit", out)) as signalled,
        Watcher(output, signalled, may_balance=not wish.balance) as watcher,
    ):
        fitted = begin(data, out, wish, How(watcher))
    _answer(output, fitted)


def _go_on(output: Output, out: Path | None, data: Path | None, asked: "Asked", typed: frozenset[str]) -> None:
    if out is None:
        raise UserError("say which run shall go on: --resume --out RUN")
    from triscale.cli.watching import Watcher
    from triscale.fitting import How
    from triscale.fitting import resume as go_on

    arguments.check_as_begun(out, typed, takes={*REPEATED, "data", "out", "resume", "as_json"})
    named = {key: value for key, value in asked.values().items() if key in typed} if typed & REPEATED else {}
    with stopping_gently(going_on("fit", out, data)) as signalled, Watcher(output, signalled) as watcher:
        fitted = go_on(out, How(watcher), data, named)
    assert fitted is not None  # alone, this process leads
    _answer(output, fitted)


def _answer(output: Output, fitted: "Fitted") -> None:
    output.result(values(fitted), lambda console: show(console, fitted))
    output.next_command("triscale", "predict", fitted.run.path, "PICTURE")


def values(fitted: "Fitted") -> dict[str, Any]:
    """What `fit` answers with --json."""
    total, plan = fitted.plan.scaled.cost, fitted.plan
    return {
        "run": str(fitted.run.path),
        "report": str(fitted.run.report),
        **fitted.to_json(),
        "expected_seconds": plan.expected,
        "epochs": plan.recipe.epochs,
        "weights": None if plan.weights is None else plan.weights.to_json(),
        "candidates": list(plan.candidates),
        "why": plan.why,
        "scaling": summary(fitted.plan.scaled),
        "cost": {"params": total.params, "macs": total.macs, "activations": total.activations, "size": total.size},
        "architecture": to_dict(fitted.plan.architecture),
    }


def show_precision(console: Console, fitted: "Fitted") -> None:
    """In which precision the model answers, where half precision was judged."""
    if fitted.half.lost is None:
        return
    from triscale.reporting.precision import precision_words

    words = precision_words(fitted.half.to_json())
    console.print(words[:1].lower() + words[1:].removesuffix("."))


def show(console: Console, fitted: "Fitted") -> None:
    """What `fit` answers to a person."""
    scaled = fitted.plan.scaled
    console.print(f"test accuracy {fitted.test.top()}; {copies(fitted.leaks)}")
    for term, limit in (scaled.limits or {}).items():
        value = fitted.achieved[term]
        used = f"{show_term(term, value)} used ({value / limit:.1%})"
        over = "" if value <= limit else "; more than was asked: the machine is slower than when it was planned"
        console.print(f"budget of {show_term(term, limit)} {label(term)}: {used}{over}")
    from triscale.engines.table import ENGINES

    measured = fitted.latency
    console.print(
        f"one image takes {format_seconds(measured.median)} here (80 % within {format_seconds(measured.low)} to "
        f"{format_seconds(measured.high)}, n = {measured.n}, threads: {measured.threads}, "
        f"{ENGINES[measured.engine].title} in {measured.precision})"
    )
    show_precision(console, fitted)
    if fitted.scratch is not None:
        console.print(f"from scratch, on the same split: {fitted.scratch.top}")
        console.print(f"the weights are worth {fitted.gain}")
    if fitted.plan.recipe.patience is not None:
        console.print(f"kept: epoch {fitted.kept}, the last that validation does not find worse than the best")
    elif fitted.steps < fitted.plan.steps:
        made = f"{fitted.steps:,} of {fitted.plan.steps:,}"
        console.print(f"the machine was slower than planned: {made} steps were made in the time")
    console.print(f"took {format_seconds(fitted.seconds)}; the run is {fitted.run.path}")
    console.print(f"report: {fitted.run.report}")
