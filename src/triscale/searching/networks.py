"""Spaces of networks: what may stand in each stage of a reference network. A space is data, and every point of it is a
valid `Architecture`."""

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from triscale.arch import (
    Architecture,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
    Skip,
    SpecError,
    Stage,
    from_dict,
    resolve,
    to_dict,
)
from triscale.arch.spec import MAX_CHANNELS, MAX_REPEATS
from triscale.costing.convolutions import adds_input, projects_input, squeezed
from triscale.errors import UserError
from triscale.plain import from_plain, read_json, read_small, to_plain
from triscale.searching.space import Codes, Space

SCHEMA = 1
MOST_VALUES = 64  # of one choice, in a file

Kind = Literal["conv", "depthwise_separable", "mbconv", "fused_mbconv", "basic", "bottleneck"]
INVERTED = ("mbconv", "fused_mbconv")  # the kinds that have an expansion and squeeze-excite


@dataclass(frozen=True, slots=True)
class StageChoices:
    """What may stand in a stage. channels: times the reference's, to the nearest multiple of its divisor, but never
    more than those for less than once, nor fewer for more. repeats: added to the reference's, never below one block.
    Kinds without expansion and squeeze-excite ignore theirs."""

    kind: tuple[Kind, ...]
    kernel: tuple[int, ...]
    expansion: tuple[int, ...]
    squeeze_excite: tuple[float, ...]
    skip: tuple[Skip, ...]
    channels: tuple[float, ...]
    repeats: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in self.__slots__:
            values = getattr(self, name)
            if not values or len(values) > MOST_VALUES:
                raise UserError(f"{name}: give from 1 to {MOST_VALUES} values, not {len(values)}")
        points(self)  # raises for a value given twice
        for kind in self.kind:  # what a block can have of one does not depend on the others
            for kernel in self.kernel:
                block_of(kind, kernel, 1, 0.0, "relu", 4)
            for expansion in self.expansion:
                block_of(kind, 1, expansion, 0.0, "relu", 4)
            for ratio in self.squeeze_excite:
                block_of(kind, 1, 1, ratio, "relu", 4)
        for times in self.channels:
            if not 0.01 <= times <= 100:
                raise UserError(f"channels: {times:g} times the reference's; from 0.01 to 100")
        for added in self.repeats:
            if abs(added) > MAX_REPEATS:
                raise UserError(f"repeats: {added} more than the reference's; from -{MAX_REPEATS} to {MAX_REPEATS}")


