"""Networks with Triscale's kernels: the same training as with PyTorch's, and nothing else changes."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from specs import architectures
from torch import Tensor, nn

from triscale.arch import ZOO, Architecture, adapt, published
from triscale.arch.rounding import multiply
from triscale.kernels import status
from triscale.kernels.library import ISAS
from triscale.nn import Network, build

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = (
    "efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mobilenet_v2", "mnasnet_a1", "resnet50",
)  # fmt: skip
compiled = pytest.mark.skipif(status().isa is None, reason=f"no compiled kernels: {status().why}")


def small(name: str) -> Architecture:
    """At 32 pixels, and without chance."""
    architecture = replace(adapt(published(name), resolution=(32, 32), classes=10), stochastic_depth=0.0)
    return replace(architecture, head=replace(architecture.head, dropout=0.0))


def short() -> Architecture:
    """A few blocks, in which every kind of operator occurs."""
    architecture = small("efficientnet_b0")
    return replace(architecture, stages=architecture.stages[:2])


def images(architecture: Architecture, n: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, architecture.channels, *architecture.resolution, generator=generator)


def trained(network: Network, x: Tensor, prepare: Callable[[Network], Callable[[Tensor], Tensor]]) -> list[Tensor]:
    """Logits, gradients and running statistics of one step."""
    network.train()
    labels = torch.arange(len(x)) % network.architecture.classes
    logits = prepare(network)(x)
    F.cross_entropy(logits, labels).backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None for g in gradients)
    found = [logits.detach(), *(g for g in gradients if g is not None), *network.buffers()]
    return [tensor.double() for tensor in found]


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    """The length of all differences over the length of all."""
    return (
        torch.stack([(a - b).square().sum() for a, b in zip(one, other, strict=True)]).sum()
        / torch.stack([b.square().sum() for b in other]).sum()
    ).sqrt().item()  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_every_family_is_pytorchs(name: str) -> None:
    # Every kind of block, once: through many, the roundings of either side grow beyond any bound.
    architecture = multiply(small(name), depth=0.01, width=0.5)
    distances = []
    for seed in range(3):
        x, found = images(architecture, 8, seed), []
        for own in (False, True):
            network = build(architecture)
            network.use(network.with_kernels() if own else ())
            logits, *rest = trained(network, x, lambda n: n)
            count = len(list(network.parameters()))
            found.append(([logits], rest[:count], rest[count:]))
        distances.append([distance(one, other) for other, one in zip(*found, strict=True)])
    # Of some images a value lies within a rounding of an activation's kink, and its gradient is there or not.
    assert all(min(part) <= 3e-5 for part in zip(*distances, strict=True)), distances


@given(architectures())
@settings(max_examples=40)
def test_any_network_trains_with_them(architecture: Architecture) -> None:
    architecture = replace(architecture, stochastic_depth=0.0, head=replace(architecture.head, dropout=0.0))
    x, grads = images(architecture, 3).double(), []
    for own in (False, True):
        network = build(architecture).double().train()
        network.use(network.with_kernels() if own else ())
        network(x).square().sum().backward()
        grads.append([p.grad for p in network.parameters()])
    for one, other in zip(*grads, strict=True):
        assert one is not None
        assert other is not None
        assert (one - other).norm() <= 1e-6 * max(other.norm().item(), 1.0)


def test_evaluation_exports_and_names_are_untouched() -> None:
    architecture = small("efficientnet_b0")
    plain, other = build(architecture).eval(), build(architecture).eval()
    other.use(other.with_kernels())
    x = images(architecture, 2)
    with torch.no_grad():
        assert torch.equal(plain(x), other(x))
    assert list(plain.state_dict()) == list(other.state_dict())
    program = torch.export.export(other, (x,))
    assert not any("triscale" in str(node.target) for node in program.graph.nodes)


def used(network: Network) -> list[str]:
    """The operators of a training step."""
    program = torch.export.export(network.train(), (images(network.architecture, 2),))
    return [node.target.name().split("::")[1] for node in program.graph.nodes if "triscale" in str(node.target)]


@compiled
def test_layers_that_are_named_train_by_their_kernels_and_no_others() -> None:
    architecture = small("efficientnet_b0")
    network = build(replace(architecture, stages=architecture.stages[:2]))
    names = tuple(network.with_kernels())
    assert "stages.1.0.expand.conv" in names
    assert "stages.1.0.expand.norm" in names
    assert "stages.1.0.squeeze_excite" in names
    assert "stem.conv.norm" in names
    assert "stem.conv.conv" not in names, "a whole convolution has no kernel"
    for name, operator in (
        ("stages.1.0.expand.conv", "pointwise"),
        ("stages.1.0.depthwise.conv", "depthwise"),
        ("stages.1.0.expand.norm", "norm"),
        ("stages.1.0.squeeze_excite", "squeeze_excite"),
    ):
        network.use([name])
        assert used(network) == [operator]
    # Where neighbours are both named, one kernel does both.
    network.use(["stages.1.0.expand.norm", "stages.1.0.depthwise.conv", "stages.1.0.depthwise.norm"])
    assert used(network) == ["norm_depthwise", "norm"]
    network.use(["stages.1.0.depthwise.norm", "stages.1.0.squeeze_excite"])
    assert used(network) == ["norm_excite"]
    network.use(())
    assert used(network) == []


def test_a_layer_that_is_none_or_has_no_kernel_is_named() -> None:
    network = build(small("efficientnet_b0"))
    for name in ("stages.9.0.expand.conv", "stem.conv.conv", "stages.1", ""):
        with pytest.raises(ValueError, match=f"'{name}' is no layer of"):
            network.use(["stem.conv.norm", name])
    assert not any(getattr(module, "own_norm", False) for module in network.modules()), "nothing is used then"


def test_copies_pickles_and_saved_weights_of_a_network_with_kernels_are_those_of_one_without() -> None:
    plain, own = build(small("efficientnet_b0")), build(small("efficientnet_b0"))
    own.use(own.with_kernels())
    x = images(plain.architecture, 4)
    for other in (own, deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert list(other.state_dict()) == list(plain.state_dict())
        # Statistics computed anew for averaged weights: only normalisation is in training mode.
        for network in (plain, other):
            network.eval()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
                    module.train()
            with torch.no_grad():
                network(x)
        for one, two in zip(plain.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(one, two)


def test_frozen_statistics_stay_frozen() -> None:
    network = build(small("efficientnet_b0")).train()
    network.use(network.with_kernels())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(images(network.architecture, 2)).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())


def test_a_compiled_step_is_one_graph_with_the_same_gradients() -> None:
    architecture = small("efficientnet_b0")
    # A short network: what is tested is that every kind of operator compiles.
    architecture = replace(architecture, stages=architecture.stages[:2])
    found = []
    for compiling in (False, True):
        network = build(architecture)
        network.use(network.with_kernels())

        def prepare(network: Network, compiling: bool = compiling) -> Callable[[Tensor], Tensor]:
            return torch.compile(network, backend="aot_eager", fullgraph=True) if compiling else network

        found.append(trained(network, images(architecture), prepare))
    assert distance(found[1], found[0]) <= 1e-6


def test_hooks_of_a_block_are_called_in_training_where_no_kernel_joins_its_layers() -> None:
    network, called = build(short()).train(), set[str]()
    network.use([name for name in network.with_kernels() if not name.startswith("stages.0.")])
    first = {name: module for name, module in network.stages[0].named_modules() if not list(module.children())}
    for name, module in first.items():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    network(images(network.architecture))
    assert called == first.keys()


def test_a_second_derivative_is_an_error_and_never_zero() -> None:
    """Whether or not the first one's own gradient needs one, and by whichever way it is asked for."""
    network = build(short()).double().train()
    network.use(network.with_kernels())
    x = images(network.architecture, 4).double().requires_grad_()
    asked: tuple[Callable[[Tensor], object], ...] = (
        lambda penalty: torch.autograd.grad(penalty, [*network.parameters()], allow_unused=True),
        Tensor.backward,
    )
    for loss, ask in product((torch.sum, lambda y: y.square().sum()), asked):
        maps = network.features(x)
        (grad,) = torch.autograd.grad(loss(maps), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"no second derivatives; network\.use\(\(\)\)"):
            ask(maps.sum() + grad.square().sum())


