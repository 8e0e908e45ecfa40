"""Which layers train by Triscale's own kernels: chosen when planning, frozen with the run, or a fixed table."""

import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from kernel_switch import switch_kernels
from tiny import CPU, FAIR, KERNELS, LOOK, TINY, some_digits
from trainings import NOISY, network, results

import triscale as package
from triscale.arch import Architecture, Head, MBConv, Stage, Stem
from triscale.data import prepare
from triscale.errors import UserError
from triscale.fitting import Listener
from triscale.fitting.frozen import Frozen
from triscale.kernels import library, status
from triscale.models.model import new
from triscale.nn import Network, WithKernel, build
from triscale.training import (
    Machine,
    Recipe,
    Step,
    StoppedError,
    describe,
    fastest_machine,
    repeatable_machine,
    train,
)
from triscale.training.choosing import MOST_WEIGHTS, fastest_kernels, fixed_kernels
from triscale.training.machine import cpu_precisions

Run = Callable[..., tuple[int, str, str]]
Layers = list[tuple[tuple[str | int, ...], tuple[int, ...], str]]

pytestmark = pytest.mark.usefixtures("one_thread")
compiled = pytest.mark.skipif(status().isa is None, reason=f"no compiled kernels: {status().why}")
HERE = torch.device("cpu")
DEEP = replace(TINY, stages=(Stage(MBConv(3, 2, 0.25), 8, 3, 2), Stage(MBConv(5, 2), 16, 2, 2)))


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    """What is said once in a process has not been said."""
    library.warn_if_missing.cache_clear()
    yield
    library.warn_if_missing.cache_clear()


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRISCALE_KERNELS", raising=False)
    found = library.Status(None, "they were not compiled")
    monkeypatch.setattr(library, "load", lambda: (None, found))


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> Layers:
    """A clock by which our normalisation is faster, and nothing else of ours; and what was timed."""
    seen: Layers = []

    def seconds(layer: WithKernel, shape: tuple[int, ...], precision: str) -> tuple[float, float]:
        seen.append((layer.kind, shape, precision))
        return (1.0, 2.0) if layer.kind[0] == "norm" else (2.0, 1.0)

    monkeypatch.setattr("triscale.training.choosing.seconds", seconds)
    return seen


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, layers: Layers) -> None:
    """The same, and by which more threads and bf16 bring nothing."""

    def times(copy: Network, ways: dict[object, object]) -> dict[object, float]:
        slower = {"": 2.0, "with own kernels": 1.0, "with all own kernels": 1.5}
        return {way: slower[way.how.strip()] + (way.precision == "bf16") for way in ways}  # type: ignore[attr-defined]

    monkeypatch.setattr("triscale.training.machine.time_steps", times)


def norms(architecture: Architecture) -> tuple[str, ...]:
    return tuple(name for name in build(architecture).with_kernels() if name.endswith(".norm"))


# By measurement


@compiled
def test_each_layer_trains_by_what_is_faster_there(layers: Layers) -> None:
    assert fastest_kernels(build(DEEP).train(), 8, "fp32") == norms(DEEP)


@compiled
def test_a_layer_that_is_a_little_slower_alone_is_not_cut_out_from_between_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took = {"depthwise": 1.1, "pointwise": 1.2}
    monkeypatch.setattr(
        "triscale.training.choosing.seconds", lambda layer, *_: (took.get(str(layer.kind[0]), 0.9), 1.0)
    )
    network = build(DEEP).train()
    wanted = [name for name, layer in network.with_kernels().items() if layer.kind[0] != "pointwise"]
    assert 0 < len(wanted) < len(network.with_kernels())
    assert fastest_kernels(network, 8, "fp32") == tuple(wanted)


@compiled
def test_layers_of_one_kind_and_size_are_measured_once_with_the_input_they_really_get(layers: Layers) -> None:
    fastest_kernels(build(DEEP).train(), 8, "bf16")
    assert len(set(layers)) == len(layers)
    assert {precision for *_, precision in layers} == {"bf16"}
    depthwise = [(kind[1:4], shape) for kind, shape, _ in layers if kind[0] == "depthwise"]
    # At 16×16 pixels: the first stage halves the map with its first block, the second as well.
    assert depthwise == [
        ((16, 3, 2), (8, 16, 16, 16)),
        ((16, 3, 1), (8, 16, 8, 8)),
        ((16, 5, 2), (8, 16, 8, 8)),
        ((32, 5, 1), (8, 32, 4, 4)),
    ]


@compiled
def test_of_large_inputs_few_images_are_measured_and_always_two(layers: Layers) -> None:
    fastest_kernels(build(replace(DEEP, resolution=(800, 800))).train(), 64, "fp32")
    assert {shape[0] for kind, shape, _ in layers if shape[-1] == 800} == {2}
    assert all(2 <= shape[0] <= 64 for _, shape, _ in layers)


