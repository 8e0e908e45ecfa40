"""What part of a picture a network saw, how it is shown, and a map spread over it."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from triscale.data import Preprocess
from triscale.data.preprocessing import Box, cover_box

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SHORTEST, SHORT_AT_MOST, LONGEST = 320, 640, 1280  # pixels of a side of what is shown
BLOCKY = 4  # times: pictures that are enlarged more show their pixels as they are


def seen_box(preprocess: Preprocess, size: tuple[int, int]) -> Box:
    """(left, top, right, bottom) in pixels of a picture of `size` (h, w): what becomes the network's input."""
    if preprocess.squash:
        return 0.0, 0.0, float(size[1]), float(size[0])
    return cover_box(size, preprocess.resolution, preprocess.crop)


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds them all."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def show(pixels: Pixels, box: Box) -> Pixels:
    """The box of uint8 [h, w, 1 or 3] → uint8 [H, W, 3], to be looked at: its short side 320 to 640 pixels."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(max(1.0, SHORTEST / min(width, height)), SHORT_AT_MOST / min(width, height))
    scale = min(scale, LONGEST / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale >= BLOCKY else Image.Resampling.BICUBIC
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize(size, how, box=box).convert("RGB"))


def window(box: Box, shown: Box, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns, of the `shown` box drawn at `size` (h, w), that `box` covers: at least one each."""

    def span(low: float, high: float, start: float, end: float, pixels: int) -> slice:
        first, last = ((edge - start) / (end - start) * pixels for edge in (low, high))
        first = min(round(first), pixels - 1)
        return slice(first, max(first + 1, round(last)))

    rows = span(box[1], box[3], shown[1], shown[3], size[0])
    return rows, span(box[0], box[2], shown[0], shown[2], size[1])


def spread(values: Floats, size: tuple[int, int]) -> Floats:
    """A map [h, w] over all of a picture, float32 [*size]: bilinear between its positions, constant beyond the outer.

    The positions share the picture evenly, as is usual. What each of them looks at is far wider than its share, and the
    padding of strides moves the middle of that by up to half a share, but training makes up for it: of 96 things pasted
    into pictures, efficientnet_lite0's evidence had its middle 3 ± 1 pixels from theirs (of 224; the padding alone
    would say 16). Small networks may be off by half a share.
    """
    rows, columns = (_between(pixels, positions) for pixels, positions in zip(size, values.shape, strict=True))
    return np.asarray(rows @ values.astype(np.float64) @ columns.T, np.float32)


def _between(pixels: int, positions: int) -> npt.NDArray[np.float64]:
    """The weights [pixels, positions] of linear interpolation between positions that share a side evenly."""
    middles = (np.arange(pixels) + 0.5) * (positions / pixels) - 0.5
    return np.stack([np.interp(middles, np.arange(positions), share) for share in np.eye(positions)], axis=1)