def test_a_step_on_the_meta_device_computes_shapes() -> None:
    with torch.device("meta"):
        network = Network(short()).train()
        x = torch.empty(4, 3, 32, 32, requires_grad=True)
    network.use(network.with_kernels())
    logits = network(x)
    logits.sum().backward()
    assert (logits.shape, logits.is_meta) == ((4, 10), True)
    found = [tensor.grad for tensor in (x, *network.parameters())]
    assert all(grad is not None and grad.is_meta for grad in found)


def test_normalisation_that_is_told_to_track_nothing_keeps_its_averages() -> None:
    network = build(short()).train()
    network.use(network.with_kernels())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(images(network.architecture))
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_normalisation_without_weight_and_bias_trains_as_by_pytorch() -> None:
    found = []
    for own in (False, True):
        network = build(short())
        names = tuple(network.with_kernels())
        for module in network.stages.modules():
            if hasattr(module, "norm"):
                module.norm = nn.BatchNorm2d(module.norm.num_features, affine=False)
        assert {name for name in names if name.endswith("norm")} - network.with_kernels().keys()
        network.use(network.with_kernels() if own else ())
        found.append(trained(network, images(network.architecture), lambda network: network))
    assert distance(found[1], found[0]) <= 1e-5


def test_normalisation_may_lose_its_weight_and_bias_after_kernels_are_in_use() -> None:
    network = build(short()).train()
    network.use(network.with_kernels())
    network.stages[0][0].depthwise.norm = nn.BatchNorm2d(network.stages[0][0].depthwise.norm.num_features, affine=False)
    assert network(images(network.architecture)).isfinite().all()


def test_an_empty_batch_leaves_the_averages_as_they_are() -> None:
    network = build(short()).train()
    network.use(network.with_kernels())
    network(images(network.architecture))
    before = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}
    assert before
    network(images(network.architecture, 0))
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers() if "running" in name)


