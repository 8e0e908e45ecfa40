"""Near-duplicates: pictures that are one picture, resized, recompressed, a little cropped, brighter or darker.

A picture is kept as a sketch: 32×32 gray pixels and the colours of 4×4 cells. Two pictures are compared in three steps:

1. Descriptors (the 8×8 lowest frequencies of the sketch, its brightness and contrast taken out) whose distance is at
   most that of the sketches; all pairs within a radius are found, none is missed. The radius is so that a picture has
   eight such pairs on average, and at most that of a correlation of 0.8.
2. Unlikeness: of the sketch of one picture, the share (of its standard deviation) that the other does not explain, when
   brightness, contrast and a shift and stretch of a twenty-fifth are free. It must be 0.2 at most (96 % of the variance
   explained), and colours must agree, unless one of the two has none.
3. Standing out: both pictures must be at least twice as far from every picture that is no near-duplicate. Photographs
   of different things are far apart, so this changes nothing there. Trousers in 28 pixels all look alike: there only
   pairs that are much likelier than the others count, instead of thousands.

Mirrored and rotated copies are no near-duplicates here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from triscale.data.decoding import Pixels
from triscale.data.threads import ordered_map

SIDE = 32
CELLS = 4
FREQUENCIES = 8
FLATTEST = 4.0  # levels of standard deviation; below it a sketch is noise
WIDEST = 0.8  # correlation of descriptors that are worth a comparison
CROWD = 8  # pairs a picture on average that are compared
UNLIKE = 0.2
SHIFT = 1.3  # pixels of the sketch: 4 %
STANDS_OUT = 2.0
COLOURLESS, COLOURS = 3.0, 14.0  # mean distance from gray, and between two pictures, in levels
LEAF, CHUNK = 512, 512

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A picture in 1,056 bytes: gray [32, 32] and, as Cb and Cr, colour [4, 4, 2]."""

    gray: bytes
    colour: bytes


def sketch(pixels: Pixels) -> Sketch:
    """The sketch of uint8 [h, w, 1 or 3]."""
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    size = (SIDE, SIDE)
    gray = image.convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    cells = image.resize((CELLS, CELLS), Image.Resampling.BOX, reducing_gap=3.0).convert("YCbCr")
    return Sketch(gray.tobytes(), np.asarray(cells)[:, :, 1:].tobytes())


def near_pairs(
    sketches: Sequence[Sketch], progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, int, float]]:
    """(i, j, share of the variance explained) of every near-duplicate pair, i < j, the likest first.

    Flat pictures have none. ``progress`` is told (done, total).
    """
    gray = np.frombuffer(b"".join(s.gray for s in sketches), np.uint8).reshape(-1, SIDE, SIDE)
    found, told = _descriptors(gray)
    index = np.flatnonzero(told)
    if len(index) < 2:
        return []
    lowest = _correlation(found[index])
    a, b = _within(found[index], lowest, progress)
    a, b = index[a], index[b]
    unlike = _unlikeness(gray, a, b)
    colour = np.frombuffer(b"".join(s.colour for s in sketches), np.uint8).reshape(len(sketches), -1)
    unlike[_other_colours(colour, a, b)] = 1.0
    kept = _standing_out(a, b, unlike, len(sketches), np.sqrt(2 * (1 - lowest)))
    order = kept[np.lexsort((b[kept], a[kept], unlike[kept]))]
    return [(int(a[k]), int(b[k]), float(1 - unlike[k] ** 2)) for k in order]


def _descriptors(gray: Pixels) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """[n, 64] of length one, and which of them tell anything.

    63 frequencies and the length of all the others: the distance of two such is at most that of the sketches.
    """
    places = np.arange(SIDE)
    waves = np.cos(np.pi * (places + 0.5) * np.arange(FREQUENCIES)[:, None] / SIDE) * np.sqrt(2 / SIDE)
    waves[0] /= np.sqrt(2)
    waves = waves.astype(np.float32)
    found = np.zeros((len(gray), FREQUENCIES**2), np.float32)
    told = np.zeros(len(gray), bool)
    for start in range(0, len(gray), CHUNK):
        part = gray[start : start + CHUNK].astype(np.float32)
        part -= part.mean((1, 2), keepdims=True)
        length = np.sqrt(np.square(part).sum((1, 2)))
        low = (waves @ part @ waves.T).reshape(len(part), -1)[:, 1:]
        rest = np.sqrt(np.maximum(0, length**2 - np.square(low).sum(1)))
        found[start : start + CHUNK] = np.column_stack([low, rest]) / np.maximum(length, 1e-6)[:, None]
        told[start : start + CHUNK] = length / SIDE > FLATTEST
    return found, told


def _correlation(found: Floats) -> float:
    """The lowest correlation of descriptors at which a picture has `CROWD` others on average, from a sample."""
    chance = np.random.default_rng(0)
    few = chance.permutation(len(found))[:500]
    many = chance.permutation(len(found))[:20_000]
    values = (found[few] @ found[many].T)[few[:, None] != many[None, :]]
    pairs = int(CROWD * len(few) * len(many) / len(found))
    return max(WIDEST, float(-np.partition(-values, pairs)[pairs])) if pairs < len(values) else WIDEST


