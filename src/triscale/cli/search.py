"""`triscale search`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.cli import arguments, trials
from triscale.cli.console import Output, print_table, table
from triscale.errors import UserError
from triscale.stats import FEWEST_APART
from triscale.units import format_count, format_seconds, parse_seconds

if TYPE_CHECKING:
    from triscale.searching import Asked, Searched


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
    time: Annotated[
        str | None,
        typer.Option(help="Wall clock for all of it: 1h, 8h. Decides what is not said.", show_default=False),
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="Networks to try.", show_default="what --time allows")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The network to search around, scaled to the limits: a zoo name, a JSON file, a run directory.",
            show_default="a small EfficientNet; from 64 pixels on efficientnet_b0",
        ),
    ] = None,
    space: Annotated[
        str, typer.Option(help="What may stand in its stages: around, mnasnet, or a JSON file (see space.json).")
    ] = "around",
    objective: Annotated[
        str, typer.Option(help="What is best: constraint, hard, abs or paper (accuracy × (cost/limit)^w).")
    ] = "constraint",
    exponent: Annotated[
        float | None, typer.Option(help="w of the objectives paper and abs.", show_default="-0.07")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the w of the objective paper on these images first.")
    ] = False,
    strategy: Annotated[
        str, typer.Option(help="Who proposes networks: evolution, random (the control) or tpe.")
    ] = "evolution",
    images: trials.Images = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of a full training.", show_default="9, or what --time allows")
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            help="The reference's, in pixels: 28, or 24x32.", show_default="the images', or that of your own reference"
        ),
    ] = None,
    recipe: trials.Recipe = None,
    seed: arguments.Seed = 0,
    workers: trials.Workers = None,
    executor: trials.Executor = "local",
    address: trials.Address = None,
    device: arguments.Device = None,
    on_bad: arguments.OnBad = "error",
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another search whose curve the page shows too: its directory.", show_default=False),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the search in --out; with --time or --candidates, extend it."),
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Find a baseline on your images, under your limits: a network that study, fit and scale take by its path.

    Tries networks around a reference by successive halving, trains the best five and the reference with three seeds,
    and says what it found, and whether that is better. Test images are never looked at.

    Example: triscale search IMAGES --macs 5M --time 1h --out SEARCH
    """
    output = Output(as_json)
    if out is None:
        raise UserError("say where the search shall lie: --out SEARCH, a new or empty directory; or one to --resume")
    if data is None and not resume:
        raise UserError("say which images: triscale search IMAGES --macs 5M --time 1h --out SEARCH")
    limits = arguments.budgets(macs, params, activations, size, latency, memory)
    if not limits and not resume:
        raise UserError("say what a network may cost: --macs 5M, --params 1M, --size 5MB, --latency 10ms, …")
    from triscale.searching import Asked
    from triscale.training import find_recipe

    asked = Asked(
        limits=limits,
        reference=reference,
        space=space,
        objective=objective,
        exponent=exponent,
        calibrate=calibrate,
        strategy=strategy,
        time=None if time is None else parse_seconds(time, "--time"),
        candidates=candidates,
        images=images,
        epochs=epochs,
        resolution=arguments.resolution(resolution),
        recipe=None if recipe is None else find_recipe(recipe),
        seed=seed,
        workers=workers,
        device=device,
        cluster=trials.cluster(executor, address),
        on_bad=arguments.on_bad(on_bad),
        beside=tuple(beside or ()),
    )
    searched = _carry_out(output, data, asked, out, asked.named(trials.said(context)) if resume else None)
    values, report = searched.values, searched.run.report
    found = out / "network.json"
    output.result(
        {"search": str(out), "network": str(found), "report": str(report), **values},
        lambda console: show(console, values, report),
    )
    output.next_command("triscale", "study", data or "IMAGES", "--baseline", found, "--time", "1h", "--out", "STUDY")


def _carry_out(
    output: Output, data: Path | None, asked: "Asked", out: Path, named: Mapping[str, Any] | None
) -> "Searched":
    """A new search; or the one there to its end, where something may be `named` once more."""
    from triscale.cli.search_watching import SearchWatcher
    from triscale.searching import begin_search, resume_search

    moved = None if named is None else data
    with SearchWatcher(output) as watcher, trials.telling_how_to_go_on("search", out, watcher, data=moved):
        if named is None:
            assert data is not None  # asked for before
            return begin_search(data, asked, out, watcher)
        return resume_search(
            out,
            data=data,
            time=asked.time,
            candidates=asked.candidates,
            named=named,
            workers=asked.workers,
            cluster=asked.cluster,
            beside=asked.beside,
            listener=watcher,
        )


def show(console: Console, values: Mapping[str, Any], report: Path) -> None:
    """What `search` answers to a person."""
    by_order = {one["order"]: one for one in (values["reference"], *values["candidates"])}
    made = table("", "network", "MACs", "parameters", "latency", "accuracy", "95 % interval", "uses")
    made.columns[1].justify = "left"
    for order in (*values["finalists"], -1):
        one = by_order[order]
        accuracy, latency = one["accuracy"], one["latency"]
        made.add_row(
            "→" if order == values["winner"] else "",
            one["label"],
            format_count(one["macs"]),
            format_count(one["params"]),
            "" if latency is None else format_seconds(latency["median"]),
            "" if accuracy is None else f"{accuracy[0]:.2%}",
            "" if accuracy is None or len(accuracy) < 3 else f"{accuracy[1]:.2%} to {accuracy[2]:.2%}",
            f"{one['used']:.1%}",
        )
    print_table(console, made)
    gain = values["gain"]
    if values["winner"] == -1:
        console.print("nothing better than the reference was found; network.json is the reference")
    elif gain is not None and len(gain) == 3:
        images, sure = gain[0] * values["selection_images"], ""
        if gain[2] < 0:
            sure = "; it won for what it costs"
        elif gain[1] <= 0:
            sure = "; the interval contains zero: these seeds do not tell them apart"
        elif images < FEWEST_APART:
            sure = f"; that is {images:.1f} of {values['selection_images']:,} validation images, and may be chance"
        mean, low, high = (f"{100 * value:+.2f}" for value in gain)
        console.print(f"over the reference: {mean} points (95 % interval {low} to {high}){sure}")
    tried, trained = len(values["candidates"]), values["time"]["trials"]
    console.print(
        f"{tried} networks tried in {trained} trials; accuracies are of the validation images, by which it was chosen"
    )
    console.print(f"report: {report}")
