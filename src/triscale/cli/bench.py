"""`triscale bench`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.units import format_bytes, format_count

if TYPE_CHECKING:
    from triscale.benching import Bench
    from triscale.benching.measuring import Case
    from triscale.stats import Spread

SLOWEST = 5  # layers in the table for people
WORDS = {
    "depthwise": "depthwise convolutions",
    "pointwise": "1×1 convolutions",
    "convolution": "larger convolutions",
    "squeeze_excite": "squeeze-excite",
    "classifier": "classifier",
    "activation": "activations",
    "other": "other",
}


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="A zoo name, a run directory, a file of weights, or an exported file (.onnx, .xml).",
            show_default=False,
        ),
    ],
    peers: Annotated[
        bool,
        typer.Option("--peers", help="All engines that are installed; torch.compile takes minutes before its first."),
    ] = False,
    batch: Annotated[
        list[int] | None, typer.Option(help="Images at a time; may be said again.", show_default="1, 32")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads; may be said again.", show_default="1, and all cores")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each engine.")] = 15,
    as_json: arguments.Json = False,
) -> None:
    """How fast a network is on this CPU, by every engine in turns, and why it is not faster.

    Example: triscale bench efficientnet_b0 --peers
    """
    output = Output(as_json)
    from triscale.benching import bench

    with output.progress() as bar:
        task = bar.add_task("timing", total=None)
        found = bench(
            name,
            peers=peers,
            batches=batch or (1, 32),
            threads=threads,
            rounds=rounds,
            progress=lambda what, n, of: bar.update(task, description=f"timing: {what}", completed=n, total=of),
        )
    output.result(asdict(found), lambda console: _show(console, found))
    for engine, why in found.missing.items():
        output.notes.print(f"{engine} is left out: {why}")
    if not peers and found.why is not None:
        output.next_command("triscale", "bench", Path(name), "--peers")


def _show(console: Console, found: "Bench") -> None:
    console.print(f"{found.name}: {format_count(found.macs)} MACs, {format_count(found.params)} parameters")
    for case in found.cases:
        _show_case(console, case)
    console.print()
    console.print("a new process to its first image, beyond Python and numpy")
    rows = table("engine", "ms", "10th to 90th percentile", "n", "import", "load", "first image", "memory at the peak")
    for engine, one in found.starts.items():
        whole = one.seconds["whole"].times(1e3)
        parts = [f"{one.seconds[part].median * 1e3:.0f}" for part in ("import", "load", "first")]
        rows.add_row(
            engine, f"{whole.median:.0f}", _between(whole, 0), str(whole.n), *parts, format_bytes(one.memory.median)
        )
    print_table(console, rows)
    _show_why(console, found)


def _show_case(console: Console, case: "Case") -> None:
    speeds = ", ".join(f"{precision} {speed / 1e9:.0f} GMAC/s" for precision, speed in case.limits.items())
    console.print()
    console.print(
        f"batch {case.batch}, threads {case.threads}" + (f"; this machine multiplies {speeds}" if speeds else "")
    )
    rows = table("engine", "ms an image", "10th to 90th", "n", "images a second", "of the limit", "to ours", "differs")
    for engine, one in case.engines.items():
        spread = one.milliseconds
        rows.add_row(
            engine,
            f"{spread.median:.3g}",
            _between(spread, 3),
            str(spread.n),
            f"{1e3 / spread.median:,.0f}",
            "" if one.of_limit is None else f"{one.of_limit:.0%}",
            "" if one.compared is None else f"×{one.compared.median:.2f} ({_between(one.compared, 2, fixed=True)})",
            f"{one.differs:.0e}",
        )
    print_table(console, rows)


def _between(spread: "Spread", digits: int, *, fixed: bool = False) -> str:
    if fixed or digits == 0:
        return f"{spread.p10:.{digits}f} to {spread.p90:.{digits}f}"
    return f"{spread.p10:.{digits}g} to {spread.p90:.{digits}g}"


def _show_why(console: Console, found: "Bench") -> None:
    if found.why is None:
        return
    profile = found.why
    console.print()
    console.print(
        f"where Triscale's engine spends its time: one image, {profile.precision}, threads {profile.threads}, "
        f"{profile.nanoseconds / 1e6:.3g} ms in layers, n = {profile.rounds}"
    )
    rows = table("part", "share", "95 % interval")
    for part, one in sorted(profile.estimates.items(), key=lambda pair: -pair[1].value):
        rows.add_row(WORDS[part], f"{one.value:.1%}", f"{one.low:.1%} to {one.high:.1%}")
    print_table(console, rows)
    rows = table("slowest layers", "kind", "MACs", "ms", "GMAC/s", "of the limit")
    for layer in sorted(profile.layers, key=lambda one: -one.nanoseconds.median)[:SLOWEST]:
        ms = layer.nanoseconds.median / 1e6
        rows.add_row(
            layer.name, layer.kind, format_count(layer.macs), f"{ms:.3g}", f"{layer.gmacs:.0f}", f"{layer.of_limit:.0%}"
        )
    print_table(console, rows)
