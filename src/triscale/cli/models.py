"""`triscale models`."""

from rich.console import Console

from triscale.arch import ZOO, published
from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.costing import cost
from triscale.units import format_count


def command(as_json: arguments.Json = False) -> None:
    """The published networks that Triscale knows by name, with their cost.

    Example: triscale models
    """
    output = Output(as_json)
    zoo = {name: (cost(published(name)), entry.source) for name, entry in ZOO.items()}
    values = {
        name: {
            "params": total.params,
            "macs": total.macs,
            "activations": total.activations,
            "resolution": list(total.architecture.resolution),
            "source": source,
        }
        for name, (total, source) in zoo.items()
    }

    def show(console: Console) -> None:
        rows = table("name", "pixels", "parameters", "MACs", "activations")
        for name, (total, _) in zoo.items():
            figures = map(format_count, (total.params, total.macs, total.activations))
            rows.add_row(name, str(total.architecture.resolution[0]), *figures)
        print_table(console, rows)

    output.result({"models": values}, show)
    output.next_command("triscale", "cost", "efficientnet_b0")
