"""PNG files by hand: such as no library would write."""

import struct
import zlib

GRAY, COLOURS = 0, 2


def png(width: int, height: int, rows: bytes, *, depth: int = 8, kind: int = COLOURS) -> bytes:
    """rows: of the pixels, each behind a byte for its filter; what is there of them. depth: bits of a value."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb(width: int = 20_000, height: int = 20_000, *, kind: int = COLOURS) -> bytes:
    """A few hundred bytes that say that they are a large picture: 1.2 GB once decoded."""
    return png(width, height, bytes(10_000), kind=kind)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
