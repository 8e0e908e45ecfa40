"""Where a network's time goes in the engine: nanoseconds of every layer, and what they are spent on.

Layers are timed as a whole, between one and the next, by the thread that asks: no clock runs inside a layer. What a
layer does beside its main work is told apart by leaving it out. Three engines take turns: of the plan itself; of the
plan without activations; of that without the expansions inside depthwise layers and without the gates inside
convolutions. A part's time is the median, over the rounds, of the difference that leaving it out makes.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from triscale.engines.native.engine import Engine
from triscale.engines.native.layers import NONE, Kind, Layer
from triscale.engines.native.library import Precision
from triscale.engines.native.limit import measure_limit
from triscale.engines.native.plan import Plan
from triscale.errors import UserError
from triscale.stats import Estimate, Spread

Part = Literal["depthwise", "pointwise", "convolution", "squeeze_excite", "classifier", "activation", "other"]
PARTS: tuple[Part, ...] = get_args(Part)
SHORT, MOST = 10e6, 31  # nanoseconds of a turn with short passes, and how many they are at most
CLOCK = 1.0  # nanosecond: the least that a layer takes
RESAMPLES = 200

Taken = npt.NDArray[np.float64]  # (rounds, layers), nanoseconds
_Call = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One layer of the plan.

    name: what the program calls it, or nothing. kind: see `Kind`, in small letters; a depthwise layer has the expansion
    before it in its time and in its MACs. macs: as `cost` counts them, so none for poolings. of_limit: its MACs a
    second over those of `measure_limit`; whatever the precision, squeeze-excite computes in fp32, and so do depthwise
    convolutions in bf16.
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
    plain = [_without_activations(row) for row in rows]
    thin, places = _without_what_is_joined(plain, plan.buffers)
    with ExitStack() as running:
        full, bare, bones = (
            running.enter_context(Engine(one, precision=precision, threads=threads))
            for one in (plan, _with_layers(plan, plain), _with_layers(plan, thin))
        )
        calls = (_timed(full), _timed(bare), _timed(bones), _called(full), _limit(precision, full.threads))
        taken = _take_turns(calls, _noise(plan, full), rounds)
    limit = float(taken[4].max())
    variants = taken[0], taken[1], taken[2][:, places]
    estimates, clipped = _estimates(rows, *variants)
    layers = tuple(
        _layer(row, name, times, limit)
        for row, name, times in zip(rows, names or [""] * len(rows), taken[0].T, strict=True)
    )
    return Profile(
        precision, full.threads, rounds, limit, layers, Spread.of(taken[3].ravel().tolist()), estimates, clipped
    )


def macs(layer: Layer) -> int:
    """Multiply-accumulates of a layer for one image, as `cost` counts them."""
    pixels = layer.out_height * layer.out_width
    match layer.kind:
        case Kind.CONV:
            return pixels * layer.kernel**2 * layer.channels * layer.outputs
        case Kind.DEPTHWISE:
            expansion = layer.height * layer.width * layer.expand * layer.channels
            return expansion + pixels * layer.kernel**2 * layer.channels
        case Kind.EXCITE:
            return 2 * layer.channels * layer.squeezed
        case _:
            return 0


def _layer(row: Layer, name: str, times: npt.NDArray[np.float64], limit: float) -> LayerProfile:
    spread, count = Spread.of(times.tolist()), macs(row)
    return LayerProfile(name, row.kind.name.lower(), count, spread, count / max(spread.median, CLOCK) * 1e9 / limit)


# What is left out


def _has_activation(layer: Layer) -> bool:
    """Squeeze-excite's, of a few values, stays its own."""
    return layer.kind is not Kind.EXCITE and any((layer.activation, layer.last, layer.expand_activation))


def _without_activations(layer: Layer) -> Layer:
    return layer._replace(activation=0, last=0, expand_activation=0) if _has_activation(layer) else layer


def _joined(layer: Layer) -> Part | None:
    """What a layer does beside its main part, activations apart."""
    if layer.kind is Kind.DEPTHWISE and layer.expand > 0:
        return "pointwise"
    return "squeeze_excite" if layer.kind is Kind.CONV and layer.gate != NONE else None


def _without_what_is_joined(layers: Sequence[Layer], buffer: int) -> tuple[list[Layer], list[int]]:
    """The layers with expansions of one input and without gates, and where each of them then stands.

    The one input comes from a convolution of its own, put before the layer into a buffer that nobody else has.
    """
    thin: list[Layer] = []
    places = []
    for layer in layers:
        match _joined(layer):
            case "pointwise":
                thin.append(_one_channel(layer, buffer))
                layer = layer._replace(input=buffer, expand=1)
            case "squeeze_excite":
                layer = layer._replace(gate=NONE)
        places.append(len(thin))
        thin.append(layer)
    return thin, places


