"""What every verb prints with: results on standard output, everything else on standard error."""

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segments
from rich.table import Table

WIDEST = 1000  # columns of a table
# What moves a cursor or ends a line; names of files and classes may hold any of it.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def on_one_line(text: str) -> str:
    """The text with its control characters as escapes: \\n, \\x1b."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class PlainConsole(Console):
    """Prints texts as they are: a path or a class may be called ``[bold]``."""

    def __init__(self, *, to_errors: bool = False) -> None:
        stream = sys.stderr if to_errors else sys.stdout
        # A pipe or a file has no width of its own: nothing is cut there.
        width = None if stream.isatty() else 200
        super().__init__(stderr=to_errors, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)

    def print(self, *objects: object, **how: Any) -> None:
        """As Rich prints, each text on one line: names of files and classes cannot command the terminal."""
        super().print(*(on_one_line(one) if isinstance(one, str) else one for one in objects), **how)

    def on_broken_pipe(self) -> NoReturn:
        """The reader of a pipe went away; Rich would end the process as failed."""
        raise BrokenPipeError


@dataclass(frozen=True)
class Output:
    """Where a verb writes. With `as_json` standard output holds one JSON object and nothing else."""

    as_json: bool = False

    @property
    def notes(self) -> Console:
        """Standard error: progress and notes; of several processes only the first one's."""
        console = PlainConsole(to_errors=True)
        console.quiet = os.environ.get("RANK", "0") != "0"
        return console

    def result(self, values: Mapping[str, object], show: Callable[[Console], None]) -> None:
        """The verb's answer, once: as JSON or as `show` prints it for a person."""
        if self.as_json:
            write_json(values)
        else:
            show(PlainConsole())

    def next_command(self, *words: object, hint: str = "") -> None:
        """The next useful command, ready to be pasted."""
        if not self.as_json:
            self.notes.print("next:", pasteable(*words) + hint, style="dim")

    def progress(self) -> Progress:
        """A bar with the time left, where a person watches."""
        return self._bar(MofNCompleteColumn())

    def bytes_progress(self) -> Progress:
        """The same, counting bytes."""
        return self._bar(DownloadColumn())

    def _bar(self, count: ProgressColumn) -> Progress:
        notes = self.notes
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            count,
            TimeRemainingColumn(elapsed_when_finished=True),
            console=notes,
            transient=True,
            disable=not notes.is_terminal,
        )


def pasteable(*words: object) -> str:
    """The command of these words, as a shell takes it. What names a place has to be a `Path`: one that begins with a
    dash is written so that it is none of the options."""
    return " ".join(
        _quoted(f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)) for word in words
    )


def _quoted(word: str) -> str:
    """One word of a command; control characters as the shells' $'…' has them."""
    if not _CONTROLS.search(word):
        return shlex.quote(word)
    return "$'" + on_one_line(word.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def write_json(values: Mapping[str, object]) -> None:
    """One line of ASCII on standard output, whatever its encoding."""
    sys.stdout.write(json.dumps(_finite(values)) + "\n")


def _finite(value: object) -> object:
    """JSON knows no NaN: a figure that does not exist is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class PlainTable(Table):
    """A row of it is one line, whatever the names in it."""

    def add_row(self, *cells: Any, **how: Any) -> None:
        """As Rich adds it."""
        super().add_row(*(on_one_line(cell) if isinstance(cell, str) else cell for cell in cells), **how)


def table(*columns: str) -> Table:
    """A plain table: the first column to the left, figures to the right."""
    made = PlainTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return made


def print_table(console: Console, made: Table) -> None:
    """The table whole: on a narrow terminal its lines wrap, no figure is cut off."""
    wide = console.options.update(max_width=WIDEST)
    needed = console.measure(made, options=wide).maximum
    # A console never prints wider than itself what it lays out; what is laid out already it leaves as it is.
    console.print(Segments(console.render(made, wide.update(width=needed))), crop=False, end="")


def copies(leaks: int) -> str:
    """What stands beside every test accuracy: how much of it may be remembered rather than learned."""
    if not leaks:
        return "none of these images is a copy of one learned from"
    return f"{leaks:,} of these images are exact copies of images learned from"
