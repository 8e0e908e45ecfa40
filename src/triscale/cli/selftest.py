"""`triscale train --selftest`."""

import typer
from rich.console import Console

from triscale.cli.console import Output
from triscale.units import format_seconds


def show_selftest(output: Output) -> None:
    """Runs it and says what came out; leaves with 1 where the bytes differ."""
    from triscale.fitting.selftest import Selftest, selftest

    notes = output.notes
    found = selftest(lambda text: notes.print(text))
    values = {
        "same": found.same,
        "kills": found.kills,
        "model_sha256": list(found.model),
        "metrics_sha256": list(found.metrics),
        "seconds": found.seconds,
    }

    def show(console: Console, found: Selftest = found) -> None:
        for name, (peace, killed) in (("model", found.model), ("metrics", found.metrics)):
            console.print(f"{name}, never killed: {peace}")
            console.print(f"{name}, killed {found.kills} times: {killed}")
        word = "the same bytes" if found.same else "other bytes"
        console.print(
            f"{word}: a killed training was gone on with {found.kills} times, {format_seconds(found.seconds)}"
        )

    output.result(values, show)
    if not found.same:
        raise typer.Exit(1)
    output.next_command("triscale", "train", "IMAGES", "--architecture", "efficientnet_b0", "--out", "RUN")
