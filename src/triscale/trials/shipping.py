"""Images that travel: whoever receives them needs no common disk."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triscale.data import Data, Images
from triscale.data.decoding import BadPictureError, BoxOf, Pixels, decode, decode_part, read_bytes
from triscale.data.pictures import Files, Indices
from triscale.data.threads import ordered_map
from triscale.errors import UserError


@dataclass(frozen=True, eq=False)
class Encoded:
    """Pictures as the bytes of their files, decoded when asked for.

    content: uint8 [bytes], all files one after the other: one array, which the processes of a node can share. starts,
    ends: int64 [n], where in it picture i lies.
    """

    content: npt.NDArray[np.uint8]
    starts: Indices
    ends: Indices
    channels: int
    max_pixels: int

    def pixels(self, i: int) -> Pixels:
        """uint8 [h, w, channels]."""
        return decode(self._file(i), self.channels, self.max_pixels)

    def part(self, i: int, box_of: BoxOf, least: tuple[int, int]) -> Pixels:
        """uint8 [h, w, channels], see `decode_part`."""
        return decode_part(self._file(i), box_of, least, self.channels, self.max_pixels)

    def array(self) -> None:
        """Pixels are never held."""
        return

    def select(self, indices: Indices) -> "Encoded":
        """The pictures at ``indices``, in that order; the bytes are not copied."""
        return replace(self, starts=self.starts[indices], ends=self.ends[indices])

    def _file(self, i: int) -> bytes:
        return self.content[self.starts[i] : self.ends[i]].tobytes()


def shipped(data: Data) -> Data:
    """The same images with all that their pixels are made of. Raises `UserError` where a file is not as it was read."""
    return replace(data, train=_shipped(data.train), val=_shipped(data.val), test=_shipped(data.test))


def _shipped(images: Images) -> Images:
    source = images.source
    if not isinstance(source, Files):
        return images

    def one(item: tuple[Path, bytes]) -> bytes:
        path, digest = item
        try:
            content = read_bytes(path, source.max_pixels)
        except BadPictureError as error:
            raise UserError(f"data: '{path}' cannot be read any more: {error}; put it back, or read again") from None
        if hashlib.sha256(content).digest() != digest:
            raise UserError(f"data: '{path}' has changed since it was read; put it back as it was, or read again")
        return content

    files = list(ordered_map(one, zip(source.paths, images.digests, strict=True)))
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    starts = ends - np.array([len(file) for file in files], np.int64)
    content = np.frombuffer(b"".join(files), np.uint8)
    return replace(images, source=Encoded(content, starts, ends, source.channels, source.max_pixels))
