"""What a plan means, layer by layer, in numpy and double precision; and networks to make plans of."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from triscale.arch import Architecture
from triscale.engines.native import Plan, compile_plan
from triscale.engines.native.layers import Kind, Layer
from triscale.nn import Network, build

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]

NETWORKS = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mnasnet_a1", "resnet18", "resnet50")


def _sigmoid(x: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


ACTIVATIONS: tuple[Callable[[Array], Array], ...] = (
    lambda x: x,
    lambda x: np.maximum(x, 0),
    lambda x: np.clip(x, 0, 6),
    lambda x: x * np.clip(x + 3, 0, 6) / 6,
    lambda x: x * _sigmoid(x),
)


class Interpreter:
    """Holds buffers and refuses what the engine could not do: a value of another shape, an output over an input."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.buffers: dict[int, Array] = {}
        self.layer = Layer(Kind.INPUT)

    def __call__(self, x: npt.NDArray[np.floating]) -> Array:
        """(n, channels, height, width) → (n, classes)."""
        image = x.transpose(0, 2, 3, 1).astype(np.float64)
        for row in self.plan.layers.tolist():
            self.layer = Layer(Kind(row[0]), *row[1:])
            assert not self.layer.reads() & {*self.layer.writes()}
            assert len({*self.layer.writes()}) == len(self.layer.writes())
            assert all(0 <= buffer < self.plan.buffers for buffer in self.layer.writes())
            out = getattr(self, f"_{self.layer.kind.name.lower()}")(image)
            if self.layer.kind not in (Kind.EXCITE, Kind.SUM):
                assert out.shape[1:] == (self.layer.out_height, self.layer.out_width, self.layer.outputs)
            self.buffers[self.layer.output] = out
        return out.reshape(len(x), self.plan.classes)

    def _read(self, channels: int | None = None) -> Array:
        layer, x = self.layer, self.buffers[self.layer.input]
        assert x.shape[1:] == (layer.height, layer.width, channels or layer.channels)
        return x

    def _values(self, begin: int, *shape: int) -> Array:
        size = int(np.prod(shape))
        assert begin >= 0
        assert begin % 16 == 0
        assert begin + size <= self.plan.blob.size
        return self.plan.blob[begin : begin + size].reshape(shape).astype(np.float64)

    def _gated(self, x: Array) -> Array:
        if self.layer.gate < 0:
            return x
        gate = self.buffers[self.layer.gate]
        assert gate.shape == (len(x), self.layer.channels)
        return x * gate[:, None, None]

    def _added(self, y: Array) -> Array:
        layer = self.layer
        if layer.residual < 0:
            assert layer.last == 0
            return y
        residual = self.buffers[layer.residual]
        assert residual.shape == y.shape
        return ACTIVATIONS[layer.last](residual + y)

    def _surrounded(self, x: Array, fill: float = 0.0) -> Array:
        """At (top, left) of a map of the output's size."""
        layer = self.layer
        y = np.full((len(x), layer.out_height, layer.out_width, x.shape[-1]), fill)
        y[:, layer.top : layer.top + layer.height, layer.left : layer.left + layer.width] = x
        return y

    def _windowed(self, x: Array, fill: float) -> Array:
        """(kernel, kernel, n, out_height, out_width, channels): what each place of the kernel sees."""
        layer = self.layer
        below = (layer.out_height - 1) * layer.stride + layer.kernel - layer.top - layer.height
        right = (layer.out_width - 1) * layer.stride + layer.kernel - layer.left - layer.width
        pads = (0, 0), (layer.top, max(below, 0)), (layer.left, max(right, 0)), (0, 0)
        return self._seen(np.pad(x, pads, constant_values=fill))

    def _seen(self, x: Array) -> Array:
        layer = self.layer
        height, width = ((n - 1) * layer.stride + 1 for n in (layer.out_height, layer.out_width))
        assert x.shape[1] >= height + layer.kernel - 1
        assert x.shape[2] >= width + layer.kernel - 1
        places = product(range(layer.kernel), repeat=2)
        found = [x[:, i : i + height : layer.stride, j : j + width : layer.stride] for i, j in places]
        return np.stack(found).reshape(layer.kernel, layer.kernel, *found[0].shape)

    def _input(self, image: Array) -> Array:
        assert image.shape[1:] == (self.layer.height, self.layer.width, self.layer.channels)
        return self._surrounded(image)

    def _pad(self, _: Array) -> Array:
        return self._surrounded(self._read())

    def _conv(self, _: Array) -> Array:
        layer = self.layer
        assert layer.gate < 0 or layer.kernel == layer.stride == 1
        weight = self._values(layer.weight, layer.kernel, layer.kernel, layer.channels, layer.outputs)
        seen = self._seen(self._gated(self._read()))
        y = sum(seen[i, j] @ weight[i, j] for i, j in product(range(layer.kernel), repeat=2))
        return self._added(ACTIVATIONS[layer.activation](y + self._values(layer.bias, layer.outputs)))

    def _depthwise(self, _: Array) -> Array:
        layer = self.layer
        x = self._read(layer.expand)
        if layer.expand:
            x = x @ self._values(layer.weight2, layer.expand, layer.channels)
            x = ACTIVATIONS[layer.expand_activation](x + self._values(layer.bias2, layer.channels))
        weight = self._values(layer.weight, layer.kernel, layer.kernel, layer.channels)
        y = np.einsum("ijnhwc,ijc->nhwc", self._windowed(x, 0), weight) + self._values(layer.bias, layer.channels)
        y = ACTIVATIONS[layer.activation](y)
        if layer.sums >= 0:
            self.buffers[layer.sums] = y.sum((1, 2))
        return y

    def _excite(self, _: Array) -> Array:
        layer = self.layer
        sums = self.buffers[layer.sums]
        assert sums.shape[1:] == (layer.channels,)
        weight = self._values(layer.weight, layer.channels, layer.squeezed)
        inner = sums / (layer.height * layer.width) @ weight + self._values(layer.bias, layer.squeezed)
        weight2 = self._values(layer.weight2, layer.squeezed, layer.channels)
        return _sigmoid(ACTIVATIONS[layer.activation](inner) @ weight2 + self._values(layer.bias2, layer.channels))

    def _scale(self, _: Array) -> Array:
        return self._added(self._gated(self._read()))

    def _max_pool(self, _: Array) -> Array:
        return self._windowed(self._read(), -np.inf).max((0, 1))

    def _shrink(self, _: Array) -> Array:
        layer = self.layer
        assert layer.kernel == layer.stride
        y = np.nanmean(self._windowed(self._read(), np.nan), (0, 1))
        return np.pad(y, ((0, 0), (0, 0), (0, 0), (0, layer.outputs - layer.channels)))

    def _mean(self, _: Array) -> Array:
        return self._read().mean((1, 2), keepdims=True)

    def _sum(self, _: Array) -> Array:
        return self._read().sum((1, 2))