@dataclass(frozen=True)
class NetworkSpace:
    """Networks around a reference. stages: for each of the reference's stages what may stand there; None keeps it."""

    reference: Architecture
    stages: tuple[StageChoices | None, ...]
    name: str = "space"
    _built: dict[tuple[object, ...], Stage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.stages) != len(self.reference.stages):
            raise UserError(
                f"a space says for every stage of its reference what may stand there: {len(self.reference.stages)}, "
                f"not {len(self.stages)}"
            )
        if not any(self.stages):
            raise UserError("a space that keeps every stage has one network; give choices for a stage")

    @cached_property
    def space(self) -> Space:
        """The same as choices by name: `stages.2.kernel`, …; those with a single value too."""
        names: list[str] = []
        values: list[tuple[Hashable, ...]] = []
        for place, choices in self._chosen():
            names += [f"stages.{place}.{name}" for name in choices.__slots__]
            values += points(choices).values
        return Space(tuple(names), tuple(values))

    def network(self, codes: Codes, name: str = "found") -> Architecture:
        """The network of a point; every point has one."""
        stages, at = [], 0
        for place, choices in enumerate(self.stages):
            if choices is None:
                stages.append(self.reference.stages[place])
                continue
            width = len(choices.__slots__)
            key = (place, *codes[at : at + width])
            if key not in self._built:
                self._built[key] = self._stage(place, choices, codes[at : at + width])
            stages.append(self._built[key])
            at += width
        # Every stage was checked as it was made, and no point moves a stride: there is nothing left to check, which
        # would take longer than counting the costs.
        made = copy(self.reference)
        object.__setattr__(made, "stages", tuple(stages))
        object.__setattr__(made, "name", name)
        return made

    def at(self, scaled: Architecture) -> "NetworkSpace":
        """The same choices around the reference at another scale. What a scale leaves of a stage, if only one block,
        does not decide what may stand there."""
        return replace(self, reference=scaled)

    @cached_property
    def networks(self) -> int:
        """How many different networks there are: fewer than points, for an expansion says nothing of blocks that have
        none, and no stage has less than one block."""
        return math.prod(len({*part.values()}) for place, one in self._chosen() for part in self._parts(place, one))

    def _chosen(self) -> Iterator[tuple[int, StageChoices]]:
        return ((place, choices) for place, choices in enumerate(self.stages) if choices is not None)

    def nearest(self, network: Architecture) -> Codes | None:
        """The point whose network equals this one, where the space has one (found stage by stage)."""
        if len(network.stages) != len(self.stages):
            return None
        made: list[int] = []
        for place, choices in self._chosen():
            stage = network.stages[place]
            own = stage.block, stage.skip, stage.channels, stage.repeats
            for wanted, part in zip(own, self._parts(place, choices), strict=True):
                found = next((codes for codes, value in part.items() if value == wanted), None)
                if found is None:
                    return None
                made += found
        codes = tuple(made)
        return codes if self.network(codes) == network else None

    def _stage(self, place: int, choices: StageChoices, codes: Codes) -> Stage:
        kind, kernel, expansion, ratio, skip, times, added = (
            getattr(choices, name)[code] for name, code in zip(choices.__slots__, codes, strict=True)
        )
        old = self.reference.stages[place]
        return replace(
            old,
            block=self._block(old, kind, kernel, expansion, ratio),
            channels=self._channels(old, times),
            repeats=self._repeats(old, added),
            skip=skip,
        )

    def _parts(self, place: int, choices: StageChoices) -> tuple[dict[Codes, object], ...]:
        """What a stage is made of by its codes: its block, its shortcut, its channels, its repeats. Each depends on its
        own codes alone, so that nobody has to go through all points."""
        old, every = self.reference.stages[place], points(choices)
        blocks = Space(every.names[:4], every.values[:4])
        return (
            {codes: self._block(old, *blocks.decode(codes).values()) for codes in blocks.all()},  # type: ignore[arg-type]
            {(code,): skip for code, skip in enumerate(choices.skip)},
            {(code,): self._channels(old, times) for code, times in enumerate(choices.channels)},
            {(code,): self._repeats(old, added) for code, added in enumerate(choices.repeats)},
        )

    def _block(self, old: Stage, kind: Kind, kernel: int, expansion: int, squeeze_excite: float) -> Block:
        reduction = getattr(old.block, "reduction", 4)
        return block_of(kind, kernel, expansion, squeeze_excite, old.block.activation, reduction)

    def _channels(self, old: Stage, times: float) -> int:
        if times == 1:
            return old.channels
        divisor = self.reference.rounding.divisor
        channels = max(divisor, int(old.channels * times / divisor + 0.5) * divisor)
        # Where the reference has few channels for its divisor, the nearest multiple may lie on the other side of it.
        towards = min if times < 1 else max
        return min(MAX_CHANNELS, towards(old.channels, channels))

    def _repeats(self, old: Stage, added: int) -> int:
        return min(MAX_REPEATS, max(1, old.repeats + added))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `space_from_dict` gives an equal space back."""
        stages = [None if one is None else to_plain(one) for one in self.stages]
        return {"schema": SCHEMA, "name": self.name, "reference": to_dict(self.reference), "stages": stages}


def points(choices: StageChoices) -> Space:
    """The same as a space of a stage alone."""
    return Space(tuple(choices.__slots__), tuple(getattr(choices, name) for name in choices.__slots__))


@lru_cache(maxsize=4096)
def block_of(kind: Kind, kernel: int, expansion: int, squeeze_excite: float, activation: str, reduction: int) -> Block:
    """A block of the kind. Raises `SpecError` for what no block can have."""
    if kind == "mbconv":
        return MBConv(kernel, expansion, squeeze_excite, activation)  # type: ignore[arg-type]
    if kind == "fused_mbconv":
        return FusedMBConv(kernel, expansion, squeeze_excite, activation)  # type: ignore[arg-type]
    if kind == "bottleneck":
        return Bottleneck(kernel, reduction, activation)  # type: ignore[arg-type]
    plain: dict[str, type[Conv | DepthwiseSeparable | Basic]]
    plain = {"conv": Conv, "depthwise_separable": DepthwiseSeparable, "basic": Basic}
    if kind not in plain:
        raise SpecError(f"kind must be one of mbconv, fused_mbconv, bottleneck, {', '.join(plain)}, not {kind!r}")
    return plain[kind](kernel, activation)  # type: ignore[arg-type]


def around(reference: Architecture) -> NetworkSpace:
    """The space around a network: for every stage kernels of 3, 5 and 7, expansions of 1, 3, 4 and 6, squeeze-excite or
    not, a shortcut or not, channels × 0.75, 1 and 1.25, a block less or more; and as kinds of blocks MBConv, fused
    MBConv, the basic block of ResNets and the reference's own. What the reference has is always among the choices."""
    return NetworkSpace(reference, tuple(map(_around, reference.stages)), f"around {reference.name}"[:120])


