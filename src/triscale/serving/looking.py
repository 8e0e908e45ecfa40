"""From the bytes of a picture to what the network sees of it, and to its map drawn over that."""

import base64
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor, stack

from triscale.data.decoding import BadPictureError, Pixels, decode
from triscale.explaining import class_activation_maps
from triscale.explaining.drawing import paint
from triscale.explaining.seeing import Floats, seen_box, show, spread
from triscale.nn.network import Network
from triscale.serving.opening import Served
from triscale.serving.refusing import RefusedError

MOST_SCANS = 50  # of a JPEG: ten are usual, and each may cost as much as the whole picture while it takes 75 bytes
MOST_SEGMENTS = 10_000  # a colour profile comes in a few hundred at most
_JPEG, _SCAN, _END = b"\xff\xd8", 0xDA, 0xD9
# Those that a length follows, and the end. The decoder looks for them in the same way, from wherever it is: what else
# begins with FF is filling, a byte of data or a restart, or has no length.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
QUALITY = 90  # of the JPEG that a map is sent as


class TooManyPixelsError(RefusedError):
    """A picture whose header says that it has more pixels than are decoded here."""

    def __init__(self, reason: str) -> None:
        super().__init__(413, reason)


class Seen(NamedTuple):
    """The network's input, float32 (c, h, w); and the pixels that it was made of, where a map is wanted of them."""

    input: Tensor
    pixels: Pixels | None


class Asked(NamedTuple):
    """A map that is wanted: of this input, for the class at this place among the logits."""

    input: Tensor
    place: int


def look(served: Served, content: bytes | bytearray, max_pixels: int, keep: bool) -> Seen:
    """Raises `TooManyPixelsError`, and `RefusedError` 415 for what is no picture that can be read."""
    if content.startswith(_JPEG) and has_many_scans(content):
        raise RefusedError(415, f"the picture comes in more than {MOST_SCANS} scans; save it anew")
    try:
        pixels = decode(bytes(content), served.preprocess.channels, max_pixels)
    except BadPictureError as error:
        if "max_pixels" in str(error):
            raise TooManyPixelsError(f"the picture is too large: {error}; send a smaller one") from None
        raise RefusedError(415, f"the picture cannot be read: {error}; send one that opens elsewhere") from None
    return Seen(served.preprocess(pixels), pixels if keep else None)


def has_many_scans(jpeg: bytes | bytearray) -> bool:
    """Whether it asks for more work than pictures do, up to its end: phones put a film behind it. What is malformed may
    be anything but slow; the decoder refuses it."""
    place, scans = 0, 0
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(jpeg, place)
        kind = _END if found is None else jpeg[found.end() - 1]
        if found is None or kind == _END:
            return False
        scans += kind == _SCAN
        if scans > MOST_SCANS:
            return True
        place = found.end()
        place += max(2, int.from_bytes(jpeg[place : place + 2], "big"))  # the length counts its own two bytes
    return True


def compute_maps(network: Network, asked: Sequence[Asked]) -> list[Floats]:
    """The activation map of each, float32 (h, w)."""
    x = stack([one.input for one in asked]).to(next(network.parameters()).device)
    found = class_activation_maps(network, x, [one.place for one in asked])
    return list(found.values.float().cpu().numpy())


def draw(served: Served, pixels: Pixels, values: Floats) -> str:
    """What the network saw in gray under its evidence, orange for the class and blue against it: a `data:` address."""
    picture = show(pixels, seen_box(served.preprocess, pixels.shape[:2]))
    evidence = spread(values, picture.shape[:2]) / max(float(abs(values).max()), 1e-12)
    file = io.BytesIO()
    Image.fromarray(paint(picture, evidence)).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
