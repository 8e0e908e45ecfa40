"""What is not answered, and why: one line of JSON."""


class RefusedError(Exception):
    """A request that is not answered. status: of HTTP. again: after how many seconds it may be asked again."""

    def __init__(self, status: int, reason: str, *, again: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.again = status, " ".join(reason.split()), again

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, where asking again makes sense."""
        return {} if self.again is None else {"retry-after": str(self.again)}


class GoneError(RefusedError):
    """Whoever asked has hung up: nobody reads the answer."""

    def __init__(self) -> None:
        super().__init__(499, "the connection was closed before the answer")