@compiled
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_real_clock_times_every_kind_of_layer(precision: str) -> None:
    state, copy = torch.get_rng_state(), build(DEEP).train()
    chosen = fastest_kernels(copy, 2, precision)
    assert set(chosen) <= copy.with_kernels().keys()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in copy.parameters())


@compiled
def test_planning_takes_the_kernels_with_which_a_step_is_fastest_and_says_what_else_it_tried(steps: None) -> None:
    machine = fastest_machine(build(DEEP), 8, HERE)
    assert machine.kernels == norms(DEEP)
    assert machine.precision == "fp32"
    assert {"fp32 with all own kernels, 1 threads", "fp32, 1 threads", "fp32 with own kernels, 1 threads"} <= set(
        machine.step
    )


@compiled
def test_where_the_time_for_measuring_is_over_only_threads_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triscale.training.choosing.seconds", lambda *_: pytest.fail("a layer was timed"))
    machine = fastest_machine(build(DEEP), 8, HERE, until=time.monotonic() - 1)
    assert machine.precision == "fp32"
    assert machine.kernels == tuple(build(DEEP).with_kernels())
    assert {way.partition(",")[0] for way in machine.step} == {"fp32 with all own kernels"}
    assert machine.per_image > 0


@compiled
def test_what_neighbours_win_as_one_kernel_is_not_missed(monkeypatch: pytest.MonkeyPatch, layers: Layers) -> None:
    def times(copy: Network, ways: dict[object, object]) -> dict[object, float]:
        return {way: 1 / (1 + len(way.kernels)) for way in ways}  # type: ignore[attr-defined]

    monkeypatch.setattr("triscale.training.machine.time_steps", times)
    network = build(DEEP)
    assert fastest_machine(network, 8, HERE).kernels == tuple(network.with_kernels())


def test_where_pytorch_makes_the_faster_step_no_kernels_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(copy: Network, ways: dict[object, object]) -> dict[object, float]:
        return {way: 1.0 + len(way.kernels) for way in ways}  # type: ignore[attr-defined]

    monkeypatch.setattr("triscale.training.machine.time_steps", times)
    assert fastest_machine(build(DEEP), 8, HERE).kernels == ()


@pytest.mark.parametrize(
    ("processor", "capability", "expected"),
    [
        ("x86_64", "AVX2", ("fp32",)),
        ("AMD64", "DEFAULT", ("fp32",)),
        ("x86_64", "AVX512", ("fp32", "bf16")),
        ("aarch64", "DEFAULT", ("fp32", "bf16")),
    ],
)
def test_x86_processors_without_avx512_train_in_fp32(
    monkeypatch: pytest.MonkeyPatch, processor: str, capability: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert cpu_precisions() == expected
    tried = {way.partition(",")[0].partition(" ")[0] for way in fastest_machine(build(TINY), 2, HERE).step}
    assert tried == set(expected)


# By the fixed table


@compiled
def test_a_deterministic_training_measures_nothing_and_uses_a_fixed_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("triscale.training.choosing.seconds", measured)
    monkeypatch.setattr("triscale.training.machine.time_steps", measured)
    wide = Architecture((Stage(MBConv(3, 6, 0.25), 256, 2, 1),), Stem(256), Head(10, 1280), (16, 16))
    machine = repeatable_machine(build(wide), HERE, 1)
    assert (machine.precision, machine.step, machine.deterministic) == ("fp32", {}, True)
    left = build(wide).with_kernels().keys() - set(machine.kernels)
    large = {name for name, p in build(wide).named_parameters() if p.ndim == 4 and p.numel() > MOST_WEIGHTS}
    assert large, "the limit is tested by something"
    assert left == {name.removesuffix(".weight") for name in large}


def test_a_cuda_device_never_gets_own_kernels() -> None:
    assert repeatable_machine(build(TINY), torch.device("cuda"), 1).kernels == ()


@compiled
@pytest.mark.parametrize("threads", [1, 2])
def test_a_training_with_kernels_gives_the_same_bytes_again(threads: int) -> None:
    machine, found = replace(CPU, threads=threads, deterministic=True), []
    assert machine.kernels == KERNELS != ()
    images, recipe = prepare(some_digits(96), LOOK), Recipe(epochs=2, batch=32)
    for kernels in (KERNELS, KERNELS, ()):
        model = new(TINY, ("0", "1", "2", "3"), LOOK)
        ended = train(model, images, recipe, replace(machine, kernels=kernels), seed=0, validate=lambda _: FAIR)
        found.append([value.numpy().tobytes() for value in ended.state_dict().values()])
    assert found[0] == found[1]
    assert found[0] != found[2], "they were used"


# Where there are none


def test_where_kernels_are_missing_planning_takes_pytorch_and_says_so_once(missing: None) -> None:
    def measured() -> Machine:
        return fastest_machine(build(TINY), 2, HERE)

    def fixed() -> Machine:
        return repeatable_machine(build(TINY), HERE, 1)

    with pytest.warns(UserWarning, match="they were not compiled") as said:
        machines = [planned() for planned in (measured, fixed, measured)]
    assert len(said) == 1
    assert [machine.kernels for machine in machines] == [(), (), ()]
    assert not any("own kernels" in way for way in machines[0].step)
    assert describe()["kernels"] == "none: they were not compiled"


def test_where_kernels_are_switched_off_planning_takes_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_kernels(monkeypatch, "off")
    assert fastest_machine(build(TINY), 2, HERE).kernels == ()
    assert fixed_kernels(build(TINY)) == ()
    assert describe()["kernels"] == "none: TRISCALE_KERNELS is off"


@pytest.mark.parametrize(("verb", "how"), [("train", ("--architecture", "resnet18")), ("fit", ("--macs", "1M"))])
def test_a_wrong_setting_is_one_line_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, triscale: Run, digits: Path, tmp_path: Path, verb: str, how: tuple[str, ...]
) -> None:
    switch_kernels(monkeypatch, "maybe")
    code, _, err = triscale(verb, digits, *how, "--out", tmp_path / "run")
    assert code == 2
    assert err.strip() == "triscale: TRISCALE_KERNELS='maybe' is neither on nor off"


