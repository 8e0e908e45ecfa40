"""What part of a picture a network saw, and where in it a position of a map lies."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from triscale.arch import Architecture, Padding
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


def centres(architecture: Architecture, stage: int | None = None) -> tuple[Floats, Floats]:
    """Pixels of the input, counted from 0, on which the rows and the columns of a map are centred.

    stage: whose map, counted from 0; the last without it. Both paddings shift the middle of a receptive field away
    from the middle of the map's cell, each to another side: at stride 32 by half a cell.
    """
    last = len(architecture.stages) - 1 if stage is None else stage
    stem = architecture.stem
    steps = [(stem.kernel, stem.stride), (3, stem.pool)]
    steps += [(part.block.kernel, part.stride) for part in architecture.stages[: last + 1]]
    height, width = architecture.resolution
    return _centres(steps, height, architecture.padding), _centres(steps, width, architecture.padding)


def _centres(steps: list[tuple[int, int]], size: int, padding: Padding) -> Floats:
    first, apart = 0.0, 1
    for kernel, stride in steps:
        if stride == 1:
            continue
        after = -(-size // stride)
        before = max((after - 1) * stride + kernel - size, 0) // 2 if padding == "same" else kernel // 2
        first += apart * ((kernel - 1) / 2 - before)
        apart *= stride
        size = after
    return (first + apart * np.arange(size)).astype(np.float32)


def cells(positions: int, pixels: int) -> Floats:
    """Where so many positions are centred if they share a side of so many pixels evenly."""
    return ((np.arange(positions) + 0.5) * (pixels / positions) - 0.5).astype(np.float32)


def spread(values: Floats, at: tuple[Floats, Floats], resolution: tuple[int, int], size: tuple[int, int]) -> Floats:
    """A map [h, w] over a picture, float32 [*size]: bilinear between its positions, constant outside them.

    at: the pixels of the input of `resolution` (h, w) on which its rows and columns are centred.
    """
    rows, columns = (_between(pixels, side, where) for pixels, side, where in zip(size, resolution, at, strict=True))
    return np.asarray(rows @ values.astype(np.float64) @ columns.T, np.float32)


def _between(pixels: int, side: int, where: Floats) -> npt.NDArray[np.float64]:
    """The weights [pixels, positions] of linear interpolation, for pixels that share an input's side evenly."""
    middles = cells(pixels, side)
    return np.stack([np.interp(middles, where, share) for share in np.eye(len(where))], axis=1)
