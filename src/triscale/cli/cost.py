"""`triscale cost`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triscale.arch import to_dict
from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.costing import Cost
from triscale.units import format_bytes, format_count
from triscale.verbs import cost, network

BATCH = 32


def command(
    name: arguments.Network,
    resolution: arguments.Resolution = None,
    channels: arguments.Channels = None,
    classes: arguments.Classes = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """What a network costs: exact parameters, MACs and activations, estimated memory; without building it.

    Example: triscale cost efficientnet_b0 --resolution 32 --classes 10
    """
    output = Output(as_json)
    size = arguments.resolution(resolution)
    arch = network(name, resolution=size, channels=channels, classes=classes)
    total = cost(arch)
    values = {
        "name": arch.name,
        "resolution": list(arch.resolution),
        "params": total.params,
        "macs": total.macs,
        "activations": total.activations,
        "size": total.size,
        "memory": {**asdict(total.memory), "training_batch": BATCH, "training": total.memory.training(BATCH)},
        "layers": [asdict(layer) for layer in total.layers],
        "architecture": to_dict(arch),
    }
    output.result(values, lambda console: _show(console, arch.name, total, layers))
    given = {"--resolution": resolution, "--channels": channels, "--classes": classes}
    adapted = [word for option, value in given.items() if value is not None for word in (option, value)]
    output.next_command("triscale", "scale", Path(name), *adapted, "--macs", format_count(2 * total.macs))


def _show(console: Console, name: str, total: Cost, layers: bool) -> None:
    height, width = total.architecture.resolution
    console.print(f"{name} at {height}×{width} pixels, {total.architecture.classes:,} classes")
    rows = table("", "", "")
    rows.add_row("parameters", format_count(total.params), f"{total.params:,}")
    rows.add_row("MACs", format_count(total.macs), f"{total.macs:,}")
    rows.add_row("activations", format_count(total.activations), f"{total.activations:,}")
    rows.add_row("weights, fp32", format_bytes(total.size), "")
    rows.add_row("memory to run one image (estimate)", format_bytes(total.memory.inference), "")
    rows.add_row(f"memory to train on {BATCH} (estimate)", format_bytes(total.memory.training(BATCH)), "")
    print_table(console, rows)
    if layers:
        listing = table("layer", "output", "kernel", "groups", "parameters", "MACs")
        for layer in total.layers:
            shape = f"{layer.outputs}×{layer.output[0]}×{layer.output[1]}"
            figures = (str(layer.kernel), str(layer.groups), f"{layer.params:,}", f"{layer.macs:,}")
            listing.add_row(layer.name, shape, *figures)
        print_table(console, listing)