def test_training_mode_exports_with_the_operators_and_is_saved(tmp_path: Path) -> None:
    network, x = build(short()).train(), images(short(), 2)
    network.use(network.with_kernels())
    program = torch.export.export(network, (x,))
    torch.export.save(program, tmp_path / "training.pt2")
    assert torch.equal(torch.export.load(tmp_path / "training.pt2").module()(x), network(x))
    names = {str(node.target) for node in program.graph.nodes if "triscale" in str(node.target)}
    expected = "depthwise", "pointwise", "norm", "norm_depthwise", "norm_excite"
    assert names == {f"triscale.{name}.default" for name in expected}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.skipif(" " in torch.__path__[0], reason="PyTorch's compiler cannot link where its path has a space")
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler")
def test_inductor_trains_with_them() -> None:
    architecture = small("efficientnet_b0")
    architecture = replace(architecture, stages=architecture.stages[:2])
    found = []
    for compiling in (False, True):
        network = build(architecture)
        network.use(network.with_kernels())

        def prepare(network: Network, compiling: bool = compiling) -> Callable[[Tensor], Tensor]:
            return torch.compile(network, fullgraph=True) if compiling else network

        found.append(trained(network, images(architecture), prepare))
    assert distance(found[1], found[0]) <= 1e-4


STEP = """
import torch
from triscale.kernels import status
from triscale.arch import adapt, published
from triscale.nn import build
torch.set_num_threads(1)
from triscale.arch.rounding import multiply
network = build(multiply(adapt(published("efficientnet_b0"), resolution=(32, 32), classes=10), depth=0.01)).train()
network.use(network.with_kernels())
generator = torch.Generator().manual_seed(0)
x = torch.randn(4, 3, 32, 32, generator=generator)
torch.manual_seed(0)
network(x).square().mean().backward()
print(status().isa, sum(p.grad.square().sum().item() for p in network.parameters()) ** 0.5)
with torch.autocast("cpu", torch.bfloat16):
    network(x).float().square().mean().backward()
"""


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import triscale

    root = os.path.dirname(os.path.dirname(triscale.__file__))  # noqa: PTH120
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


MISSING = """
import warnings
import torch
import triscale.kernels.library as library
from triscale.arch import adapt, published
from triscale.nn import build
if {missing}:
    library._FILE = "nowhere.so"
said, grads = [], []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for own in (False, True, True):
        network = build(adapt(published("efficientnet_b0"), resolution=(32, 32), classes=10)).train()
        network.use(network.with_kernels() if own else ())
        torch.manual_seed(0)
        network(torch.ones(2, 3, 32, 32).index_fill_(0, torch.tensor([1]), 0.5)).sum().backward()
        grads.append([p.grad for p in network.parameters()])
assert all(torch.equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other)), "not PyTorch"
print(*(warning.message for warning in caught), sep="\\n")
"""


def test_where_kernels_are_missing_pytorch_trains_and_it_is_said_once() -> None:
    done = in_a_process(MISSING.format(missing=True), TRISCALE_KERNELS="on")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "Triscale's own kernels are not used, training is slower: they were not compiled: the installation found no "
        "C++ compiler that works"
    )


def test_where_kernels_are_switched_off_pytorch_trains_and_nothing_is_said() -> None:
    done = in_a_process(MISSING.format(missing=False), TRISCALE_KERNELS="off")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.slow
@compiled
def test_every_instruction_set_that_is_here_can_be_asked_for() -> None:
    lengths = []
    for isa in ISAS:
        done = in_a_process(STEP, TRISCALE_ISA=isa)
        assert done.returncode == 0, done.stderr
        name, length = done.stdout.split()
        # Never a faster one than asked, nor one that the processor lacks.
        assert ISAS.index(name) <= ISAS.index(isa)
        lengths.append(float(length))
    assert max(lengths) / min(lengths) - 1 <= 1e-4


def test_they_can_be_switched_off_and_wrong_settings_are_named() -> None:
    done = in_a_process(STEP, TRISCALE_KERNELS="off")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("None ")
    assert "slower" not in done.stderr
    for name, value in (("TRISCALE_KERNELS", "maybe"), ("TRISCALE_ISA", "sse9")):
        done = in_a_process(STEP, **{name: value})
        assert done.returncode != 0
        assert f"{name}='{value}'" in done.stderr


def test_an_empty_setting_counts_as_none() -> None:
    given = [
        in_a_process("from triscale.kernels import status; print(status())", **setting)
        for setting in ({"TRISCALE_KERNELS": "", "TRISCALE_ISA": ""}, {"TRISCALE_KERNELS": "on"})
    ]
    assert [done.returncode for done in given] == [0, 0], given[0].stderr
    assert given[0].stdout == given[1].stdout


def test_the_zoo_has_no_family_that_is_not_tested_here() -> None:
    def families(names: Iterable[str]) -> set[str]:
        return {re.sub(r"(_[a-z]?)?\d+$", "", name) for name in names}

    assert families(ZOO) == families(FAMILIES)
