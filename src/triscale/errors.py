"""What can go wrong, in words a person can act on."""


class TriscaleError(Exception):
    """A failure of the work itself (exit code 1): the message says what was lost and what was not."""


class UserError(TriscaleError, ValueError):
    """A mistake in what was asked (exit code 2): one line that names the value and a way out."""
