from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from triscale.arch import adapt, published
from triscale.engines import logits as choice
from triscale.engines import measure_latency, measure_memory, running
from triscale.engines.logits import engine_for
from triscale.engines.native import Availability
from triscale.engines.table import Kind
from triscale.errors import UserError
from triscale.kernels import Status, warn_if_missing
from triscale.nn import Network, build

CPU = torch.device("cpu")


def small(name: str = "resnet18", side: int = 32) -> Network:
    return build(adapt(published(name), resolution=(side, side), classes=10))


def test_a_latency_says_what_it_was_measured_with() -> None:
    found = measure_latency([small()], device=CPU, seconds=0.05)[0]
    assert 0 < found.low <= found.median <= found.high
    assert found.n >= 11
    assert found.threads == torch.get_num_threads()
    assert found.device == "cpu"


def test_a_latency_names_the_engine_that_ran_the_network() -> None:
    hooked = small()
    hooked.register_forward_hook(lambda module, inputs, logits: logits)
    found = measure_latency([small(), hooked], device=CPU, seconds=0.001)
    assert [one.engine for one in found] == [engine_for(CPU), "torch"]


class Recorded(Network):
    """A network that writes down when it is asked."""

    def __init__(self, name: str, book: list[str]) -> None:
        super().__init__(adapt(published("resnet18"), resolution=(16, 16), classes=2))
        self.name, self.write = name, book.append  # which copies of the network share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(self.name)
        assert not self.training
        return x


