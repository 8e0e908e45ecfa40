"""From the bytes of a picture to what the network sees of it, and to its map drawn over that."""

import base64
import io
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
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
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
    if content.startswith(_JPEG) and content.count(_SCAN) > MOST_SCANS:
        raise RefusedError(415, f"the picture comes in more than {MOST_SCANS} scans; save it anew")
    try:
        pixels = decode(bytes(content), served.preprocess.channels, max_pixels)
    except BadPictureError as error:
        if "max_pixels" in str(error):
            raise TooManyPixelsError(f"the picture is too large: {error}; send a smaller one") from None
        raise RefusedError(415, f"the picture cannot be read: {error}; send one that opens elsewhere") from None
    return Seen(served.preprocess(pixels), pixels if keep else None)


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
