"""What the verbs share that train many networks: who carries trials out, what was typed, and how one goes on."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import typer

from triscale.cli.stopping import Interrupted, going_on, way
from triscale.errors import HopelessError, TooShortError, TriscaleError, UserError

EXECUTORS = ("local", "ray")

Workers = Annotated[int | None, typer.Option(help="Trials at once.", show_default="measured")]
Executor = Annotated[str, typer.Option(help="Who carries trials out: local, or ray, a cluster.")]
Address = Annotated[
    str | None, typer.Option(help="Of the Ray cluster: auto, or host:port.", show_default="one begun here")
]
Images = Annotated[
    int | None,
    typer.Option(help="Training images of each trial, a stratified part.", show_default="what --time allows"),
]
Recipe = Annotated[str | None, typer.Option(help="How to train: a name or a JSON file.", show_default="quick")]


def cluster(executor: str, address: str | None) -> str | None:
    """The address of the cluster that is asked for, "" for one that is begun here, None for none. Raises
    `UserError`."""
    if executor not in EXECUTORS:
        raise UserError(f"--executor {executor!r}: is neither local nor ray")
    if address is not None and executor != "ray":
        raise UserError(f"--address {address}: of a Ray cluster; say --executor ray too")
    return (address or "") if executor == "ray" else None


def said(context: typer.Context) -> frozenset[str]:
    """The parameters that were typed, not taken by default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


class Begun(Protocol):
    """Who knows whether there is something to go on with."""

    begun: bool


@contextmanager
def telling_how_to_go_on(
    verb: str, out: Path, watcher: Begun, *, data: Path | None = None, repeat: Sequence[object] = ()
) -> Iterator[None]:
    """However the work in here ends early: once it has begun, the command that goes on is said. data: where images lie
    that have moved since, which is said each time. repeat: options that a command with another time has to name once
    more, for what is refused is not kept."""
    again = going_on(verb, out, data)
    way_on = way(again)
    kept = f"finished trials are kept; {way_on}"
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(stop.number, kept if watcher.begun else "") from None
    except HopelessError as error:
        raise (TriscaleError(f"{error}; finished trials are kept") if watcher.begun else error) from None
    except TooShortError as error:
        longer = way((*again, *repeat, "--time", f"{math.ceil(error.least)}s"))
        raise (UserError(f"{error}; finished trials are kept; then {longer}") if watcher.begun else error) from None
    except TriscaleError as error:
        named = "go on with --resume"  # where the library names its option, the command stands in its place
        text = str(error).replace(named, way_on) if named in str(error) else f"{error}; {kept}"
        kind = UserError if isinstance(error, UserError) else TriscaleError
        raise (kind(text) if watcher.begun else error) from None
