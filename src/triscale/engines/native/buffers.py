"""Values into buffers: memory is used again as soon as nobody needs what is in it."""

import heapq
from collections.abc import Sequence

from triscale.engines.native.layers import NONE, Layer


def into_buffers(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers, whose values all had numbers of their own, with the lowest buffer that is free for each.

    A layer never writes into a buffer that it reads.
    """
    last = {value: place for place, layer in enumerate(layers) for value in layer.reads()}
    free: list[int] = []
    buffers: dict[int, int] = {NONE: NONE}
    used, placed = 0, []
    for place, layer in enumerate(layers):
        for value in layer.writes():
            if not free:
                heapq.heappush(free, used)
                used += 1
            buffers[value] = heapq.heappop(free)
        placed.append(_renamed(layer, buffers))
        for value in layer.reads():
            if last[value] == place:
                heapq.heappush(free, buffers[value])
    return placed


def _renamed(layer: Layer, buffers: dict[int, int]) -> Layer:
    return layer._replace(
        input=buffers[layer.input],
        output=buffers[layer.output],
        residual=buffers[layer.residual],
        gate=buffers[layer.gate],
        sums=buffers[layer.sums],
    )
