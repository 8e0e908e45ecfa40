"""What the time of a plan's layers is spent on, from what they take with and without parts of their work."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from triscale.engines.native.layers import Kind, Layer
from triscale.engines.native.variants import has_activation, joined
from triscale.stats import Estimate

Part = Literal["depthwise", "pointwise", "convolution", "squeeze_excite", "classifier", "activation", "other"]
PARTS: tuple[Part, ...] = get_args(Part)
RESAMPLES = 200

Taken = npt.NDArray[np.float64]  # (rounds, layers), nanoseconds


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


def estimates(rows: Sequence[Layer], full: Taken, plain: Taken, thin: Taken) -> tuple[dict[Part, Estimate], float]:
    """The parts' shares with their 95 % intervals, and how much of the whole was below nothing.

    full, plain, thin: what each of the rows took in the plan, without activations, and without what is joined either
    (`variants`).
    """
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
    activation = np.median(full - plain, axis=1) * [has_activation(row) for row in rows]
    beside = np.median(plain - thin, axis=1) * [joined(row) is not None for row in rows]
    spent = np.zeros((len(full), len(PARTS)))
    for at, row in enumerate(rows):
        spent[:, PARTS.index(_main(row, row is rows[-1]))] += whole[:, at] - activation[:, at] - beside[:, at]
        spent[:, PARTS.index("activation")] += activation[:, at]
        extra = joined(row)
        if extra is not None:
            spent[:, PARTS.index(extra)] += beside[:, at]
    return spent


def _shares(spent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of parts along the last axis: from 0 to 1, and 1 together."""
    positive = np.maximum(spent, 0)
    return np.asarray(positive / positive.sum(axis=-1, keepdims=True))
