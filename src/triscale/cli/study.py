"""`triscale study`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.cli import arguments, trials
from triscale.cli.console import Output, print_table, table
from triscale.errors import UserError
from triscale.units import format_count, format_seconds, parse_count, parse_seconds

if TYPE_CHECKING:
    from triscale.studies import Asked, Line, Studied


CHANGES = frozenset({"time", "design", "arms", "seeds", "again"})  # what a study that goes on may be told anew


def command(
    context: typer.Context,
    data: arguments.RunData = None,
    out: arguments.RunOut = None,
    baseline: Annotated[
        str, typer.Option(help="The network to scale: a zoo name, a JSON file, a run directory.")
    ] = "efficientnet_b0",
    factor: Annotated[float, typer.Option(help="How many times the baseline's MACs every arm costs.")] = 2.0,
    time: Annotated[
        str | None,
        typer.Option(help="Wall clock for all of it: 1h, 8h. Decides the design.", show_default=False),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(help="The mixes to train: five, ten, paper, or a JSON file.", show_default="what --time allows"),
    ] = None,
    arms: Annotated[
        list[Path] | None, typer.Option(help="A JSON file of mixes to add to the design.", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each arm, at least 3.", show_default="what --time allows")
    ] = None,
    again: Annotated[
        bool | None,
        typer.Option(
            "--again/--no-again",
            help="Train the best arms at the squared factor too.",
            show_default="where --time allows",
        ),
    ] = None,
    images: trials.Images = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over them.", show_default="what --time allows")] = None,
    macs: Annotated[
        str | None, typer.Option(help="MACs of the baseline: 3M.", show_default="what --time allows")
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            help="The baseline's, in pixels: 18, or 24x32.", show_default="below the images', so that there is room"
        ),
    ] = None,
    recipe: trials.Recipe = None,
    seed: arguments.Seed = 0,
    workers: trials.Workers = None,
    executor: trials.Executor = "local",
    address: trials.Address = None,
    device: arguments.Device = None,
    on_bad: arguments.OnBad = "error",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the study in --out; with --time, --design, --arms or --seeds, extend it."
        ),
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Measure how depth, width and resolution pay off for a network on images: the α, β, γ of compound scaling.

    Trains mixes of the three at equal cost with the same seeds, and says which is best, how sure that is, and what the
    data cannot tell. Leaves coefficients.json, which triscale scale and triscale fit take as --rule.

    Example: triscale study IMAGES --baseline mobilenet_v2 --factor 2 --time 1h --out STUDY
    """
    output = Output(as_json)
    if out is None:
        raise UserError("say where the study shall lie: --out STUDY, a new or empty directory; or the one to --resume")
    if data is None and not resume:
        raise UserError("say which images: triscale study IMAGES --time 1h --out STUDY")
    cluster, seconds = trials.cluster(executor, address), None if time is None else parse_seconds(time, "--time")
    from triscale.studies import Asked, Wanted, make_designs
    from triscale.training import find_recipe

    named, more = make_designs(design, arms or ())
    asked = Asked(
        baseline=baseline,
        wanted=Wanted(seconds, named, more, seeds, again),
        factor=factor,
        images=images,
        epochs=epochs,
        macs=None if macs is None else parse_count(macs, "--macs"),
        resolution=arguments.resolution(resolution),
        recipe=None if recipe is None else find_recipe(recipe),
        seed=seed,
        workers=workers,
        device=device,
        cluster=cluster,
        on_bad=arguments.on_bad(on_bad),
    )
    if resume:
        studied = _go_on(output, data, asked, out, trials.said(context), _repeat(design, arms or (), seeds, again))
    else:
        assert data is not None  # asked for above
        studied = _begin(output, data, asked, out)
    report, values = studied.run.report, studied.values
    output.result({"study": str(out), "report": str(report), **values}, lambda console: show(console, values, report))
    if values["recommended"]["fitted"] is not None:
        rule = out / "coefficients.json"
        grown = format_count(max(20e6, 4 * values["baseline"]["macs"]))
        words = ("--baseline", out / "baseline.json", "--macs", grown, "--rule", rule, "--out", "RUN")
        output.next_command("triscale", "fit", data or "IMAGES", *words)


def _begin(output: Output, data: Path, asked: "Asked", out: Path) -> "Studied":
    from triscale.cli.study_watching import StudyWatcher
    from triscale.studies import begin_study

    with StudyWatcher(output) as watcher, trials.telling_how_to_go_on("study", out, watcher):
        return begin_study(data, asked, out, watcher)


