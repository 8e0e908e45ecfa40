"""Small pictures that lie inside a page."""

import base64
import io

from PIL import Image

from triscale.data.decoding import Pixels

LOSSLESS = 64  # pixels: smaller pictures are few bytes as they are


def address(pixels: Pixels, side: int = 128) -> str:
    """uint8 [h, w, c] → a data address, at most ``side`` pixels long. Of other channels than 1 or 3 the first."""
    if pixels.shape[2] not in (1, 3):
        pixels = pixels[:, :, :1]
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((side, side))
    kind = "png" if max(image.size) <= LOSSLESS else "jpeg"
    out = io.BytesIO()
    image.save(out, kind)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
