"""A network's tensors as a plan holds them: normalisation part of the convolution before it, all in one row."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from triscale.errors import UserError

Doubles = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]
PART = 32768  # values that are scaled and laid down at a time, about: they stay in the first caches between
FEWEST = 16  # outputs of a part: a line of the cache, for outputs are what lies side by side in the end
ALIGNED = 16  # values; a tensor begins at a multiple of it
_COUNTS = "num_batches_tracked"  # training's, of no use here


class Folded(NamedTuple):
    """Where a layer's weight and bias begin in the values."""

    weight: int
    bias: int


class Folding:
    """Takes tensors by name, each once, and lays them down.

    weights: of `Network.state_dict()`, as arrays. network: its name, for errors. epsilon: normalisation's.
    """

    def __init__(self, weights: Mapping[str, npt.NDArray[np.generic]], network: str, epsilon: float) -> None:
        self._weights, self._network, self._epsilon = weights, network, epsilon
        self._taken: set[str] = set()
        # No smaller than what comes to lie there; memory that is never written to costs nothing.
        self._values = np.zeros(sum(_aligned(np.asarray(array).size) for array in weights.values()), np.float32)
        self._size = 0

    def convolution(self, name: str, inputs: int, outputs: int, kernel: int) -> Folded:
        """A dense convolution and its normalisation; the weight is [kernel, kernel, inputs, outputs]."""
        weight = self._take(f"{name}.conv.weight", (outputs, inputs, kernel, kernel))
        scale, bias = self._normalised(name, outputs)
        return Folded(self._lay(name, weight, scale, (2, 3, 1, 0)), self._lay(name, bias))

    def depthwise(self, name: str, channels: int, kernel: int) -> Folded:
        """A depthwise convolution and its normalisation; the weight is [kernel, kernel, channels]."""
        weight = self._take(f"{name}.conv.weight", (channels, 1, kernel, kernel))
        scale, bias = self._normalised(name, channels)
        return Folded(self._lay(name, weight, scale, (1, 2, 3, 0)), self._lay(name, bias))

    def linear(self, name: str, inputs: int, outputs: int, *sides: int) -> Folded:
        """A layer without normalisation; the weight is [inputs, outputs]. sides: (1, 1) for one of convolutions."""
        weight = self._take(f"{name}.weight", (outputs, inputs, *sides)).reshape(outputs, inputs)
        bias = self._take(f"{name}.bias", (outputs,))
        return Folded(self._lay(name, weight, None, (1, 0)), self._lay(name, bias))

    def values(self) -> npt.NDArray[np.float32]:
        """All that was laid down. Raises `UserError` where a tensor is left over: the weights are another network's."""
        for name in self._weights:
            if name not in self._taken and not name.endswith(_COUNTS):
                raise UserError(f"{name!r}: {self._network} has no such tensor; give the weights of this network")
        return self._values[: self._size]

    def _take(self, name: str, shape: tuple[int, ...]) -> Array:
        if name not in self._weights:
            raise UserError(f"{name!r} is missing among the weights; {self._network} needs it")
        array = np.asarray(self._weights[name])
        if array.shape != shape:
            raise UserError(f"{name!r} is {array.shape}, not {shape} as in {self._network}; give its own weights")
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{name!r} is of {array.dtype}; give weights as floating-point numbers")
        self._taken.add(name)
        return array

    def _normalised(self, name: str, channels: int) -> tuple[Doubles, Doubles]:
        """What normalisation multiplies each channel of a convolution by, and what it adds."""
        gain, shift, mean, variance = (
            self._take(f"{name}.norm.{part}", (channels,)).astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        if not all(np.isfinite(values).all() for values in (gain, shift, mean, variance)):
            raise self._not_finite(name)  # even where weights would be: by an infinite variance
        with np.errstate(all="ignore"):  # `_lay` finds what is not finite
            scale = gain / np.sqrt(variance + self._epsilon)
            return scale, shift - mean * scale

    def _lay(self, name: str, tensor: Array, scale: Doubles | None = None, order: tuple[int, ...] = (0,)) -> int:
        """A tensor [outputs, …] times its outputs' scale, computed in double precision and rounded once; its axes
        come to lie in that order."""
        begin, size = self._size, tensor.size
        self._size += _aligned(size)
        space = self._values[begin : begin + size].reshape([tensor.shape[axis] for axis in order])
        laid = space.transpose(np.argsort(order))
        many = max(FEWEST, PART * len(tensor) // size)
        with np.errstate(all="ignore"):
            for at in range(0, len(tensor), many):
                rows = slice(at, at + many)
                part = tensor[rows].astype(np.float64)
                if scale is not None:
                    part *= scale[rows].reshape(-1, *[1] * (tensor.ndim - 1))
                rounded = part.astype(np.float32)
                if not np.isfinite(rounded).all():
                    raise self._not_finite(name)
                laid[rows] = rounded
        return begin

    def _not_finite(self, name: str) -> UserError:
        """Names a tensor of the layer that has such values, or else the layer."""
        for tensor, array in self._weights.items():
            if tensor in self._taken and tensor.startswith(f"{name}.") and not np.isfinite(array).all():
                return UserError(f"{tensor!r} has values that are not finite; load or train the weights again")
        return UserError(
            f"{name!r}: not finite once normalisation is part of its weights; load or train the weights again"
        )


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
