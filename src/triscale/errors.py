"""What can go wrong, in words a person can act on."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out: Python's own error, or one of PyTorch's, which share no class."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