def _go_on(
    output: Output, data: Path | None, asked: "Asked", out: Path, said: frozenset[str], repeat: Sequence[object]
) -> "Studied":
    """The study there, to its end. said: the parameters that were typed. repeat: the words that change its design."""
    from triscale.cli.study_watching import StudyWatcher
    from triscale.studies import resume_study

    with StudyWatcher(output) as watcher, trials.telling_how_to_go_on("study", out, watcher, data=data, repeat=repeat):
        return resume_study(
            out,
            data=data,
            changes=asked.wanted if said & CHANGES else None,
            named=asked.named(said),
            workers=asked.workers,
            cluster=asked.cluster,
            listener=watcher,
        )


def _repeat(design: str | None, arms: Sequence[Path], seeds: int | None, again: bool | None) -> list[object]:
    """What changes a design, as it was typed."""
    words: list[object] = [] if design is None else ["--design", design]
    words += [word for path in arms for word in ("--arms", path)]
    words += [] if seeds is None else ["--seeds", seeds]
    return words + ([] if again is None else ["--again" if again else "--no-again"])


def show_ladder(console: Console, lines: Sequence["Line"], chosen: int) -> None:
    """The designs there are, and which one was taken."""
    made = table("", "design", "arms", "seeds", "trials", "each", "takes", "shows")
    made.columns[1].justify = "left"
    for place, line in enumerate(lines):
        rung = line.rung
        made.add_row(
            "→" if place == chosen else "",
            rung.design.name + (", best again" if rung.twice else ""),
            str(len(rung.design.arms)),
            str(rung.seeds),
            str(rung.trials),
            str(line.fidelity),
            format_seconds(line.seconds),
            f"{100 * line.detects:.2f} points",
        )
    print_table(console, made)


def show(console: Console, values: Mapping[str, Any], report: Path) -> None:
    """What `study` answers to a person."""
    for at in values["factors"]:
        _show_factor(console, at)
    surface = values["surface"]
    if surface is None:
        console.print(f"no surface: {values['why_no_surface']}")
    else:
        shares = surface["optimum"]
        bounds = surface["ranges"]
        ranges = ", ".join(
            f"{name} {shares[name]:.0%} ({bounds[name][0]:.0%} to {bounds[name][1]:.0%})"
            for name in ("depth", "width", "resolution")
        )
        console.print(f"best mix by the fitted surface, with its 95 % set: {ranges}")
        found = (
            f"{letter} = {surface[key]:.3f} ({bounds[key][0]:.3f} to {bounds[key][1]:.3f})"
            for letter, key in zip("αβγ", ("alpha", "beta", "gamma"), strict=True)
        )
        console.print(", ".join(found))
    first = values["factors"][0] if values["factors"] else None
    if first is not None and len(first["tied"]) == len(first["arms"]):
        more = "not a million seeds" if first["needed"] is None else f"about {first['needed']:,} seeds"
        console.print(f"these data cannot tell the arms apart; {more} would tell the best two")
    fastest = values["recommended"]["fastest"]
    if fastest is not None:
        console.print(f"fastest of the tied arms here: {fastest['arm']} ({format_seconds(fastest['latency'])})")
    console.print(f"report: {report}")


def _show_factor(console: Console, at: Mapping[str, Any]) -> None:
    console.print(
        f"{at['factor']:g} times the MACs; tied with the best: {', '.join(at['tied'])}; a difference of "
        f"{100 * at['detects']:.2f} points shows"
    )
    made = table(
        "", "arm", "d", "w", "r", "pixels", "MACs", "latency", "selection", "test", "95 % interval", "to compound"
    )
    made.columns[1].justify = "left"
    for arm in sorted(at["arms"], key=lambda arm: -arm["selection_mean"][0]):
        multipliers, latency, test = arm["multipliers"], arm["latency"], arm["test_mean"]
        to = arm["to_compound"]
        made.add_row(
            "=" if arm["tied"] else "",
            arm["name"],
            *(f"{multipliers[key]:.2f}" for key in ("depth", "width", "resolution")),
            "×".join(map(str, arm["resolution"])) + (" !" if arm["upscaled"] else ""),
            format_count(arm["macs"]),
            "" if latency is None else format_seconds(latency["median"]),
            f"{arm['selection_mean'][0]:.2%}",
            "" if test is None else f"{test[0]:.2%}",
            "" if test is None else f"{test[1]:.2%} to {test[2]:.2%}",
            "" if to is None else f"{100 * to[0]:+.2f} ({100 * to[1]:+.2f} to {100 * to[2]:+.2f})",
        )
    print_table(console, made)