def _around(stage: Stage) -> StageChoices:
    block = stage.block
    own = {name: getattr(block, name) for name in ("kernel", "expansion", "squeeze_excite") if hasattr(block, name)}
    kinds: tuple[Kind, ...] = ("mbconv", "fused_mbconv", "basic")
    return StageChoices(
        kind=kinds if block.kind in kinds else (*kinds, block.kind),
        kernel=_with((3, 5, 7), own.get("kernel", 3)),
        expansion=_with((1, 3, 4, 6), own.get("expansion", 6)),
        squeeze_excite=_with((0.0, 0.25), own.get("squeeze_excite", 0.0)),
        skip=("identity", "none") if stage.skip != "pool" else ("identity", "none", "pool"),
        channels=(0.75, 1.0, 1.25),
        repeats=(-1, 0, 1),
    )


def _with(values: tuple[Any, ...], own: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return values if own in values else tuple(sorted((*values, own)))


def mnasnet(reference: Architecture) -> NetworkSpace:
    """The factorised space of MnasNet (Tan et al. 2019, arXiv 1807.11626, section 4.1) around any reference; in the
    paper around MobileNetV2: a convolution, a depthwise separable one or MBConv of expansion 3 or 6, kernels of 3 or 5,
    squeeze-excite or not, three kinds of shortcut, channels × 0.75, 1, 1.25, a block less or more. Stages of a single
    block stay, unless there are no others: five of MobileNetV2's seven are left, and 324⁵ = 3.6 × 10¹² different
    networks. (The paper counts 432 a stage, and about 10¹³ in all: with squeeze-excite in blocks that have none here.)
    For a reference that was scaled see `at`: which stages stay is said by the network before.
    """
    choices = StageChoices(
        kind=("conv", "depthwise_separable", "mbconv"),
        kernel=(3, 5),
        expansion=(3, 6),
        squeeze_excite=(0.0, 0.25),
        skip=("identity", "pool", "none"),
        channels=(0.75, 1.0, 1.25),
        repeats=(-1, 0, 1),
    )
    single = all(stage.repeats == 1 for stage in reference.stages)
    stages = tuple(None if stage.repeats == 1 and not single else choices for stage in reference.stages)
    return NetworkSpace(reference, stages, f"mnasnet around {reference.name}"[:120])


SPACES: Mapping[str, Callable[[Architecture], NetworkSpace]] = {"around": around, "mnasnet": mnasnet}


def space_file(path: str | Path) -> NetworkSpace:
    """The space of a JSON file. Raises `UserError`."""
    place = Path(path)
    if place.suffix != ".json" and not place.is_file():
        raise UserError(f"--space {path}: neither {' nor '.join(SPACES)} nor a JSON file")
    return space_from_dict(read_json(read_small(place, "--space", "space"), str(place)), str(place))


def space_from_dict(values: object, source: str) -> NetworkSpace:
    """Raises `UserError` naming `source` and the place for what is no space. Its reference is a network's values, or a
    name that `resolve` knows."""
    if not isinstance(values, dict) or values.get("schema") != SCHEMA or type(values["schema"]) is not int:
        raise UserError(f'{source}: not a space: no "schema": {SCHEMA} in it')
    unknown = set(values) - {"schema", "name", "reference", "stages"}
    if unknown:
        raise UserError(f"{source}: unknown key {min(unknown)!r}; the keys are schema, name, reference, stages")
    named, stages, name = values.get("reference"), values.get("stages"), values.get("name", "space")
    if not isinstance(stages, list) or not isinstance(name, str) or not isinstance(named, str | dict):
        raise UserError(f"{source}: a space has a reference, and stages: an object or null for each of its stages")
    if isinstance(named, dict):
        reference = from_dict(named, source)
    choices = [
        None if one is None else from_plain(StageChoices, one, source, f"stages.{place}")
        for place, one in enumerate(stages)
    ]
    try:
        if isinstance(named, str):
            reference = resolve(named)
        return NetworkSpace(reference, tuple(choices), name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def plainest(network: Architecture) -> Architecture:
    """The one description of networks that compute the same: it names a shortcut only where that adds something, a
    fused MBConv that is a convolution alone as that, a basic block without shortcut as two of these, and of ratios that
    squeeze to as many channels one."""
    stages, inputs = [], network.stem.channels
    for stage in map(_convolutions, network.stages, [inputs, *(stage.channels for stage in network.stages[:-1])]):
        does = _shortcuts(stage, inputs)
        skip = next(skip for skip in get_args(Skip) if _shortcuts(replace(stage, skip=skip), inputs) == does)
        stages.append(replace(stage, skip=skip, block=_plainest_block(stage, inputs)))
        inputs = stage.channels
    return replace(network, stages=tuple(stages))


def _convolutions(stage: Stage, inputs: int) -> Stage:
    """Two for each basic block, where none of them adds a shortcut."""
    block, repeats = stage.block, 2 * stage.repeats
    if not isinstance(block, Basic) or repeats > MAX_REPEATS or any(adds for adds, _ in _shortcuts(stage, inputs)):
        return stage
    return replace(stage, block=Conv(block.kernel, block.activation), repeats=repeats, skip="none")


def _plainest_block(stage: Stage, inputs: int) -> Block:
    block = stage.block
    if not isinstance(block, MBConv | FusedMBConv):
        return block
    if block.squeeze_excite:
        seen = {inputs, stage.channels} if stage.repeats > 1 else {inputs}
        return replace(block, squeeze_excite=plainest_ratio(block.squeeze_excite, seen))
    alone = isinstance(block, FusedMBConv) and block.expansion == 1
    return Conv(block.kernel, block.activation) if alone else block


def plainest_ratio(ratio: float, inputs: Collection[int]) -> float:
    """The one ratio for all that squeeze so many input channels of blocks to the same numbers: the least that does,
    where one of these is more than a single channel; that is never less."""
    narrow = {count: squeezed(count, ratio) for count in inputs}
    least = max((inside / count for count, inside in narrow.items() if inside > 1), default=1 / max(inputs))
    if any(squeezed(count, least) < inside for count, inside in narrow.items()):
        least = math.nextafter(least, 1)  # a product that is rounded down
    return least if all(squeezed(count, least) == inside for count, inside in narrow.items()) else ratio


def _shortcuts(stage: Stage, inputs: int) -> list[tuple[bool, bool]]:
    """Of the first block and those after it: whether something is added, and whether that is a convolution's."""
    first = stage.block, stage.skip, inputs, stage.channels, stage.stride
    after = stage.block, stage.skip, stage.channels, stage.channels, 1
    return [(adds_input(*one), projects_input(*one)) for one in (first, after)[: stage.repeats]]
