"""A network's tensors as a plan holds them: normalisation part of the convolution before it, all in one row."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from triscale.errors import UserError

Doubles = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]
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
        self._parts: list[npt.NDArray[np.float32]] = []
        self._size = 0

    def convolution(self, name: str, inputs: int, outputs: int, kernel: int) -> Folded:
        """A dense convolution and its normalisation; the weight is [kernel, kernel, inputs, outputs]."""
        weight = self._take(f"{name}.conv.weight", (outputs, inputs, kernel, kernel))
        scale, bias = self._normalised(name, outputs)
        return Folded(self._lay(name, weight.transpose(2, 3, 1, 0), scale), self._lay(name, bias, 1.0))

    def depthwise(self, name: str, channels: int, kernel: int) -> Folded:
        """A depthwise convolution and its normalisation; the weight is [kernel, kernel, channels]."""
        weight = self._take(f"{name}.conv.weight", (channels, 1, kernel, kernel))
        scale, bias = self._normalised(name, channels)
        return Folded(self._lay(name, weight[:, 0].transpose(1, 2, 0), scale), self._lay(name, bias, 1.0))

    def linear(self, name: str, inputs: int, outputs: int, *sides: int) -> Folded:
        """A layer without normalisation; the weight is [inputs, outputs]. sides: (1, 1) for one of convolutions."""
        weight = self._take(f"{name}.weight", (outputs, inputs, *sides)).reshape(outputs, inputs)
        return Folded(self._lay(name, weight.T, 1.0), self._lay(name, self._take(f"{name}.bias", (outputs,)), 1.0))

    def values(self) -> npt.NDArray[np.float32]:
        """All that was laid down. Raises `UserError` where a tensor is left over: the weights are another network's."""
        for name in self._weights:
            if name not in self._taken and not name.endswith(_COUNTS):
                raise UserError(f"{name!r}: {self._network} has no such tensor; give the weights of this network")
        values = np.zeros(self._size, np.float32)
        begin = 0
        for part in self._parts:
            values[begin : begin + part.size] = part
            begin += _aligned(part.size)
        return values

    def _take(self, name: str, shape: tuple[int, ...]) -> Array:
        if name not in self._weights:
            raise UserError(f"{name!r} is missing among the weights; {self._network} needs it")
        array = np.asarray(self._weights[name])
        if array.shape != shape:
            raise UserError(f"{name!r} is {array.shape}, not {shape} as in {self._network}; give its own weights")
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{name!r} is of {array.dtype}; give weights as floating-point numbers")
        if not np.isfinite(array).all():
            raise UserError(f"{name!r} has values that are not finite; load or train the weights again")
        self._taken.add(name)
        return array

    def _normalised(self, name: str, channels: int) -> tuple[Doubles, Doubles]:
        """What normalisation multiplies each channel of a convolution by, and what it adds."""
        gain, shift, mean, variance = (
            self._take(f"{name}.norm.{part}", (channels,)).astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        with np.errstate(all="ignore"):  # `_lay` finds what is not finite
            scale = gain / np.sqrt(variance + self._epsilon)
            return scale, shift - mean * scale

    def _lay(self, name: str, tensor: Array, scale: Doubles | float) -> int:
        """Their product, computed in double precision and rounded once."""
        part = np.empty(tensor.shape, np.float32)
        with np.errstate(all="ignore"):
            np.multiply(tensor, scale, out=part, dtype=np.float64, casting="same_kind")
        if not np.isfinite(part).all():
            raise UserError(
                f"{name!r}: not finite once normalisation is part of its weights; load or train the weights again"
            )
        begin, self._size = self._size, self._size + _aligned(part.size)
        self._parts.append(part.ravel())
        return begin


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
