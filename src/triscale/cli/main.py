"""`triscale`: one program, a verb a command. Exit codes: 0 done, 1 failed, 2 asked wrongly, 3 unsound data, 130 and 143
interrupted."""

import io
import os
import re
import signal
import sys
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

import typer
from typer.exceptions import TyperException

from triscale.cli import (
    bench,
    compare,
    cost,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    fit,
    models,
    predict,
    scale,
    search,
    serve,
    study,
    train,
)
from triscale.cli.console import on_one_line, write_json
from triscale.cli.stopping import Interrupted
from triscale.errors import OneLineWarning, TriscaleError, UserError, is_out_of_memory

app = typer.Typer(
    name="triscale",
    help="Finds the most accurate convolutional network that a budget can buy.",
    epilog="Start with: triscale demo · triscale fit IMAGES --macs 10M --out RUN",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("fit")(fit.command)
app.add_typer(models.app, name="models")
app.command("cost")(cost.command)
app.command("scale")(scale.command)
app.command("study")(study.command)
app.command("search")(search.command)
app.command("train")(train.command)
app.command("eval")(evaluate.command)
app.command("compare")(compare.command)
app.command("predict")(predict.command)
app.command("explain")(explain.command)
app.command("export")(export.command)
app.command("serve")(serve.command)
app.command("bench")(bench.command)
app.command("doctor")(doctor.command)
app.command("demo")(demo.command)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("triscale"))
        raise typer.Exit


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


_LINE_ENDS = re.compile(r"[ \t]*[\r\n]+[ \t]*")  # of libraries' messages; blanks in names stay as they are


def _complain(message: str, code: int) -> int:
    """One line on standard error; with --json an object on standard output."""
    line = on_one_line(_LINE_ENDS.sub(" ", message.strip()))
    if os.environ.get("RANK", "0") != "0":  # of several processes only the first speaks
        return code
    try:
        if "--json" in sys.argv:
            write_json({"error": line})
            sys.stdout.flush()
        else:
            sys.stderr.write(f"triscale: {line}\n")
    except OSError:  # nobody can be told
        return code or 1
    return code


def _any_stream() -> None:
    """Whatever standard output is: closed, or of an encoding that lacks a letter; it never stops the work."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _given(error: TyperException) -> str:
    """What was typed for the option that the parser complains of: its own message does not name the value."""
    names = getattr(getattr(error, "param", None), "opts", [])
    typed = []  # an option may stand there several times, and which of them is wrong is not said
    for place, word in enumerate(sys.argv):
        option, equals, value = word.partition("=")
        if option in names and (equals or place + 1 < len(sys.argv)):
            typed.append(f"{option} {value if equals else sys.argv[place + 1]}")
    return f" ({' '.join(typed)})" if typed else ""


def _help(error: TyperException) -> str:
    """The command whose help lists what could have been typed there."""
    words, context = ["--help"], getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(["triscale", *words])


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings as a line like those of errors; those of libraries as Python shows them."""
    if not issubclass(category, OneLineWarning):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
    elif os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"triscale: {message}\n")


def _check_here() -> None:
    """Raises `UserError` in a directory that was deleted: libraries end the process there, without a word of ours."""
    try:
        Path.cwd()
    except OSError as error:
        why = "no longer exists" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise UserError(f"the current directory {why}; cd somewhere else") from None


def run() -> int:
    """The command line of this process, to its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    _any_stream()
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _answer()


def _answer() -> int:
    """What was asked, and its exit code."""
    try:
        _check_here()
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _complain(str(error), 2)
    except TriscaleError as error:
        return _complain(str(error), 1)
    except typer.Exit as leave:
        return leave.exit_code
    except Interrupted as stop:
        return _complain(stop.text or "interrupted; your images are as they were", 128 + stop.number)
    except BrokenPipeError:  # the reader of a pipe went away: no fault of anybody's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TyperException as error:  # what the parser could not make sense of
        return _complain(f"{error.format_message().rstrip('.')}{_given(error)}; see {_help(error)}", 2)
    except OSError as error:
        return _complain(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except Exception as error:
        if is_out_of_memory(error):
            return _complain("not enough memory; a smaller network, or fewer images at a time, need less", 1)
        traceback.print_exc()  # a fault of this program: everything that helps to find it, and the promised line
        return _complain(f"internal error: {type(error).__name__}: {error}", 1)


def main() -> NoReturn:
    """Entry point of the `triscale` command."""
    code = run()
    try:
        sys.stdout.flush()
    except OSError:  # already said: what is left in the buffer must not fail once more as Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