def _one_channel(layer: Layer, buffer: int) -> Layer:
    """Of what the expansion reads, by weights that are there."""
    sides = {"height": layer.height, "width": layer.width, "out_height": layer.height, "out_width": layer.width}
    return Layer(Kind.CONV, layer.input, buffer, channels=layer.expand, weight=layer.weight2, bias=layer.bias2, **sides)


def _with_layers(plan: Plan, layers: Sequence[Layer]) -> Plan:
    return replace(plan, layers=np.array(layers, np.int64))


# Turns


def _timed(engine: Engine) -> _Call:
    """Nanoseconds of each layer: the median of the images but the first, which brings the weights into the cache."""
    return lambda x: np.median(engine.timed(x)[1][1:], axis=0)


def _called(engine: Engine) -> _Call:
    """Nanoseconds of an ordinary call with one image, likewise."""

    def call(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        taken = []
        for image in range(len(x)):
            start = time.perf_counter_ns()
            engine(x[image : image + 1])
            taken.append(time.perf_counter_ns() - start)
        return np.median(np.array(taken[1:], np.float64), keepdims=True)

    return call


def _limit(precision: Precision, threads: int) -> _Call:
    """MACs a second. Whatever else is at work slows a turn down, so that the fastest of all rounds counts."""
    return lambda _: np.array([measure_limit(precision, threads)])


def _noise(plan: Plan, engine: Engine) -> npt.NDArray[np.float32]:
    """As many images as a turn takes, all the same."""
    shape = plan.architecture.channels, *plan.architecture.resolution
    x = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    engine.timed(x)
    passes = min(MOST, max(1, round(SHORT / int(engine.timed(x)[1].sum()))))
    return np.repeat(x, passes + 1, axis=0)


def _take_turns(calls: Sequence[_Call], x: npt.NDArray[np.float32], rounds: int) -> list[Taken]:
    """What each call tells in each round. Another begins each time, and a round before the first is not kept."""
    taken: list[list[npt.NDArray[np.float64]]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for turn in range(len(calls)):
            at = (number + turn) % len(calls)
            taken[at].append(calls[at](x))
    return [np.stack(one[1:]) for one in taken]


# What the time is spent on


def _main(layer: Layer, last: bool) -> Part:
    match layer.kind:
        case Kind.CONV:
            return "classifier" if last else "pointwise" if layer.kernel == 1 else "convolution"
        case Kind.DEPTHWISE:
            return "depthwise"
        case Kind.EXCITE | Kind.SUM | Kind.SCALE:
            return "squeeze_excite"
        case _:
            return "other"


def _estimates(rows: Sequence[Layer], full: Taken, plain: Taken, thin: Taken) -> tuple[dict[Part, Estimate], float]:
    """The parts' shares with their intervals, and how much was below nothing."""
    spent = _spent(rows, full[None], plain[None], thin[None])[0]
    shares = _shares(spent)
    drawn = np.random.default_rng(0).integers(0, len(full), (RESAMPLES, len(full)))
    resampled = _shares(_spent(rows, full[drawn], plain[drawn], thin[drawn]))
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    bounds = zip(PARTS, shares, np.minimum(low, shares), np.maximum(high, shares), strict=True)
    estimates = {part: Estimate(float(value), float(least), float(most)) for part, value, least, most in bounds}
    return estimates, float(np.maximum(-spent, 0).sum() / spent.sum())


def _spent(rows: Sequence[Layer], full: Taken, plain: Taken, thin: Taken) -> npt.NDArray[np.float64]:
    """Nanoseconds by part, (n, parts), of times (n, rounds, layers); each sums to the layers' medians.

    Unclipped: what noise adds to one layer it takes from another.
    """
    whole = np.median(full, axis=1)
    activation = np.median(full - plain, axis=1) * [_has_activation(row) for row in rows]
    beside = np.median(plain - thin, axis=1) * [_joined(row) is not None for row in rows]
    spent = np.zeros((len(full), len(PARTS)))
    for at, row in enumerate(rows):
        spent[:, PARTS.index(_main(row, row is rows[-1]))] += whole[:, at] - activation[:, at] - beside[:, at]
        spent[:, PARTS.index("activation")] += activation[:, at]
        joined = _joined(row)
        if joined is not None:
            spent[:, PARTS.index(joined)] += beside[:, at]
    return spent


def _shares(spent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of parts along the last axis: from 0 to 1, and 1 together."""
    positive = np.maximum(spent, 0)
    return np.asarray(positive / positive.sum(axis=-1, keepdims=True))