def _leaves(found: Floats) -> Iterator[Indices]:
    """Positions in leaves of a k-d tree: neighbours come to lie together."""
    waiting = [np.arange(len(found))]
    while waiting:
        part = waiting.pop()
        if len(part) <= LEAF:
            yield part
            continue
        widest = int(np.argmax(np.ptp(found[part], axis=0)))
        order, half = np.argpartition(found[part, widest], len(part) // 2), len(part) // 2
        waiting += [part[order[:half]], part[order[half:]]]


def _within(found: Floats, lowest: float, progress: Callable[[int, int], None] | None) -> tuple[Indices, Indices]:
    """All pairs whose descriptors correlate by at least ``lowest``. Boxes that are too far apart are passed over."""
    leaves = list(_leaves(found))
    low = np.stack([found[leaf].min(0) for leaf in leaves])
    high = np.stack([found[leaf].max(0) for leaf in leaves])
    radius = 2 * (1 - lowest)

    def one(k: int) -> tuple[Indices, Indices]:
        apart = np.maximum(0, np.maximum(low[k] - high[k:], low[k:] - high[k]))
        first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for other in np.flatnonzero(np.square(apart).sum(1) <= radius + 1e-6) + k:
            i, j = np.nonzero(found[leaves[k]] @ found[leaves[other]].T >= lowest)
            i, j = leaves[k][i], leaves[other][j]
            once = i < j if other == k else slice(None)
            first.append(np.minimum(i, j)[once])
            second.append(np.maximum(i, j)[once])
        return np.concatenate(first), np.concatenate(second)

    parts = []
    for done, part in enumerate(ordered_map(one, range(len(leaves))), 1):
        parts.append(part)
        if progress is not None:
            progress(done, len(leaves))
    return np.concatenate([i for i, _ in parts]), np.concatenate([j for _, j in parts])


def _unlikeness(gray: Pixels, a: Indices, b: Indices) -> Floats:
    """For each pair the share of the standard deviation that stays unexplained, the larger of both directions."""

    def one(start: int) -> Floats:
        i, j = a[start : start + CHUNK], b[start : start + CHUNK]
        left, right = _smooth(gray[i]), _smooth(gray[j])
        return np.maximum(_unexplained(left, right), _unexplained(right, left))

    return np.concatenate([np.empty(0, np.float32), *ordered_map(one, range(0, len(a), CHUNK))])


def _smooth(gray: Pixels) -> Floats:
    """[n, 32, 32] → [n, 30, 30], so that a shift of a pixel is explained by the slope."""
    values: Floats = gray.astype(np.float32)
    values = values[:, :-2] + 2 * values[:, 1:-1] + values[:, 2:]
    values = values[:, :, :-2] + 2 * values[:, :, 1:-1] + values[:, :, 2:]
    return values / np.float32(16)


def _unexplained(left: Floats, right: Floats) -> Floats:
    """Least squares: ``right`` by ``left``, its slopes (a shift) and its slopes times the place (a stretch).

    1 where the likest shift is too large to be the same picture, or the likest contrast is a negative.
    """
    side = left.shape[1] - 2
    places = np.linspace(-1, 1, side, dtype=np.float32)
    down: Floats = (left[:, 2:, 1:-1] - left[:, :-2, 1:-1]) / np.float32(2)
    across: Floats = (left[:, 1:-1, 2:] - left[:, 1:-1, :-2]) / np.float32(2)
    terms: list[Floats] = [left[:, 1:-1, 1:-1], down, across, down * places[:, None], across * places]
    x: Floats = np.stack(terms, 1).reshape(len(left), len(terms), -1)
    x -= x.mean(2, keepdims=True)
    y = right[:, 1:-1, 1:-1].reshape(len(right), -1)
    y = y - y.mean(1, keepdims=True)
    squares, products = x @ x.transpose(0, 2, 1), (x @ y[:, :, None])[:, :, 0]
    ridge = (1e-6 * np.trace(squares, axis1=1, axis2=2) + 1e-3)[:, None, None] * np.eye(len(terms), dtype=np.float32)
    share = np.linalg.solve(squares + ridge, products[:, :, None])[:, :, 0]
    explained = 2 * (share * products).sum(1) - np.einsum("ni,nij,nj->n", share, squares, share)
    rest = 1 - explained / np.maximum(np.square(y).sum(1), 1e-6)
    same = (share[:, 0] > 0) & (np.abs(share[:, 1:]).max(1) <= SHIFT * share[:, 0])
    unexplained: Floats = np.where(same, np.sqrt(np.clip(rest, 0, 1)), 1).astype(np.float32)
    return unexplained


def _other_colours(colour: Pixels, a: Indices, b: Indices) -> npt.NDArray[np.bool_]:
    """Pairs of pictures that both have colours, and not the same ones."""
    plain = np.abs(colour.astype(np.int16) - 128).mean(1) < COLOURLESS
    apart = np.concatenate(
        [
            np.empty(0),
            *(
                np.abs(colour[a[s : s + 4096]].astype(np.int16) - colour[b[s : s + 4096]]).mean(1)
                for s in range(0, len(a), 4096)
            ),
        ]
    )
    other: npt.NDArray[np.bool_] = (apart > COLOURS) & ~plain[a] & ~plain[b]
    return other


def _standing_out(a: Indices, b: Indices, unlike: Floats, n: int, radius: float) -> Indices:
    """Positions of the pairs that count: for both pictures a gap follows, within which there is no other picture.

    What lies beyond the radius was not compared; it is taken to be 0.7 of the radius away, because shift and stretch
    bring distinct pictures closer than their descriptors are.
    """
    picture, distance = np.concatenate([a, b]), np.concatenate([unlike, unlike])
    order = np.lexsort((distance, picture))
    picture, distance = picture[order], distance[order]
    following = np.append(distance[1:], np.inf)
    following[np.append(picture[1:] != picture[:-1], True)] = np.inf
    following = np.minimum(following, 0.7 * radius)
    gap = (following >= STANDS_OUT * distance) & (distance <= UNLIKE)
    reach = np.full(n, -1.0)
    np.maximum.at(reach, picture[gap], distance[gap])
    return np.flatnonzero((unlike <= reach[a]) & (unlike <= reach[b]))
