"""From multipliers to whole layers, channels and pixels: the official EfficientNet rounding; fitting to an input."""

import math
from dataclasses import replace

from triscale.arch.spec import MAX_CHANNELS, MAX_REPEATS, MAX_RESOLUTION, Architecture, SpecError, Stage
from triscale.plain import short

MAX_MULTIPLIER = 1e9  # far beyond every limit of the spec, and far from where products overflow
LAST_MAP = 4  # pixels: below it a 3×3 depthwise convolution sees mostly padding


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least `divisor`, never more than 10 % below (official `round_filters`).

    The official code rounds whatever it is given, also at multiplier 1; `multiply` calls this only where the
    multiplier is not 1.
    """
    channels = round(channels, 9)  # as in `round_repeats`: 40 × √1.21 is 43.99999999999999, and 44 is meant
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Repeats times depth, rounded up (official `round_repeats`)."""
    # 3 × 1.1 is 3.3000000000000003: products are cleaned of the last bits before the ceiling, so that 5 × 1.2 is 6.
    return max(1, math.ceil(round(repeats * depth, 9)))


def smallest_resolution(architecture: Architecture) -> int:
    """The shortest side, in pixels, at which every stride still has a map to shrink."""
    side = 1
    for _, stride in reversed(list(architecture.strides())):
        side = smallest_side(side, stride)
    return side


def smallest_side(after: int, stride: int) -> int:
    """The fewest pixels that a stride turns into `after`, and no fewer than the stride itself."""
    return max((after - 1) * stride + 1, stride)


def round_resolution(resolution: tuple[int, int], multiplier: float, smallest: int = 1) -> tuple[int, int]:
    """Both sides times the multiplier, to the nearest pixel; the shorter not below `smallest`, the aspect kept."""
    multiplier = max(multiplier, smallest / min(resolution))
    height, width = (max(smallest, round(side * multiplier)) for side in resolution)
    return height, width


def multiply(
    architecture: Architecture, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0
) -> Architecture:
    """The network with its repeats, channels and pixels multiplied and rounded officially. Pure.

    Repeats never fall below 1, channels below the divisor, pixels below what the strides need. A multiplier of 1
    changes nothing. Raises `SpecError` for a multiplier that is not positive, or a network beyond the spec's limits.
    """
    for what, value in (("depth", depth), ("width", width), ("resolution", resolution)):
        if not 0 < value <= MAX_MULTIPLIER:
            raise SpecError(f"{what} multiplier must be above 0 and at most {MAX_MULTIPLIER:g}, not {short(value)}")
    rounding = architecture.rounding

    def channels(count: int) -> int:
        return count if width == 1 else round_channels(count * width, rounding.divisor)

    def grown(stage: Stage) -> Stage:
        repeats = round_repeats(stage.repeats, depth) if stage.deepens and depth != 1 else stage.repeats
        return replace(stage, channels=channels(stage.channels), repeats=repeats)

    head = architecture.head.channels
    if head is not None and (rounding.head == "scaled" or (rounding.head == "never_narrower" and width > 1)):
        head = channels(head)
    stem = architecture.stem
    return replace(
        architecture,
        stem=replace(stem, channels=channels(stem.channels)) if rounding.stem else stem,
        stages=tuple(grown(stage) for stage in architecture.stages),
        head=replace(architecture.head, channels=head),
        resolution=round_resolution(architecture.resolution, resolution, smallest_resolution(architecture))
        if resolution != 1
        else architecture.resolution,
    )


def largest_multipliers(architecture: Architecture) -> tuple[float, float, float]:
    """Depth, width and resolution multipliers at which the spec's limits are met: where growth must stop."""
    deepest = max((stage.repeats for stage in architecture.stages if stage.deepens), default=1)
    widest = max(architecture.stem.channels, architecture.features, *(stage.channels for stage in architecture.stages))
    return (
        MAX_REPEATS / deepest,
        (MAX_CHANNELS - 1024) / widest,
        MAX_RESOLUTION / max(architecture.resolution),
    )


def adapt(
    architecture: Architecture,
    *,
    resolution: tuple[int, int] | None = None,
    channels: int | None = None,
    classes: int | None = None,
) -> Architecture:
    """The network for another input or another number of classes, with fewer strides where the image is small.

    Strides are kept from the last to the first as long as the last map keeps at least four pixels on its shorter side
    (or two or three, if the network's own last map has no more). At 28 pixels three of B0's five stay and the last map
    is 4×4: the early layers work at full resolution, as is usual for CIFAR-sized networks. A stem that loses its stride
    and had a kernel above 3 gets 3 (ResNet's practice on small images). Larger images keep all strides. Any shorter
    side from 16 pixels works, square or not.
    """
    height, width = architecture.resolution if resolution is None else resolution
    kept = dict(architecture.strides())
    if (height, width) != architecture.resolution:  # at its own resolution a network's strides are its own
        kept = _kept_strides(architecture, min(height, width))
    stem = architecture.stem
    if kept["stem"] != stem.stride:
        stem = replace(stem, stride=1, kernel=min(stem.kernel, 3))
    return replace(
        architecture,
        resolution=(height, width),
        channels=architecture.channels if channels is None else channels,
        stem=replace(stem, pool=kept["stem.pool"]),
        stages=tuple(replace(stage, stride=kept[f"stages.{i}"]) for i, stage in enumerate(architecture.stages)),
        head=architecture.head if classes is None else replace(architecture.head, classes=classes),
    )


def _kept_strides(architecture: Architecture, side: int) -> dict[str, int]:
    """Each place's stride, 1 where it had to go, for an input whose shorter side has so many pixels."""
    strides = list(architecture.strides())
    own = -(-min(architecture.resolution) // math.prod(stride for _, stride in strides))
    kept: dict[str, int] = {}
    needed = min(LAST_MAP, max(2, own))  # pixels of the map at this place
    for place, stride in reversed(strides):
        before = smallest_side(needed, stride)
        kept[place] = stride if before <= side else 1
        needed = before if kept[place] == stride else needed
    return kept