@torch.no_grad()
def trained(architecture: Architecture, seed: int = 0) -> Network:
    """The network as if it had learned something: no bias is zero, and normalisation knows what it is given."""
    network, generator = build(architecture, seed=seed).eval(), torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and "running" not in name:
            center = 1.0 if name.endswith(".weight") else 0.0
            tensor.normal_(center, 0.3, generator=generator)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1
    network(torch.from_numpy(pictures(architecture, 6, seed)))
    for norm in norms:
        assert norm.running_var is not None
        norm.eval().running_var.clamp_(min=0.1)  # of six images with maps of a pixel, it can be as good as nothing
    return network


def arrays(network: Network) -> dict[str, npt.NDArray[np.generic]]:
    """Its tensors as `compile_plan` takes them."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def planned(architecture: Architecture, seed: int = 0) -> tuple[Plan, Network]:
    """A plan and the network that it comes from."""
    network = trained(architecture, seed)
    return compile_plan(architecture, arrays(network)), network


def pictures(architecture: Architecture, n: int, seed: int = 0) -> Single:
    shape = (n, architecture.channels, *architecture.resolution)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@torch.no_grad()
def answered(network: Network, x: Single, dtype: torch.dtype = torch.float64) -> Array:
    """PyTorch's logits."""
    logits: Array = deepcopy(network).to(dtype)(torch.from_numpy(x).to(dtype)).double().numpy()
    return logits


def furthest(found: npt.NDArray[np.floating], wanted: Array) -> float:
    """The largest difference, as a share of the largest logit, or of one where none is larger."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1))


def as_near_as_pytorch(found: npt.NDArray[np.floating], network: Network, x: Single) -> None:
    """To what double precision gives: a network can make much of the last digit, and then does so of PyTorch's too."""
    wanted = answered(network, x)
    assert furthest(found, wanted) < 1e-5 + 8 * furthest(answered(network, x, torch.float32), wanted)


def spoiled(plan: Plan, row: int, field: int, value: int) -> Plan:
    layers = plan.layers.copy()
    layers[row, field] = value
    return replace(plan, layers=layers)
