"""Ctrl-C and SIGTERM while a run trains: the first asks it to keep what it has, the second ends at once."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from triscale.cli.console import pasteable
from triscale.errors import HopelessError, TooShortError, TriscaleError, UserError, is_out_of_memory


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM: unwinds everything, so that files are closed and nothing half-written stays.

    number: of the signal. text: what a person is told, where it is not the usual.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(number, text)
        self.number, self.text = number, text


@dataclass
class Signalled:
    """Whether a signal came, and which. gentle: whether somebody looks here after every step, so that one may wait.
    begun: whether there is a training to go on with."""

    number: int = 0
    gentle: bool = False
    begun: bool = False


@contextmanager
def stopping_gently(again: tuple[object, ...]) -> Iterator[Signalled]:
    """While steps are made, a first signal only notes that it came; a second one, or one at another time, raises
    `Interrupted` at once. However a training ends early, the command to go on is part of what is said."""
    from triscale.training import StoppedError

    signalled = Signalled()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    way_on = way(again)

    def note(number: int, _frame: FrameType | None) -> None:
        if not signalled.gentle or signalled.number:
            text = f"interrupted; the last checkpoint is kept: {way_on}" if signalled.begun else ""
            raise Interrupted(number, text)
        signalled.number = number

    for number in before:
        signal.signal(number, note)
    try:
        yield signalled
    except StoppedError as error:
        raise Interrupted(signalled.number or signal.SIGTERM, f"{error}, which is kept; {way_on}") from None
    except TooShortError as error:
        longer = way((*again, "--time", f"{math.ceil(error.least)}s"))
        raise (UserError(f"{error}; then {longer}") if signalled.begun else error) from None
    except UserError as error:
        raise (UserError(f"{error}; then {way_on}") if signalled.begun else error) from None
    except HopelessError:
        raise
    except TriscaleError as error:
        raise (TriscaleError(f"{error}; {way_on}") if signalled.begun else error) from None
    except (RuntimeError, MemoryError) as error:
        if not (signalled.begun and is_out_of_memory(error)):
            raise
        raise TriscaleError(f"not enough memory; where there is more, {way_on}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def going_on(verb: str, out: Path | None, data: Path | None = None) -> tuple[object, ...]:
    """The words that go on with a run. data: where its images lie, if they have moved."""
    return "triscale", verb, *([] if data is None else [data]), "--resume", "--out", out or "RUN"


def way(again: tuple[object, ...]) -> str:
    """The command of these words, as what comes next."""
    return f"go on with: {pasteable(*again)}"
