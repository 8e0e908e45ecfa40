"""What a cost promises: the published counts, the built module's counts, names, and honest memory estimates."""

import subprocess
import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from published import NETWORKS
from specs import architectures
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from triscale.arch import ZOO, Architecture, adapt, published
from triscale.costing import cost, layers
from triscale.nn import Network, build

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Traced:
    """What a module really did with one image, in the order in which it did it."""

    name: str
    macs: int
    outputs: int
    output: tuple[int, ...]
    is_convolution: bool


def on_meta(architecture: Architecture) -> Network:
    """The network without memory for its weights: shapes alone."""
    with torch.device("meta"):
        return Network(architecture).eval()


def trace(network: Network) -> list[Traced]:
    """Multiply-adds counted from the tensors that pass each convolution and linear layer, one image."""
    found: list[Traced] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            weight = module.get_parameter("weight")
            per_output = weight[0].numel()  # products that make up one element of the output
            found.append(Traced(name, per_output * out.numel(), out.numel(), tuple(out.shape), out.ndim == 4))

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    device = next(network.parameters()).device
    architecture = network.architecture
    with torch.no_grad():
        network(torch.zeros(1, architecture.channels, *architecture.resolution, device=device))
    for handle in handles:
        handle.remove()
    return found


def numel(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def check_against_module(network: Network) -> None:
    """Totals, and every layer: its name, its order, its parameters, MACs and output."""
    architecture = network.architecture
    total, rows, traced = cost(architecture), layers(architecture), trace(network)
    assert total.params == numel(network.parameters())
    assert total.macs == sum(layer.macs for layer in traced)
    assert total.activations == sum(layer.outputs for layer in traced if layer.is_convolution)
    assert len(rows) == len(traced)
    for row, real in zip(rows, traced, strict=True):
        module = network.get_submodule(row.name)
        assert real.name in (row.name, f"{row.name}.conv")
        assert row.params == numel(module.parameters())
        assert row.macs == real.macs
        assert row.activations == (real.outputs if real.is_convolution else 0)
        assert row.outputs == real.output[1]
        assert row.output == (real.output[2:] or (1, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert cost(published(name)).params == NETWORKS[name]["params"]


@pytest.mark.parametrize("name", [name for name, sizes in NETWORKS.items() if "macs" in sizes])
def test_macs_are_the_published_ones(name: str) -> None:
    assert cost(published(name)).macs == NETWORKS[name]["macs"]


@pytest.mark.parametrize("name", [name for name, sizes in NETWORKS.items() if "activations_m" in sizes])
def test_activations_are_the_published_ones_to_two_decimals_of_a_million(name: str) -> None:
    assert round(cost(published(name)).activations / 1e6, 2) == NETWORKS[name]["activations_m"]


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_network_costs_what_its_module_does_layer_by_layer(name: str) -> None:
    check_against_module(on_meta(published(name)))


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mnasnet_a1", "resnet50"])
@pytest.mark.parametrize("resolution", [(28, 28), (33, 47)])
def test_networks_fitted_to_small_images_cost_what_their_modules_do(name: str, resolution: tuple[int, int]) -> None:
    check_against_module(on_meta(adapt(published(name), resolution=resolution, channels=1, classes=10)))


@given(architectures())
@settings(max_examples=80, deadline=None)
def test_any_network_costs_what_its_module_does_layer_by_layer(architecture: Architecture) -> None:
    check_against_module(on_meta(architecture))


@given(architectures())
@settings(max_examples=20, deadline=None)
def test_any_network_that_really_runs_costs_what_it_does(architecture: Architecture) -> None:
    check_against_module(build(architecture).eval())


@given(architectures())
@settings(max_examples=150, deadline=None)
def test_layers_sum_to_the_totals(architecture: Architecture) -> None:
    total = cost(architecture)
    assert total.layers == layers(architecture)
    assert sum(layer.params for layer in total.layers) == total.params
    assert sum(layer.macs for layer in total.layers) == total.macs
    assert sum(layer.activations for layer in total.layers) == total.activations
    assert len({layer.name for layer in total.layers}) == len(total.layers)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_l2", "resnet50"])
def test_size_and_training_state_count_four_bytes_a_parameter(name: str) -> None:
    total = cost(published(name))
    assert total.size == 4 * total.params
    assert total.memory.training_state == 5 * total.size
    assert total.memory.training(32) == total.memory.training_state + 32 * total.memory.training_per_image


def test_cost_does_not_depend_on_the_name() -> None:
    b0 = published("efficientnet_b0")
    assert cost(replace(b0, name="other")) == cost(b0)


def kept_for_backward(architecture: Architecture, batch: int = 2) -> float:
    """Bytes an image that autograd really keeps: each storage once, parameters left out."""
    network = build(architecture).train()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage  # held, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.zeros(batch, architecture.channels, *architecture.resolution))
    return float(sum(storage.nbytes() for storage in storages.values())) / batch


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("efficientnet_b0", 0.02),
        ("efficientnet_b2", 0.02),
        ("efficientnet_lite0", 0.025),
        ("mobilenet_v1", 0.02),
        ("mobilenet_v2", 0.02),
        ("resnet18", 0.02),
        ("resnet50", 0.02),
        # ReLU with SAME padding: the padded copies before each stride come on top of what is counted.
        ("mnasnet_a1", 0.15),
    ],
)
def test_training_memory_an_image_is_what_autograd_keeps(name: str, tolerance: float) -> None:
    architecture = replace(published(name), resolution=(128, 128))
    real = kept_for_backward(architecture)
    assert cost(architecture).memory.training_per_image == pytest.approx(real, rel=tolerance)


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes of tensors alive at once while it is on; those given beforehand are left out."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left_out = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.holders: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and not any(tensor is given for given in tree_leaves(args)):
                self.hold(tensor)
        return out

    def hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in self.left_out or size == 0:
            return
        if self.holders.get(key, 0) == 0:
            self.now += size
            self.most = max(self.most, self.now)
        self.holders[key] = self.holders.get(key, 0) + 1
        weakref.finalize(tensor, self.release, key, size)

    def release(self, key: int, size: int) -> None:
        self.holders[key] -= 1
        if self.holders[key] == 0:
            self.now -= size


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "resnet18", "resnet50"])
def test_inference_memory_is_between_two_fifths_of_what_eager_execution_holds_and_all_of_it(name: str) -> None:
    architecture = published(name)
    network, image = build(architecture).eval(), torch.zeros(1, 3, *architecture.resolution)
    live = Live([*network.parameters(), *network.buffers()])
    with torch.no_grad(), live:
        live.hold(image)
        network(image)
    total = cost(architecture)
    # Eager execution holds a normalisation's input and output beside what the caller holds: more than the two tensors
    # of a convolution.
    assert 0.4 * live.most <= total.memory.inference - total.size <= live.most


@given(architectures())
@settings(max_examples=100, deadline=None)
def test_inference_holds_at_least_the_image_and_the_largest_map(architecture: Architecture) -> None:
    total = cost(architecture)
    largest = max(layer.activations for layer in total.layers)
    image = architecture.channels * architecture.resolution[0] * architecture.resolution[1]
    assert total.memory.inference >= total.size + 4 * max(largest, image)
    # At most three tensors are alive together: a shortcut's, a layer's input and its output.
    assert total.memory.inference <= total.size + 4 * 3 * max(largest, image)


def test_costing_and_scaling_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; import triscale.costing, triscale.scaling, triscale.arch; "
        "from triscale.costing import cost; cost(triscale.arch.published('efficientnet_b7')).layers; "
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": ":".join(path)},
    )
    assert done.stdout.strip() == "[]"
