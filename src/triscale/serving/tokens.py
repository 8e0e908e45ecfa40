"""Who may ask: a token that both sides know."""

import hmac
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from triscale.errors import UserError

VARIABLE = "TRISCALE_TOKEN"
SHORTEST = 16  # characters: fewer can be found by trying


@dataclass(frozen=True, slots=True)
class Token:
    """Compared in constant time; never printed."""

    text: str = field(repr=False)

    def fits(self, header: str | None) -> bool:
        """Whether a request's `Authorization` says `Bearer` and this token."""
        scheme, _, said = (header or "").partition(" ")
        same = hmac.compare_digest(said.strip().encode("utf-8", "surrogateescape"), self.text.encode())
        return same and scheme.lower() == "bearer"


def find_token(file: Path | None) -> Token | None:
    """The only line of the file, or else from the environment variable `TRISCALE_TOKEN`; never from the command line,
    which everybody on the machine can read. Raises `UserError`."""
    if file is None:
        text, where = os.environ.get(VARIABLE, ""), VARIABLE
        if not text:
            return None
    else:
        where = f"--token-file {file}"
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from None
    lines = text.strip().splitlines()
    if len(lines) != 1 or not lines[0].isascii() or not lines[0].isprintable() or " " in lines[0]:
        raise UserError(f"{where}: is not one line of letters and digits; make one by openssl rand -hex 32")
    if len(lines[0]) < SHORTEST:
        raise UserError(
            f"{where}: a token of {len(lines[0])} characters is soon found by trying; make one by openssl rand -hex 32"
        )
    return Token(lines[0])


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only. Raises `UserError` for one that means nothing."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--host {host}: is no address of this machine ({why}); leave it out for 127.0.0.1") from None
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)
