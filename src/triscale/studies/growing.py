"""Arms as networks: a baseline with pixels to gain, grown by each mix to the same cost."""

import math
from dataclasses import dataclass, replace

from triscale.arch import Architecture, adapt
from triscale.costing import cost
from triscale.data import Data, image_resolution
from triscale.errors import UserError
from triscale.scaling import RULES, Budget, Exponents, Multipliers, Scaled, TooSmallError, grow, solve
from triscale.scaling.solver import SMALLEST
from triscale.scaling.trim import CLOSE
from triscale.studies.designs import Arm
from triscale.training import regularised

ROOM = 0.95  # of the side that leaves just as many pixels as the largest factor asks for
SMALLEST_SIDE = 16  # pixels of a baseline: below them networks have hardly a map left
ROUGH = 1e-9  # of a factor: what is asked of no dimension is not missed by rounding
NEAREST = 4  # numbers of blocks, and of pixels, of which the best pair is taken


@dataclass(frozen=True)
class Grown:
    """An arm at a factor: the network that the solver built, and as it is trained.

    factor: asked. shares: how much of its growth each dimension really bought, see `realised_shares`. upscaled: it asks
    for more pixels than the images have.
    """

    arm: Arm
    factor: float
    scaled: Scaled
    network: Architecture
    shares: Exponents
    upscaled: bool

    @property
    def label(self) -> str:
        """As people see it."""
        return f"{self.arm.name} ×{self.factor:g}"

    @property
    def off(self) -> float:
        """How far its cost is from what was asked, as a share of it."""
        return self.scaled.realised / self.factor - 1

    @property
    def close(self) -> bool:
        """Whether it costs what was asked to within one percent."""
        return abs(self.off) <= 1.001 - CLOSE


def baseline_for(
    named: Architecture, data: Data, factor: float, *, published: bool, resolution: tuple[int, int] | None
) -> Architecture:
    """The network for these images, with pixels left to gain: by default its resolution is so far below theirs that
    resolution alone can take the whole factor; where that leaves fewer than 16 pixels, twice the MACs.

    A network of the zoo is adapted to the resolution; another one keeps its own, unless told one.
    """
    channels, classes = data.channels, len(data.classes)
    if not published and resolution is None:
        return adapt(named, channels=channels, classes=classes)
    return adapt(named, resolution=resolution or roomy_resolution(data, factor), channels=channels, classes=classes)


def roomy_resolution(data: Data, factor: float) -> tuple[int, int]:
    """(h, w) so far below the images' that resolution alone can take the factor; see `baseline_for`."""
    height, width = image_resolution(data)
    shares = [ROOM / math.sqrt(wanted) for wanted in (factor, 2.0)]
    share = next((s for s in shares if min(height, width) * s >= SMALLEST_SIDE), None)
    if share is None:
        share = min(1.0, SMALLEST_SIDE / min(height, width))
    return _even(height * share), _even(width * share)


def _even(side: float) -> int:
    return max(SMALLEST_SIDE, 2 * int(side / 2))


def slimmest(baseline: Architecture) -> Architecture:
    """The baseline with one block a stage and the fewest channels, at its own resolution."""
    return replace(grow(baseline, RULES["slim"], factor=SMALLEST).architecture, name=baseline.name)


def slimmed(baseline: Architecture, macs: float) -> Architecture:
    """The baseline with at most so many MACs at its own resolution. Raises `UserError` where there is none."""
    if cost(baseline).macs <= macs:
        return baseline
    try:
        small = solve(baseline, RULES["slim"], Budget({"macs": macs})).architecture
    except TooSmallError as error:
        raise UserError(f"{error.what}; give more --macs, or a smaller --baseline") from None
    return replace(small, name=baseline.name)


def grow_arm(baseline: Architecture, arm: Arm, factor: float, pixels: tuple[int, int] | None) -> Grown:
    """The arm at a factor of the baseline's MACs. pixels: (h, w) of the images, None where they differ.

    Blocks are added one by one, pixels likewise, until either has bought the share that the mix gives it; width, in the
    solver's channel steps, buys the rest. The official rounding would round every stage's repeats up, and on a small
    baseline make all mixes that have any depth the same network. A mix without width takes the blocks and pixels that
    come nearest to the cost. Raises `UserError` where the mix cannot grow this baseline so far.
    """
    try:
        scaled = _with_width(baseline, arm, factor) if arm.shares.width > 1e-9 else _without(baseline, arm, factor)
    except UserError as error:
        raise UserError(f"arm {arm.name} at a factor of {factor:g}: {error}") from None
    name = f"{baseline.name[:60]}-{arm.name}-x{factor:g}"
    network = replace(regularised(scaled.architecture, baseline), name=name)
    upscaled = pixels is not None and any(a > b for a, b in zip(network.resolution, pixels, strict=True))
    return Grown(arm, factor, scaled, network, realised_shares(baseline, scaled.architecture), upscaled)


