"""The scaling tables of the EfficientNet paper (arXiv 1905.11946v5), recomputed: Table 3, Table 7, Figure 3.

    python examples/paper_tables.py [--json]

Every network is grown with the official rounding and costed from its description; nothing is built or trained. The
paper's "FLOPs" are multiply-accumulates (MACs). It does not print the multipliers of two compound rows: those are
solved for, with the compound rule and the printed figure as the budget.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from triscale.arch import multiply, published
from triscale.costing import cost
from triscale.scaling import RULES, Budget, Multipliers, solve

# network, multipliers (None: not printed), printed FLOPs in billions (None: the figure prints no numbers)
Row = tuple[str, Multipliers | None, float | None]

TABLE_3: tuple[Row, ...] = (
    ("mobilenet_v1", Multipliers(1, 1, 1), 0.6),
    ("mobilenet_v1", Multipliers(1, 2, 1), 2.2),
    ("mobilenet_v1", Multipliers(1, 1, 2), 2.2),
    ("mobilenet_v1", Multipliers(1.4, 1.2, 1.3), 2.3),
    ("mobilenet_v2", Multipliers(1, 1, 1), 0.3),
    ("mobilenet_v2", Multipliers(4, 1, 1), 1.2),
    ("mobilenet_v2", Multipliers(1, 2, 1), 1.1),
    ("mobilenet_v2", Multipliers(1, 1, 2), 1.2),
    ("mobilenet_v2", None, 1.3),
    ("resnet50", Multipliers(1, 1, 1), 4.1),
    ("resnet50", Multipliers(4, 1, 1), 16.2),
    ("resnet50", Multipliers(1, 2, 1), 14.7),
    ("resnet50", Multipliers(1, 1, 2), 16.4),
    ("resnet50", None, 16.7),
)
TABLE_7: tuple[Row, ...] = (
    ("efficientnet_b0", Multipliers(1, 1, 1), 0.4),
    ("efficientnet_b0", Multipliers(4, 1, 1), 1.8),
    ("efficientnet_b0", Multipliers(1, 2, 1), 1.8),
    ("efficientnet_b0", Multipliers(1, 1, 2), 1.9),
    ("efficientnet_b0", Multipliers(1.4, 1.2, 1.3), 1.8),
)
FIGURE_3: tuple[Row, ...] = (
    *(("efficientnet_b0", Multipliers(width=width), None) for width in (1.0, 1.4, 1.8, 2.6, 3.8, 5.0)),
    *(("efficientnet_b0", Multipliers(depth=depth), None) for depth in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)),
    *(("efficientnet_b0", Multipliers(resolution=r), None) for r in (1.0, 1.3, 1.5, 1.7, 1.9, 2.2, 2.5)),
)


@dataclass(frozen=True)
class Result:
    """A row beside what it really costs. deviation_percent: of the computed from the printed figure."""

    network: str
    depth: float
    width: float
    resolution: float
    solved: bool
    pixels: int
    macs: int
    printed_macs: float | None
    deviation_percent: float | None
    trim: tuple[str, ...]


def compute(rows: tuple[Row, ...]) -> Iterator[Result]:
    """Grows, or solves, and costs each row's network."""
    for name, multipliers, printed in rows:
        base, limit = published(name), None if printed is None else printed * 1e9
        trim: tuple[str, ...] = ()
        if multipliers is not None:
            m = multipliers
            network = multiply(base, m.depth, m.width, m.resolution)
        else:
            assert limit is not None
            solved = solve(base, RULES["compound"], Budget({"macs": limit}))
            m, network = solved.multipliers, solved.architecture
            trim = tuple(f"{step.place} {step.official}→{step.channels}" for step in solved.trim)
        macs = cost(network).macs
        deviation = None if limit is None else 100 * (macs / limit - 1)
        yield Result(
            network=name,
            depth=m.depth,
            width=m.width,
            resolution=m.resolution,
            solved=multipliers is None,
            pixels=network.resolution[0],
            macs=macs,
            printed_macs=limit,
            deviation_percent=deviation,
            trim=trim,
        )


def show(console: Console, title: str, results: list[Result]) -> None:
    """One table."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("GMACs of", no_wrap=True)
    for heading in ("d", "w", "r", "pixels", "paper", "computed", "off by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results:
        printed = "–" if row.printed_macs is None else f"{row.printed_macs / 1e9:.1f}"
        deviation = "–" if row.deviation_percent is None else f"{row.deviation_percent:+.1f}%"
        factors = (f"{value:.3g}" for value in (row.depth, row.width, row.resolution))
        name = f"{row.network}, solved" if row.solved else row.network
        table.add_row(name, *factors, str(row.pixels), printed, f"{row.macs / 1e9:.3f}", deviation)
    console.print(table)
    for row in results:
        if row.trim:
            console.print(f"{row.network}, solved: trimmed after the official rounding: {', '.join(row.trim)}")


def main() -> None:
    """Prints the tables, or one JSON object."""
    parser = argparse.ArgumentParser(description="Recomputes the scaling tables of the EfficientNet paper.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    tables = {"table_3": TABLE_3, "table_7": TABLE_7, "figure_3": FIGURE_3}
    results = {name: list(compute(rows)) for name, rows in tables.items()}
    if parser.parse_args().json:
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in results.items()}))
        return
    titles = {
        "table_3": "Table 3: MobileNets and ResNet-50",
        "table_7": "Table 7: EfficientNet-B0, one dimension against all three",
        "figure_3": "Figure 3: EfficientNet-B0, one dimension at a time; it prints no numbers",
    }
    for name, rows in results.items():
        show(Console(), titles[name], rows)


if __name__ == "__main__":
    main()