@compiled
def test_a_run_says_which_instruction_set_its_kernels_used() -> None:
    assert describe()["kernels"] == status().isa


# Frozen with the run


class Ending(Listener):
    """Asks to stop after so many steps."""

    def __init__(self, at: int) -> None:
        self.at, self.done = at, 0

    def step(self, step: Step) -> None:
        self.done = step.step

    def stopping(self) -> bool:
        return self.done == self.at


@compiled
def test_what_planning_chose_is_in_run_json_and_a_run_that_goes_on_uses_it_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, digits: Path, tmp_path: Path, steps: None
) -> None:
    used: list[tuple[str, ...]] = []
    real = Network.use
    how = {"architecture": network(tmp_path), "epochs": 3, "batch": 16, "seed": 2}
    package.train(digits, out=tmp_path / "whole", **how)
    with pytest.raises(StoppedError):
        package.train(digits, out=tmp_path / "stopped", listener=Ending(4), **how)
    settings = json.loads((tmp_path / "stopped/run.json").read_text())
    assert settings["plan"]["machine"]["kernels"] == list(norms(NOISY))
    assert settings["versions"]["kernels"] == status().isa

    def use(self: Network, layers: tuple[str, ...]) -> None:
        used.append(layers)
        real(self, layers)

    def measured(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Network, "use", use)
    for name in ("choosing.seconds", "machine.time_steps"):
        monkeypatch.setattr(f"triscale.training.{name}", measured)
    package.train(None, out=tmp_path / "stopped", resume=True)
    assert set(used) == {norms(NOISY)}
    assert results(tmp_path / "stopped")["model.safetensors"] == results(tmp_path / "whole")["model.safetensors"]


@pytest.fixture(scope="module")
def plan(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The plan in a run.json."""
    folder = tmp_path_factory.mktemp("planned")
    package.train(digits, out=folder / "run", architecture=network(folder), epochs=1, batch=16, deterministic=True)
    found = json.loads((folder / "run/run.json").read_text())["plan"]
    assert isinstance(found, dict)
    return found


def read(plan: dict[str, object], **machine: object) -> Machine:
    values = plan["machine"]
    assert isinstance(values, dict)
    return Frozen.from_json({**plan, "machine": {**values, **machine}}, "run.json").machine


def test_the_machine_comes_back_from_run_json_as_it_was(plan: dict[str, object]) -> None:
    machine = read(plan)
    assert machine.kernels == fixed_kernels(build(NOISY))
    assert json.loads(json.dumps(asdict(machine))) == plan["machine"]


def test_a_run_of_before_there_were_kernels_goes_on_without_them(plan: dict[str, object]) -> None:
    machine = plan["machine"]
    assert isinstance(machine, dict)
    before = {key: value for key, value in machine.items() if key != "kernels"}
    assert Frozen.from_json({**plan, "machine": before}, "run.json").machine.kernels == ()


@pytest.mark.parametrize("kernels", ["stem.conv.norm", [1], None, {"stem.conv.norm": True}, ["stages.9.0.expand.norm"]])
def test_kernels_that_are_no_layers_of_the_network_are_one_line(plan: dict[str, object], kernels: object) -> None:
    with pytest.raises(UserError, match=r"^run\.json: .*(plan\.machine\.kernels|stages\.9\.0\.expand\.norm)"):
        read(plan, kernels=kernels)