def _with_width(baseline: Architecture, arm: Arm, factor: float) -> Scaled:
    deeper = _nearest(_deeper(baseline, factor), baseline, factor**arm.shares.depth)[0]
    larger = _nearest(_larger(baseline, factor), baseline, factor**arm.shares.resolution)[0]
    start = replace(deeper, resolution=larger.resolution)
    filled = solve(start, RULES["width"], Budget({"macs": cost(baseline).macs * factor}))
    return replace(
        filled,
        baseline=baseline,
        rule=arm.name,
        multipliers=_multipliers(baseline, start, filled.multipliers.width),
        asked=factor,
    )


def _without(baseline: Architecture, arm: Arm, factor: float) -> Scaled:
    """Of the networks whose blocks and pixels are nearest to the mix the one nearest to the cost."""
    few, wanted, deeper = 1 if arm.single else NEAREST, factor**arm.shares.depth, _deeper(baseline, factor)
    most = cost(deeper[-1]).macs / cost(baseline).macs
    if most < wanted * (1 - ROUGH):
        raise UserError(
            f"more blocks make {baseline.name} at most ×{most:.3g}, for no stage of it deepens any further, and "
            "nothing else buys the rest; name a --design without this arm, or a baseline whose stages deepen"
        )
    depths = _nearest(deeper, baseline, wanted)[:few]
    sizes = _nearest(_larger(baseline, factor), baseline, factor**arm.shares.resolution)[:few]
    pairs = [replace(deeper, resolution=larger.resolution) for deeper in depths for larger in sizes]
    best = _nearest(pairs, baseline, factor)[0]
    return Scaled(baseline, best, arm.name, _multipliers(baseline, best, 1.0), factor)


def _nearest(networks: list[Architecture], baseline: Architecture, factor: float) -> list[Architecture]:
    """Those whose MACs are nearest to a factor of the baseline's, in the logarithm."""
    own = cost(baseline).macs
    return sorted(networks, key=lambda one: abs(math.log(cost(one).macs / (own * factor))))


def _deeper(baseline: Architecture, factor: float) -> list[Architecture]:
    """The baseline with more and more blocks, to beyond a factor of its MACs."""
    most = cost(baseline).macs * factor
    found = [baseline]
    while cost(found[-1]).macs < most:
        more = deepened(baseline, len(found))
        if more == found[-1]:  # no stage deepens, or none any further
            break
        found.append(more)
    return found


def deepened(baseline: Architecture, blocks: int) -> Architecture:
    """The baseline with so many more blocks, spread over the stages that deepen in proportion to their repeats: whole
    parts first, the rest by largest remainder, later stages first where they are equal."""
    stages = baseline.stages
    own = {place: stage.repeats for place, stage in enumerate(stages) if stage.deepens}
    total = sum(own.values())
    if not total:
        return baseline
    wanted = {place: blocks * repeats / total for place, repeats in own.items()}
    more = {place: math.floor(share) for place, share in wanted.items()}
    by_remainder = sorted(wanted, key=lambda place: (more[place] - wanted[place], -place))
    for place in by_remainder[: blocks - sum(more.values())]:
        more[place] += 1
    try:
        return replace(
            baseline,
            stages=tuple(replace(s, repeats=s.repeats + more.get(place, 0)) for place, s in enumerate(stages)),
        )
    except UserError:  # more than a spec can say
        return baseline


def _larger(baseline: Architecture, factor: float) -> list[Architecture]:
    """The baseline at more and more pixels, to beyond a factor of its MACs."""
    height, width = baseline.resolution
    short, most = min(height, width), cost(baseline).macs * factor
    found = [baseline]
    while cost(found[-1]).macs < most:
        side = short + len(found)
        size = round(height * side / short), round(width * side / short)
        found.append(replace(baseline, resolution=size))
    return found


def _multipliers(baseline: Architecture, grown: Architecture, width: float) -> Multipliers:
    blocks = sum(stage.repeats for stage in grown.stages) / sum(stage.repeats for stage in baseline.stages)
    return Multipliers(blocks, width, min(grown.resolution) / min(baseline.resolution))


def realised_shares(baseline: Architecture, grown: Architecture) -> Exponents:
    """How much of the growth each dimension really bought: of the logarithms of the factors by which the repeats alone,
    the channels alone and the resolution alone multiply the baseline's MACs, in parts of their sum.

    Rounding makes small networks differ from the mix that was asked for: one repeat grows to two or not at all.
    """
    repeats = [stage.repeats for stage in grown.stages]
    deeper = replace(
        baseline, stages=tuple(replace(s, repeats=r) for s, r in zip(baseline.stages, repeats, strict=True))
    )
    wider = replace(
        grown,
        stages=tuple(replace(s, repeats=b.repeats) for s, b in zip(grown.stages, baseline.stages, strict=True)),
        resolution=baseline.resolution,
    )
    own = cost(baseline).macs
    parts = [
        max(0.0, math.log(cost(one).macs / own))
        for one in (deeper, wider, replace(baseline, resolution=grown.resolution))
    ]
    total = sum(parts)
    if total <= 0:
        return Exponents(1 / 3, 1 / 3, 1 / 3)
    return Exponents(*(part / total for part in parts))
