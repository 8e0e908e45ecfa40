"""What can go wrong, in words a person can act on."""

import sys


class TriscaleError(Exception):
    """A failure of the work itself (exit code 1): the message says what was lost and what was not."""


class UserError(TriscaleError, ValueError):
    """A mistake in what was asked (exit code 2): one line that names the value and a way out."""


class TooShortError(UserError):
    """A time that is too short for the least that was asked. what: that, without the way out. least: the seconds that
    it takes, about."""

    def __init__(self, what: str, way: str, least: float) -> None:
        super().__init__(f"{what}; {way}")
        self.what, self.least = what, least


class HopelessError(TriscaleError):
    """What would end in the same way if it went on as it is."""


class OneLineWarning(UserWarning):
    """What is told in one line, while the work goes on."""


class SlowerWarning(OneLineWarning):
    """What is missing here: the work takes longer."""


class LessExactWarning(OneLineWarning):
    """What is missing here: answers are less exact."""


def no_text(usually: str) -> str:
    """What is wrong with the name of a file that is not UTF-8, with the way out: what it is ``usually``, unless the
    locale has names in an encoding of fewer letters; then they may well be UTF-8."""
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return usually
    return f"is no name in this locale, which has names of files in {encoding}; export LC_ALL=C.UTF-8, or PYTHONUTF8=1"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out: Python's own error, or one of PyTorch's, which share no class."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
