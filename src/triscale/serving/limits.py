"""What a server puts up with: every limit in one value."""

from dataclasses import dataclass, fields

from triscale.data.decoding import MAX_PIXELS
from triscale.errors import UserError


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    body: of one request. bodies: of all requests together, while they arrive and until they are answered. pixels: of a
    picture, as its header says, before one is decoded. head: for a request's head to arrive, and how long a connection
    may idle. arrival: for its body. deadline: from there to the answer. queue: images that are accepted and not yet
    answered. batch: images that are computed at once. wait: how long a batch waits for others that are on their way.
    connections: at the same time; where one more comes, the one that has been sending for longest gives way.

    Raises `UserError` for a limit that lets nothing through.
    """

    body: int = 16_000_000
    bodies: int = 256_000_000
    pixels: int = 50_000_000
    head: float = 5.0
    arrival: float = 10.0
    deadline: float = 10.0
    queue: int = 128
    batch: int = 8
    wait: float = 0.002
    connections: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 and not (field.name == "wait" and value == 0):
                raise UserError(f"--{field.name} {value}: nothing would be let through; write a number above 0")
        if self.batch > self.queue:
            raise UserError(f"--batch {self.batch}: is more than --queue {self.queue}, so no batch would ever be full")
        if self.body > self.bodies:
            raise UserError(f"--body {self.body}: is more than {self.bodies} bytes, which all requests share")
        if self.pixels > MAX_PIXELS:
            raise UserError(f"--pixels {self.pixels}: pictures of more than {MAX_PIXELS:,} pixels are never decoded")
