"""The documentation's pages as the tests and `docs/refresh.py` see them: their commands, run, and what came out.

In a fence of the language `console` a line that begins with `$ ` is a command, and what follows is what it prints, both
streams as a terminal shows them. A fence whose title says `not run` is for the reader alone; one whose title says
`varies` is run, but what it prints is only shown.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from triscale.cli.main import run

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
TEXTS = {str(page.relative_to(DOCS)): page.read_text() for page in sorted(DOCS.rglob("*.md"))}
HOME = "~"  # stands in the pages for the directory in which their commands are run
FENCE = re.compile(r'^```console(?: title="(?P<title>[^"\n]*)")?\n(?P<body>.*?)^```$', re.MULTILINE | re.DOTALL)
MOST_ALIKE = 12  # lines that differ in figures alone; of more a page shows the first two and the last
SHELL = set("|<>;&*`$()")  # with any of these a command is the shell's


@dataclass
class Command:
    """A command as the page has it, and the lines that it prints there."""

    text: str
    printed: list[str] = field(default_factory=list)

    @property
    def output(self) -> str:
        return "\n".join(self.printed).rstrip("\n")


@dataclass(frozen=True)
class Block:
    """A fence of commands; `start` and `end` are where its body lies in the page's text."""

    title: str
    commands: list[Command]
    start: int
    end: int

    @property
    def runs(self) -> bool:
        return "not run" not in self.title

    @property
    def compared(self) -> bool:
        return self.runs and "varies" not in self.title

    def may_fail(self, position: int) -> bool:
        """Whether the page shows that this command, or one after it, ends with an exit code of its own."""
        return any(command.text == "echo $?" for command in self.commands[position:])


def blocks(text: str) -> Iterator[Block]:
    """The fences of commands of a page."""
    for found in FENCE.finditer(text):
        commands: list[Command] = []
        for line in found["body"].splitlines():
            if line.startswith("$ "):
                commands.append(Command(line[2:]))
            elif commands and commands[-1].text.endswith("\\"):
                commands[-1].text += "\n" + line
            elif commands:
                commands[-1].printed.append(line)
            else:
                raise ValueError(f"output without a command: {line!r}")
        yield Block(found["title"] or "", commands, *found.span("body"))


class Terminal:
    """Runs a page's commands in one directory; `rc` is the exit code of the last one.

    A command that ends with ` &` goes on until `kill %1`, or until the terminal is closed.
    """

    def __init__(self, directory: Path, *others: Path) -> None:
        self.directory = directory
        self.rc = 0
        self.places = [str(place) for place in (directory, *others)]  # how the directory shows in what is printed
        self.behind: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def type(self, text: str) -> str:
        """What a command prints, on both streams, with the directory written as `HOME`."""
        if text == "echo $?":
            return str(self.rc)
        if text == "kill %1":
            printed = self._end()
        elif text.endswith(" &"):
            printed = self._begin(text.removesuffix(" &"))
        elif self._is_ours(text):
            printed = self._here(shlex.split(text)[1:])
        else:
            printed = self._shell(text)
        for place in self.places:
            printed = printed.replace(place, HOME)
        return "\n".join(line.rstrip() for line in printed.splitlines()).strip("\n")

    @staticmethod
    def _is_ours(text: str) -> bool:
        return text.startswith("triscale ") and not SHELL & set(text)

    def _here(self, words: list[str]) -> str:
        """In this process: PyTorch is imported once for all pages."""
        stream, before = io.StringIO(), sys.argv
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        sys.argv = ["triscale", *words]
        try:
            with (
                contextlib.chdir(self.directory),
                contextlib.redirect_stdout(stream),
                contextlib.redirect_stderr(stream),
            ):
                self.rc = run()
        finally:
            sys.argv = before
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return stream.getvalue()

    def _shell(self, text: str) -> str:
        with self._started(text) as process:
            printed, _ = process.communicate()
        self.rc = process.returncode
        return printed

    def _started(self, text: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", text],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        )

    def _begin(self, text: str) -> str:
        """What a program prints up to the hint at the next command: then it is ready."""
        self.behind = self._started(f"exec {text}")
        assert self.behind.stdout is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith("next:")) and (line := self.behind.stdout.readline()):
            lines.append(line)
        self.rc = 0
        return "".join(lines)

    def _end(self) -> str:
        """What the program behind prints when it is asked to end."""
        if self.behind is None:
            return ""
        with self.behind as process:
            process.terminate()
            printed, _ = process.communicate(timeout=60)
        self.behind = None
        return printed


def begins_empty(text: str) -> bool:
    """Whether a page makes its images and its run itself; the others begin where `triscale demo` ends."""
    first = next(blocks(text), None)
    return first is not None and first.commands[0].text == "triscale demo"


def furnish(directory: Path, text: str, demo: Path) -> Terminal:
    """A fresh directory with what a page starts from: nothing, or the images and the run in `demo`."""
    directory.mkdir(parents=True)
    if not begins_empty(text):
        shutil.copytree(demo / "runs", directory / "runs")
    return Terminal(directory, demo)


# What a machine, a clock or a seed decides: written the same before pages and outputs are compared.
TIME = re.compile(r"\d+(?:\.\d+)? (?:h|min|s|ms|µs)\b(?: \d+ (?:min|s)\b)?")
NUMBER = re.compile(r"(?<![A-Za-z_\d])[+-]?\d(?:[\d.,]*\d)?(?:e-?\d+)?(?:[kMG]\b| ?%)?")
VARIES = (
    (re.compile(r"\b(?:bf16|fp32) on (?:cpu|cuda)"), "PRECISION on DEVICE"),
    (re.compile(r", own kernels in # layers"), ""),
    (re.compile(r", (?:Triscale's engine|PyTorch) in (?:fp32|bf16)"), ""),
    (re.compile(r"^→ "), ""),
    (re.compile(r"\b[\w.]+-fit(?:-scaled)?\b"), "NETWORK"),
    (re.compile(r"(?<=^channels trimmed after the official rounding: ).*"), "…"),
    (re.compile(r"(?<=: )the maps .*"), "VERDICT"),
    (re.compile(r"^taken: .*"), "taken: …"),
    (re.compile(r"(?<= )[+-] #"), "± #"),
    (re.compile(r"more than chance explains|chance alone may explain it"), "VERDICT"),
    (re.compile(r"\bby rule \w+"), "by rule …"),
)
SOMETIMES = re.compile(r"^(?:too slow for|…$)")  # lines that are not always there


def shape(output: str) -> list[str]:
    """The lines of an output without what is measured; of lines that are then alike one is left."""
    lines: list[str] = []
    for line in output.splitlines():
        bare = " ".join(NUMBER.sub("#", TIME.sub("#", line)).split())
        for pattern, same in VARIES:
            bare = pattern.sub(same, bare)
        if bare and not SOMETIMES.match(bare) and lines[-1:] != [bare]:
            lines.append(bare)
    return lines


def shortened(output: str) -> str:
    """An output for a page: of many lines that differ in their figures alone the first two and the last."""
    groups: list[list[str]] = []
    for line in output.splitlines():
        if groups and line.strip() and shape(groups[-1][-1]) == shape(line):
            groups[-1].append(line)
        else:
            groups.append([line])
    few = [[*group[:2], "…", group[-1]] if len(group) > MOST_ALIKE else group for group in groups]
    return "\n".join(line for group in few for line in group)
