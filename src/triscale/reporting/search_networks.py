"""Two networks of a search side by side: what stands in each stage, and what differs."""

from collections.abc import Mapping
from dataclasses import dataclass

from triscale.arch import Architecture, Block, Bottleneck, Stage
from triscale.costing import cost
from triscale.costing.convolutions import adds_input

COLUMNS = ("block", "kernel", "expansion", "squeeze-excite", "shortcut", "channels", "blocks", "stride", "output")
NONE = "–"
_KINDS = {
    "conv": "convolution",
    "depthwise_separable": "depthwise separable",
    "mbconv": "MBConv",
    "fused_mbconv": "fused MBConv",
    "basic": "basic",
    "bottleneck": "bottleneck",
}


@dataclass(frozen=True, slots=True)
class Part:
    """The stem, a stage or the head. words: by column. macs: its own; share: of the network's. idle: it has a shortcut
    that no block of it can add."""

    name: str
    words: Mapping[str, str]
    macs: int
    share: float
    idle: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """The same part of two networks. differing: the columns in which they differ."""

    before: Part
    after: Part

    @property
    def differing(self) -> frozenset[str]:
        """Without the output, which follows from strides that no search moves, and without what the other kind of
        block has none of."""
        before, after = self.before.words, self.after.words
        return frozenset(column for column in COLUMNS[:-1] if before[column] != after[column] != NONE)


def parts(network: Architecture) -> tuple[Part, ...]:
    """From the stem to the head."""
    total, layers = cost(network).macs, cost(network).layers
    macs = {
        name: sum(layer.macs for layer in layers if layer.name.startswith(f"{name}."))
        for name in ("stem", *(f"stages.{place}" for place in range(len(network.stages))), "head")
    }
    words, idle = [_stem(network), *_stages(network), _head(network)], _idle(network)
    return tuple(
        Part(name, dict(zip(COLUMNS, row, strict=True)), count, count / total, name in idle)
        for (name, count), row in zip(macs.items(), words, strict=True)
    )


def pairs(before: Architecture, after: Architecture) -> tuple[Pair, ...]:
    """Of two networks with as many stages, as all of a space have."""
    return tuple(Pair(*both) for both in zip(parts(before), parts(after), strict=True))


def changes(before: Architecture, after: Architecture) -> list[tuple[str, str]]:
    """(stage, what it has instead) of every stage in which they differ; said in few words."""
    found = []
    for place, (old, new) in enumerate(zip(before.stages, after.stages, strict=True)):
        was, now = _of(old), _of(new)
        differs = [column for column in COLUMNS[:-2] if was[column] != now[column] != NONE]
        said = [_said(column, now[column]) for column in differs]
        if said:
            found.append((f"stages.{place}", ", ".join(said)))
    return found


def _said(column: str, word: str) -> str:
    if column in ("block", "kernel"):
        return word
    if word == "none":
        return f"no {column}"
    if column == "blocks":
        return f"{word} {'block' if word == '1' else 'blocks'}"
    return f"{word} channels" if column == "channels" else f"{column} {word}"


def _stem(network: Architecture) -> tuple[str, ...]:
    stem = network.stem
    block = "convolution" if stem.pool == 1 else f"convolution, max-pool /{stem.pool}"
    stride, kernel = str(stem.stride), f"{stem.kernel}×{stem.kernel}"
    return block, kernel, NONE, NONE, NONE, str(stem.channels), "1", stride, _size(_maps(network)[0])


def _head(network: Architecture) -> tuple[str, ...]:
    """Its output is what the pooling sees."""
    channels = network.head.channels
    linear = f"linear to {network.classes:,}"
    if channels is None:
        return linear, NONE, NONE, NONE, NONE, NONE, "1", NONE, _size(_maps(network)[-1])
    return f"convolution, {linear}", "1×1", NONE, NONE, NONE, str(channels), "1", "1", _size(_maps(network)[-1])


def _stages(network: Architecture) -> list[tuple[str, ...]]:
    rows = []
    for stage, size in zip(network.stages, _maps(network)[1:], strict=True):
        words = _of(stage) | {"output": _size(size)}
        rows.append(tuple(words[column] for column in COLUMNS))
    return rows


def _idle(network: Architecture) -> set[str]:
    """Stages whose shortcut adds nothing, for all their blocks change what they are given."""
    inputs, found = network.stem.channels, set()
    for place, stage in enumerate(network.stages):
        blocks = [(inputs, stage.stride), *[(stage.channels, 1)] * (stage.repeats - 1)]
        added = (adds_input(stage.block, stage.skip, each, stage.channels, stride) for each, stride in blocks)
        if stage.skip != "none" and not any(added):
            found.add(f"stages.{place}")
        inputs = stage.channels
    return found


def _of(stage: Stage) -> dict[str, str]:
    block = stage.block
    ratio = getattr(block, "squeeze_excite", None)
    return {
        "block": _KINDS[block.kind],
        "kernel": f"{block.kernel}×{block.kernel}",
        "expansion": _expansion(block),
        "squeeze-excite": NONE if ratio is None else f"{ratio:g}" if ratio else "none",
        "shortcut": stage.skip,
        "channels": str(stage.channels),
        "blocks": str(stage.repeats),
        "stride": str(stage.stride),
    }


def _expansion(block: Block) -> str:
    if isinstance(block, Bottleneck):
        return f"÷{block.reduction}"
    expansion = getattr(block, "expansion", None)
    return NONE if expansion is None else f"×{expansion}"


def _maps(network: Architecture) -> list[tuple[int, int]]:
    """(height, width) after the stem with its pooling, and after each stage."""
    (height, width), found = network.resolution, []
    for _, stride in network.strides():
        height, width = -(-height // stride), -(-width // stride)
        found.append((height, width))
    return found[1:]


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]}×{shape[1]}"
