"""What every verb prints with: results on standard output, everything else on standard error."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Output:
    """Where a verb writes. With `as_json` standard output holds one JSON object and nothing else."""

    as_json: bool = False

    @property
    def notes(self) -> Console:
        """Standard error: progress and notes."""
        return Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, values: dict[str, Any], show: Callable[[Console], None]) -> None:
        """The verb's answer, once: as JSON or as `show` prints it for a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(_finite(values), ensure_ascii=False) + "\n")
        else:
            # A pipe or a file has no width of its own: nothing is cut there.
            show(Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200))

    def next_command(self, text: str) -> None:
        """The next useful command."""
        if not self.as_json:
            self.notes.print(f"[dim]next:[/dim] {text}", markup=True)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: a figure that does not exist is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table: the first column to the left, figures to the right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return made