def test_networks_are_measured_in_turns_after_a_warm_up() -> None:
    book: list[str] = []
    found = measure_latency([Recorded("a", book), Recorded("b", book)], device=CPU, seconds=0.001)
    warm, timed = book[:6], book[6:]
    assert warm == ["a"] * 3 + ["b"] * 3
    assert timed == ["a", "b"] * (len(timed) // 2)
    assert found[0].n == found[1].n == len(timed) // 2


def test_measuring_leaves_a_network_in_its_mode() -> None:
    network = small().train()
    measure_latency([network], device=CPU, seconds=0.01)
    assert network.training
    measure_memory(network, device=CPU)
    assert network.training


class Elsewhere(Network):
    """A network that was on another device: moving it makes new tensors."""

    def to(self, *_: Any, **__: Any) -> "Elsewhere":
        return self._apply(torch.clone)


def test_a_network_that_was_moved_to_be_measured_can_be_trained() -> None:
    network = Elsewhere(adapt(published("resnet18"), resolution=(16, 16), classes=2))
    measure_latency([network], device=CPU, seconds=0.001)
    network(torch.zeros(2, 3, 16, 16)).sum().backward()
    measure_memory(network, device=CPU)
    network(torch.zeros(2, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_memory_is_the_same_each_time_and_holds_the_weights_and_the_largest_maps(name: str) -> None:
    network = small(name)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    first, second = measure_memory(network, device=CPU), measure_memory(network, device=CPU)
    assert first == second
    assert first > weights
    larger = measure_memory(small(name, 96), device=CPU)
    assert larger > first


def test_memory_sees_what_is_allocated_and_released_on_the_way() -> None:
    class Greedy(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.zeros(1_000_000)
            second = first + 1  # two at once
            del first
            third = second + 1
            return x + third[0]

    tiny = replace(adapt(published("mobilenet_v2"), resolution=(16, 16), classes=2))
    network = Greedy(tiny)
    held = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    extra = measure_memory(network, device=CPU) - held
    assert 8_000_000 <= extra < 8_100_000


def test_nothing_is_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    measure_memory(small(), device=CPU)
    assert capfd.readouterr() == ("", "")


def test_a_slow_network_is_measured_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("triscale.engines.turns.time.perf_counter", lambda: 2.0 * next(clock))
    found = measure_latency([small()], device=CPU)[0]
    assert found.n == 3


def test_an_engine_says_itself_what_it_lacks_and_where_to_get_it() -> None:
    def refuses(precision: str) -> str | None:
        return "no bf16 on Sundays" if precision == "bf16" else None

    kind = Kind("mine", "My engine", ("fp32", "bf16"), lambda *asked: running(small()), refuses=refuses)
    assert (kind.missing("fp32"), kind.missing("bf16")) == (None, "no bf16 on Sundays")
    assert kind.missing("fp16") == "My engine runs in fp32 and bf16, not in fp16"
    bare = replace(kind, modules=("json", "no_such_engine"), extra="mine")
    assert bare.missing("bf16") == "no_such_engine is not installed; pip install 'triscale[mine]'"


@pytest.mark.parametrize("isa", ["its own", "baseline", None])
def test_any_engine_gives_the_networks_logits_and_leaves_its_mode(
    isa: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isa != "its own":
        monkeypatch.setattr(choice, "available", lambda: Availability(isa, why="not compiled"))
        monkeypatch.setattr(choice, "warn_if_missing", lambda what: None)
    network = small("efficientnet_b0").train()
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with running(network) as logits:
        found = logits(x)
    assert network.training
    with torch.inference_mode():
        wanted = network.eval()(x)
    assert found.shape == (3, 10)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * wanted.abs().max().item())


def test_a_missing_engine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(choice, "available", lambda: Availability(None, why="not compiled"))
    monkeypatch.setattr(choice, "warn_if_missing", said.append)
    with running(small()):
        pass
    assert said == ["answering"]


def test_where_pytorch_answers_for_want_of_instructions_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "available", lambda: Availability("baseline", ("fp32",)))
    monkeypatch.setattr("triscale.kernels.library.status", lambda: Status("baseline"))
    warn_if_missing.cache_clear()
    with pytest.warns(UserWarning, match="own engine is not used, answering is slower: it takes AVX2") as said:
        assert [engine_for(CPU), engine_for(CPU, precision="bf16")] == ["torch", "torch"]
    assert len(said) == 1
    with pytest.raises(
        UserError, match="--precision fp16: PyTorch runs in fp32 and bf16, not in fp16; take fp32 or bf16"
    ):
        engine_for(CPU, precision="fp16")
    warn_if_missing.cache_clear()


@pytest.mark.parametrize("engine", [None, "torch"])
def test_a_network_in_bf16_and_images_with_gradients_are_answered(engine: str | None) -> None:
    network, x = small().eval(), torch.ones(1, 3, 32, 32)
    with running(network, engine=engine) as logits:
        wanted = logits(x)
        assert torch.equal(logits(x.clone().requires_grad_()), wanted)
    if engine is None:
        with running(network.bfloat16()) as logits:
            torch.testing.assert_close(logits(x), wanted, rtol=0, atol=0.1 * wanted.abs().max().item())


def test_weights_are_those_of_the_moment() -> None:
    network, x = small().eval(), torch.ones(1, 3, 32, 32)
    with running(network) as logits:
        before = logits(x)
    with torch.no_grad():
        network.head.classifier.bias += 1
    with running(network) as logits:
        torch.testing.assert_close(logits(x), before + 1)


def test_a_network_that_computes_otherwise_runs_as_it_says() -> None:
    book: list[str] = []
    with running(Recorded("own", book).eval()) as logits:
        logits(torch.zeros(1, 3, 16, 16))
    assert book == ["own"]


@pytest.mark.parametrize("engine", [None, "torch"])
def test_what_becomes_of_a_network_meanwhile_changes_no_answer(engine: str | None) -> None:
    network, x = small("efficientnet_b0").eval(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with running(network, engine=engine) as logits:
        wanted = logits(x)
        network.train()
        assert torch.equal(logits(x), wanted)
        with torch.no_grad():
            network.head.classifier.bias += 1
            network.stem.conv.norm.running_var *= 2
        assert torch.equal(logits(x), wanted)
    assert network.training


def _hooked(network: Network) -> None:
    network.head.classifier.register_forward_hook(lambda module, given, out: out * 2)


def _hooked_before(network: Network) -> None:
    network.stem.conv.conv.register_forward_pre_hook(lambda module, given: (given[0] + 1,))


def _with_another_forward(network: Network) -> None:
    before = network.forward
    network.forward = lambda x: before(x) * 2  # type: ignore[method-assign]


def _with_another_forward_inside(network: Network) -> None:
    before = network.head.forward
    network.head.forward = lambda x: before(x) * 2  # type: ignore[method-assign]


def _with_another_activation(network: Network) -> None:
    network.stages[0][0].depthwise.activation = nn.ReLU()


def _with_another_epsilon(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.5


def _with_another_stride(network: Network) -> None:
    network.stem.conv.conv.stride = (2, 2)


def _dilated(network: Network) -> None:
    network.stages[1][1].depthwise.conv.dilation = (2, 2)
    network.stages[1][1].depthwise.conv.padding = (2, 2)


def _with_another_head(network: Network) -> None:
    network.head.classifier = nn.Sequential(nn.Linear(1280, 8), nn.ReLU(), nn.Linear(8, 10))  # type: ignore[assignment]


def _pruned(network: Network) -> None:
    prune.l1_unstructured(network.head.classifier, "weight", 0.5)


def _with_another_body(network: Network) -> None:
    class Doubled(Network):
        def _body(self, x: torch.Tensor) -> torch.Tensor:
            return super()._body(x) * 2

    network.__class__ = Doubled


def _with_a_bias(network: Network) -> None:
    network.stem.conv.conv.bias = nn.Parameter(torch.linspace(-1, 1, network.stem.conv.conv.out_channels))


def _with_a_buffer(network: Network) -> None:
    network.register_buffer("temperature", torch.ones(()))


def _without_gains(network: Network) -> None:
    network.stem.conv.norm.weight = network.stem.conv.norm.bias = None  # type: ignore[assignment]


def _without_averages(network: Network) -> None:
    norm = network.stem.conv.norm
    norm.track_running_stats, norm.running_mean, norm.running_var, norm.num_batches_tracked = False, None, None, None


def _saved_otherwise(network: Network) -> None:
    def rename(module: nn.Module, saved: dict[str, Any], prefix: str, metadata: object) -> None:
        saved[f"{prefix}other"] = saved.pop(f"{prefix}weight")

    network.head.classifier.register_state_dict_post_hook(rename)


@pytest.mark.parametrize(
    "change",
    [
        _with_a_bias,
        _with_a_buffer,
        _without_gains,
        _without_averages,
        _saved_otherwise,
        _hooked,
        _hooked_before,
        _with_another_forward,
        _with_another_forward_inside,
        _with_another_activation,
        _with_another_epsilon,
        _with_another_stride,
        _dilated,
        _with_another_head,
        _pruned,
        _with_another_body,
    ],
)
def test_a_network_that_was_changed_answers_as_it_computes_now(change: Callable[[Network], None]) -> None:
    network, x = small("efficientnet_b0").eval(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    change(network)
    network.train()
    with running(network) as logits:
        found = logits(x)
    assert all(module.training for module in network.modules())
    with torch.inference_mode():
        wanted = network.eval()(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.skipif(choice.available().isa in (None, "baseline"), reason="our engine is not the one that answers here")
@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18", "mnasnet_a1"])
def test_what_training_changes_of_a_network_leaves_it_to_our_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(name)
    network.use(network.with_kernels().keys())
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.eval()
        elif isinstance(module, nn.Dropout):
            module.p = 0.9
        elif isinstance(module, nn.ReLU):
            module.inplace = True
    monkeypatch.setattr(choice, "_by_pytorch", None)
    with running(network) as logits:
        logits(torch.zeros(1, 3, 32, 32))


def test_a_network_is_held_against_its_architecture_in_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    first = Network.__init__
    architecture = adapt(published("efficientnet_b0"), resolution=(40, 40), classes=9)
    network = build(architecture)
    monkeypatch.setattr(Network, "__init__", lambda self, given: (made.append(given), first(self, given))[1])
    for _ in range(3):
        with running(network):
            pass
    assert made == [architecture]


def test_images_of_a_type_that_numpy_lacks_are_refused_as_others_are() -> None:
    if choice.available().isa is None:
        pytest.skip("no native engine")
    with running(small(), engine="native") as logits:
        for kind in ("float16", "float64", "uint8", "bfloat16", "float8_e4m3fn"):
            line = f"^images are a numpy array of float32, not an array of {kind}$"
            with pytest.raises(UserError, match=line):
                logits(torch.zeros(1, 3, 32, 32).to(getattr(torch, kind)))


def test_of_no_networks_there_are_no_latencies() -> None:
    assert measure_latency([], device=CPU) == []
