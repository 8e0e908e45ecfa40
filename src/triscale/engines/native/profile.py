"""Where a network's time goes in the engine: nanoseconds of every layer, and what they are spent on.

Layers are timed as a whole, between one and the next, by the thread that asks: no clock runs inside a layer. What a
layer does beside its main work is told apart by leaving it out. Three engines take turns: of the plan itself; of the
plan without activations; of that without the expansions inside depthwise layers and without the gates inside
convolutions. A part's time is the median, over the rounds, of the difference that leaving it out makes.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import numpy.typing as npt

from triscale.engines import turns
from triscale.engines.native.engine import Engine
from triscale.engines.native.layers import Kind, Layer
from triscale.engines.native.limit import measure_limit
from triscale.engines.native.plan import Plan
from triscale.engines.native.spending import Part, estimates, macs
from triscale.engines.native.variants import with_layers, without_activations, without_what_is_joined
from triscale.errors import UserError
from triscale.precision import Precision
from triscale.stats import Estimate, Spread

SHORT = 0.01  # seconds of a turn with short passes
CLOCK = 1.0  # nanosecond: the least that a layer takes

_Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One layer of the plan.

    name: what the program calls it, or nothing. kind: see `Kind`, in small letters; a depthwise layer has the expansion
    before it in its time and in its MACs. macs: as `cost` counts them, so none for poolings. of_limit: its MACs a
    second over those of `measure_limit`; whatever the precision, squeeze-excite computes in fp32, and so do depthwise
    convolutions in bf16, but for matrix tiles (AMX): beside those they compute in fp16.
    """

    name: str
    kind: str
    macs: int
    nanoseconds: Spread
    of_limit: float

    @property
    def gmacs(self) -> float:
        """10⁹ multiply-accumulates a second."""
        return self.macs / max(self.nanoseconds.median, CLOCK)


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of one image goes.

    limit: MACs a second (`measure_limit`), the fastest of all rounds. call: an ordinary call with one image, with what
    Python adds. On a busy machine it is longer than all layers: every call is interrupted somewhere, but in most calls
    a layer is not. estimates: by `Part`, its share of the layers' time and the 95 % interval, by bootstrap over the
    rounds:

    - depthwise: what is left of depthwise layers without the two below. The sums for squeeze-excite that they make on
      the way, an expansion's first input and the way into the ring of rows are among it.
    - pointwise: convolutions 1×1, without activations and gates; and expansions: what depthwise layers take less when
      the expansion has one input.
    - convolution: those of larger kernels, without activations: the stem, ResNets, fused MBConv.
    - squeeze_excite: gates (two small layers), sums and products that are layers of their own; and what convolutions
      take less when no gates are multiplied into their weights
      or their map.
    - classifier: the last layer.
    - activation: what all layers but squeeze-excite's take less without any. Where the processor computes them beside
      other work they cost nothing.
    - other: the network's input, paddings, poolings, shortcuts without weights. (The others' additions of a shortcut
      are part of their convolution.)

    The shares sum to 1. Differences may come out below nothing by noise: such a part has the share 0, the others are
    made to fit, and `clipped` is how much of the whole that concerned.
    """

    precision: Precision
    threads: int
    rounds: int
    limit: float
    layers: tuple[LayerProfile, ...]
    call: Spread
    estimates: dict[Part, Estimate]
    clipped: float

    @property
    def nanoseconds(self) -> float:
        """Of all layers: the sum of their medians."""
        return sum(layer.nanoseconds.median for layer in self.layers)

    @property
    def shares(self) -> dict[Part, float]:
        """Each part's share of that, from 0 to 1."""
        return {part: estimate.value for part, estimate in self.estimates.items()}


def profile(
    plan: Plan,
    *,
    precision: Precision = "fp32",
    threads: int | None = None,
    rounds: int = 15,
    names: Sequence[str] = (),
) -> Profile:
    """Times a plan's layers with one image at a time, which the threads share, over and over: all is as warm as can be.

    threads: all usable cores if None. names: of the layers, `list_layers(…).names`. The image is noise: a layer's time
    does not depend on its values, be they infinite, as long as they are not all but zero (subnormal). Needs the memory
    of three engines. Raises `UserError` for options that cannot be.
    """
    if type(rounds) is not int or rounds < 1:
        raise UserError(f"rounds must be a whole number of at least 1, not {rounds!r}")
    rows = [Layer(Kind(row[0]), *row[1:]) for row in plan.layers.tolist()]
    if names and len(names) != len(rows):
        raise UserError(f"{len(names)} names for the {len(rows)} layers of {plan.architecture.name}; give one for each")
    plain = [without_activations(row) for row in rows]
    thin, places = without_what_is_joined(plain, plan.buffers)
    with ExitStack() as running:
        full, bare, bones = (
            running.enter_context(Engine(one, precision=precision, threads=threads))
            for one in (plan, with_layers(plan, plain), with_layers(plan, thin))
        )
        x = _noise(plan, full)
        calls: list[Callable[[], _Times]] = [partial(_timed, engine, x) for engine in (full, bare, bones)]
        calls += [partial(_called, full, x), partial(_limit, precision, full.threads)]
        taken = [np.stack(one) for one in turns.take_turns(calls, turns.Rounds(rounds), uncounted=1, rotating=True)]
    limit = float(taken[4].max())
    shares, clipped = estimates(rows, taken[0], taken[1], taken[2][:, places])
    layers = tuple(
        _layer(row, name, times, limit)
        for row, name, times in zip(rows, names or [""] * len(rows), taken[0].T, strict=True)
    )
    return Profile(
        precision, full.threads, rounds, limit, layers, Spread.of(taken[3].ravel().tolist()), shares, clipped
    )


def _layer(row: Layer, name: str, times: npt.NDArray[np.float64], limit: float) -> LayerProfile:
    spread, count = Spread.of(times.tolist()), macs(row)
    return LayerProfile(name, row.kind.name.lower(), count, spread, count / max(spread.median, CLOCK) * 1e9 / limit)


def _timed(engine: Engine, x: npt.NDArray[np.float32]) -> _Times:
    """Nanoseconds of each layer: the median of the images but the first, which brings the weights into the cache."""
    return np.asarray(np.median(engine.timed(x)[1][1:], axis=0))


def _called(engine: Engine, x: npt.NDArray[np.float32]) -> _Times:
    """Nanoseconds of an ordinary call with one image, likewise."""
    taken = [1e9 * turns.seconds(partial(engine, x[image : image + 1])) for image in range(len(x))]
    return np.array([median(taken[1:])])


def _limit(precision: Precision, threads: int) -> _Times:
    """MACs a second. Whatever else is at work slows a turn down, so that the fastest of all rounds counts."""
    return np.array([measure_limit(precision, threads)])


def _noise(plan: Plan, engine: Engine) -> npt.NDArray[np.float32]:
    """As many images as a turn takes, all the same."""
    shape = plan.architecture.channels, *plan.architecture.resolution
    x = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    engine.timed(x)
    passes = min(turns.MOST_PASSES, max(1, round(SHORT * 1e9 / int(engine.timed(x)[1].sum()))))
    return np.repeat(x, passes + 1, axis=0)
