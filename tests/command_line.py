"""What the documentation says of the command line, made from the command line itself; and whether a command is one."""

import re
import shlex
from collections.abc import Callable
from typing import Any

import typer
from pages import ROOT
from typer.exceptions import TyperException

from triscale.cli.main import app

GENERATED = re.compile(
    r"^<!-- (?P<kind>options|verbs|figures)(?:: (?P<of>[^>]+?))? -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL
)


def verbs() -> dict[str, Any]:
    """Every verb, in the order of `triscale --help`, with its command."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, a subcommand included, and the words after it."""
    command = verbs()[words[0]]
    rest = words[1:]
    below = getattr(command, "commands", {})
    if rest and rest[0] in below:
        return below[rest[0]], rest[1:]
    return command, rest


def accept(text: str, *, whole: bool = True) -> None:
    """Raises where the command line has no such verb, option or argument; carries nothing out. whole: nothing that it
    needs may be missing, as it may where a sentence only names an option."""
    words = shlex.split(text, comments=True)[1:]
    if words and not words[0].startswith("-"):
        command, rest = _command(words)
        try:
            command.make_context(words[0], rest)
        except TyperException as error:
            if whole or type(error).__name__ != "MissingParameter":
                raise


def options(name: str) -> str:
    """The table of a verb's arguments and options, from the same values as its `--help`."""
    command, _ = _command(name.split())
    context = command.make_context(name, [], resilient_parsing=True)
    rows = ["| argument or option | | default |", "|---|---|---|"]
    for parameter in command.params:
        name_of, text = parameter.get_help_record(context)
        found = re.match(r"(?P<text>.*?)(?:  \[(?:default: )?\(?(?P<value>.*?)\)?\])?$", text)
        assert found is not None
        rows.append(f"| `{name_of}` | {_cell(found['text'])} | {_cell(found['value'] or '')} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def list_of_verbs(_: str) -> str:
    """A line a verb: its page, and the first sentence of its help."""
    rows = ["| verb | what it does |", "|---|---|"]
    for name, command in verbs().items():
        first = " ".join((command.help or "").split("\n\n")[0].split())
        rows.append(f"| [`{name}`]({name}.md) | {_cell(first)} |")
    return "\n".join(rows)


def figures(page: str) -> str:
    """The table of measured figures in the README, with links as a page in docs/ has them."""
    text = (ROOT / page).read_text()
    found = re.search(r"^\| what \| figure \| n \| command \|\n(?:\|.*\n)+", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{page} has no table of figures")
    return found[0].rstrip().replace("](docs/", "](")


MAKERS: dict[str, Callable[[str], str]] = {"options": options, "verbs": list_of_verbs, "figures": figures}


def made(found: re.Match[str]) -> str:
    """What should stand between the marks of a generated part, the marks included."""
    of = found["of"] or ""
    mark = f"<!-- {found['kind']}{': ' + of if of else ''} -->"
    return f"{mark}\n\n{MAKERS[found['kind']](of)}\n\n<!-- end -->"
