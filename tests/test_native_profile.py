"""What a profile of the native engine promises: the bits of a run, every multiply-add once, shares of one whole."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from native_program import pictures, planned
from specs import architectures
from tiny import TINY

from triscale.arch import Activation, Architecture, Basic, Head, MBConv, Stage, Stem, adapt, published
from triscale.costing import cost
from triscale.engines.native import Engine, Plan, available
from triscale.engines.native import engine as engine_module
from triscale.engines.native import profile as profile_module
from triscale.engines.native.layers import NONE, Kind, Layer
from triscale.engines.native.profile import profile
from triscale.engines.native.spending import PARTS, estimates
from triscale.engines.native.spending import macs as macs_of
from triscale.engines.native.variants import with_layers, without_activations, without_what_is_joined
from triscale.errors import TriscaleError, UserError
from triscale.precision import Precision

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}"),
]

NETWORKS = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mnasnet_a1", "resnet18", "resnet50")
RESNET = Architecture(
    (Stage(Basic(3, "relu"), 8, 1, 2), Stage(Basic(3, "relu"), 16, 2, 1)),
    stem=Stem(8, stride=1),
    head=Head(4, None, dropout=0.0),
    resolution=(16, 16),
    channels=1,
    stochastic_depth=0.0,
)


def rows(plan: Plan) -> list[Layer]:
    return [Layer(Kind(row[0]), *row[1:]) for row in plan.layers.tolist()]


def with_activation(activation: Activation, squeeze_excite: float) -> Architecture:
    """TINY with another one everywhere."""
    block = MBConv(3, 2, squeeze_excite=squeeze_excite, activation=activation)
    return replace(
        TINY,
        stages=tuple(replace(stage, block=block) for stage in TINY.stages),
        stem=replace(TINY.stem, activation=activation),
    )


@settings(max_examples=30)
@given(architectures(), st.integers(1, 4), st.integers(1, 3))
def test_timed_layers_give_the_bits_of_a_run(architecture: Architecture, n: int, threads: int) -> None:
    plan, _ = planned(architecture)
    x = pictures(architecture, n)
    with Engine(plan, threads=threads) as engine:
        started = time.perf_counter_ns()
        logits, nanoseconds = engine.timed(x)
        whole = time.perf_counter_ns() - started
        assert logits.tobytes() == engine(x).tobytes()
    assert nanoseconds.shape == (n, len(plan.layers))
    assert (nanoseconds >= 0).all()
    assert 0 < nanoseconds.sum() <= whole, "layers are parts of what the call takes, in the same unit"


@settings(max_examples=40)
@given(architectures())
def test_layers_have_the_macs_of_the_network(architecture: Architecture) -> None:
    plan, _ = planned(architecture)
    assert sum(map(macs_of, rows(plan))) == cost(architecture).macs


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_have_the_macs_of_published_networks(name: str) -> None:
    architecture = adapt(published(name), resolution=(57, 40), classes=11)
    plan, _ = planned(architecture)
    assert sum(map(macs_of, rows(plan))) == cost(architecture).macs


@settings(max_examples=5)
@given(architectures(), st.integers(1, 2))
def test_shares_are_of_one_whole(architecture: Architecture, threads: int) -> None:
    plan, _ = planned(architecture)
    found = profile(plan, threads=threads, rounds=2)
    assert tuple(found.shares) == PARTS
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.estimates.values())
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.clipped >= 0


def test_a_profile_says_of_every_layer_what_it_is() -> None:
    plan, _ = planned(TINY)
    names = [f"layer {place}" for place in range(len(plan.layers))]
    found = profile(plan, threads=2, rounds=3, names=names)
    assert (found.precision, found.threads, found.rounds) == ("fp32", 2, 3)
    assert [layer.name for layer in found.layers] == names
    assert [layer.kind for layer in found.layers] == [row.kind.name.lower() for row in rows(plan)]
    assert [layer.macs for layer in found.layers] == list(map(macs_of, rows(plan)))
    assert {layer.name for layer in profile(plan, rounds=1).layers} == {""}


class Told:
    """An engine whose layer at place i takes i + 1 units of 10 µs, and a call three milliseconds, by its own clock.

    All times what the round is worth and what the image is: the first round, and the first image of each, are slow.
    """

    ROUNDS, IMAGES = (50, 4, 2, 3), (4.5, 0.5, 1.5, 1.0)

    def __init__(self, plan: Plan, clock: list[float], *, precision: Precision, threads: int | None) -> None:
        self.threads, self.clock, self.calls = threads, clock, list[float]()
        self.units = 1e4 * np.arange(1, len(plan.layers) + 1)
        self.turns = iter(self.ROUNDS)

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def timed(self, x: Any) -> tuple[None, Any]:
        if len(x) == 1:  # how many images a turn has follows from this
            return None, self.units[None].astype(np.int64)
        images = np.array([self.IMAGES[0], *self.IMAGES[1:] * len(x)][: len(x)])
        if not self.calls:
            self.calls = np.outer(self.ROUNDS, images).ravel().tolist()
        return None, (next(self.turns) * np.outer(images, self.units)).astype(np.int64)

    def __call__(self, x: Any) -> None:
        self.clock[0] += 3e-3 * self.calls.pop(0)


def test_what_is_said_of_a_layer_is_the_median_of_rounds_and_of_images_but_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, _ = planned(TINY)
    clock, limits = [0.0], iter([9e12, 1e9, 2e9, 1.5e9])
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(profile_module, "Engine", lambda plan, **options: Told(plan, clock, **options))
    monkeypatch.setattr(profile_module, "measure_limit", lambda precision, threads: next(limits))
    found = profile(plan, threads=1, rounds=3)
    units = 1e4 * np.arange(1, len(plan.layers) + 1)
    assert [layer.nanoseconds.median for layer in found.layers] == pytest.approx(3 * units)
    assert [layer.nanoseconds.p10 for layer in found.layers] == pytest.approx(2.2 * units)
    assert [layer.nanoseconds.p90 for layer in found.layers] == pytest.approx(3.8 * units)
    assert found.nanoseconds == pytest.approx(3 * units.sum())
    assert (found.call.median, found.call.p10, found.call.p90) == pytest.approx((9e6, 6.6e6, 11.4e6))
    assert found.limit == 2e9
    for layer, nanoseconds in zip(found.layers, 3 * units, strict=True):
        assert layer.gmacs == pytest.approx(layer.macs / nanoseconds)
        assert layer.of_limit == pytest.approx(layer.macs / nanoseconds * 1e9 / 2e9)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_profiled_or_refused(precision: Precision) -> None:
    plan, _ = planned(TINY)
    if precision in available().precisions:
        assert sum(profile(plan, precision=precision, threads=1, rounds=2).shares.values()) == pytest.approx(1)
    else:
        with pytest.raises(UserError, match=f"does not multiply {precision}; take 'fp32'"):
            profile(plan, precision=precision, threads=1, rounds=2)


def test_what_a_network_does_not_have_takes_no_time() -> None:
    plain = profile(planned(with_activation("silu", 0.0))[0], threads=1, rounds=3)
    assert plain.shares["squeeze_excite"] == 0
    resnet = profile(planned(RESNET)[0], threads=1, rounds=3)
    assert resnet.shares["depthwise"] == resnet.shares["squeeze_excite"] == 0
    assert resnet.shares["convolution"] > 0
    linear = profile(planned(with_activation("none", 0.0))[0], threads=1, rounds=3)
    assert linear.shares["activation"] == 0


def test_leaving_activations_out_makes_the_plan_of_a_network_without_any() -> None:
    plan, _ = planned(with_activation("silu", 0.0))
    linear, _ = planned(with_activation("none", 0.0))
    assert [without_activations(row) for row in rows(plan)] == rows(linear)


def test_leaving_out_what_is_joined_changes_nothing_else() -> None:
    plan, _ = planned(with_activation("silu", 0.25))
    before = rows(plan)
    thin, places = without_what_is_joined(before, plan.buffers)
    kept = [thin[place] for place in places]
    for old, new in zip(before, kept, strict=True):
        if old.expand:
            assert new == old._replace(expand=1, input=plan.buffers)
        else:
            assert new == old._replace(gate=NONE)
    added = [layer for place, layer in enumerate(thin) if place not in places]
    assert len(added) == sum(row.expand > 0 for row in before) > 0
    assert all(layer.outputs == 1 for layer in added)
    with Engine(with_layers(plan, thin)) as engine:
        assert engine(pictures(TINY, 2)).shape == (2, 4)


@settings(max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_time_is_found_where_it_was_spent(seed: int, rounds: int) -> None:
    """Known times of each layer's main work, activation and what is joined to it, without noise."""
    layers = rows(planned(with_activation("silu", 0.25))[0])
    rng = np.random.default_rng(seed)
    main, active, joined = rng.uniform(1, 9, (3, len(layers)))
    active *= [row.kind is not Kind.EXCITE and any(row[16:18] + row[19:20]) for row in layers]
    gated = np.array([row.kind is Kind.CONV and row.gate >= 0 for row in layers])
    expands = np.array([row.expand > 0 for row in layers])
    joined *= gated | expands
    full, plain, thin = (np.tile(one, (rounds, 1)) for one in (main + active + joined, main + joined, main))
    found, clipped = estimates(layers, full, plain, thin)
    whole = (main + active + joined).sum()
    kinds = np.array([row.kind for row in layers])
    assert clipped == pytest.approx(0, abs=1e-12)
    assert found["activation"].value == pytest.approx(active.sum() / whole)
    assert found["depthwise"].value == pytest.approx(main[kinds == Kind.DEPTHWISE].sum() / whole)
    excites = main[kinds == Kind.EXCITE].sum() + joined[gated].sum()
    assert found["squeeze_excite"].value == pytest.approx(excites / whole)
    assert found["classifier"].value == pytest.approx(main[-1] / whole)
    assert found["convolution"].value == pytest.approx(main[1] / whole)


@given(st.integers(0, 1000))
def test_noise_makes_no_share_negative(seed: int) -> None:
    layers = rows(planned(TINY)[0])
    full, plain, thin = np.random.default_rng(seed).uniform(1, 9, (3, 4, len(layers)))
    found, clipped = estimates(layers, full, plain, thin)
    assert sum(one.value for one in found.values()) == pytest.approx(1)
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())
    assert clipped >= 0


def test_what_was_cut_off_is_said() -> None:
    """Activations that seem to make the network faster by a tenth."""
    layers = rows(planned(with_activation("silu", 0.0))[0])
    full = np.ones((3, len(layers)))
    active = np.array([without_activations(row) != row for row in layers])
    plain = full + 0.1 * active
    found, clipped = estimates(layers, full, plain, plain)
    assert found["activation"].value == 0
    assert clipped == pytest.approx(0.1 * active.sum() / len(layers))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "rounds must be a whole number of at least 1, not 0"),
        ({"rounds": True}, "not True"),
        ({"names": ["one"]}, r"1 names for the \d+ layers of .*; give one for each"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1,024, not 0"),
        ({"precision": "int8"}, "'int8' is none of fp32, bf16"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        profile(planned(TINY)[0], **options)
    assert "\n" not in str(caught.value)


def test_timing_refuses_what_a_call_refuses() -> None:
    plan, _ = planned(TINY)
    engine = Engine(plan)
    logits, nanoseconds = engine.timed(pictures(TINY, 0))
    assert (logits.shape, nanoseconds.shape) == ((0, 4), (0, len(plan.layers)))
    with pytest.raises(UserError, match=r"\(n, 1, 16, 16\), not \(1, 16, 16\)"):
        engine.timed(pictures(TINY, 1)[0])
    engine.close()
    with pytest.raises(UserError, match="closed"):
        engine.timed(pictures(TINY, 1))


def threads_here() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def masks(tasks: Sequence[int]) -> list[list[int]]:
    return sorted(sorted(os.sched_getaffinity(task)) for task in tasks)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are kept on cores under Linux only")
@pytest.mark.parametrize("pin", [False, True])
def test_an_engine_keeps_its_own_threads_where_it_is_told(pin: bool) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    before = threads_here()
    with Engine(planned(TINY)[0], threads=3, streams=2, pin=pin) as engine:
        own = sorted(threads_here() - before)
        # Of six places the first of each stream is its caller's.
        places = [[allowed[at % len(allowed)]] for at in (1, 2, 4, 5)]
        assert masks(own) == (sorted(places) if pin else [allowed] * 4)
        assert sorted(os.sched_getaffinity(0)) == allowed
        x = pictures(TINY, 2)
        with Engine(planned(TINY)[0], threads=1) as alone:
            assert engine(x).tobytes() == alone(x).tobytes()


def test_where_threads_cannot_be_kept_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = planned(TINY)
    with monkeypatch.context() as elsewhere:
        elsewhere.delattr(os, "sched_getaffinity", raising=False)
        with pytest.raises(UserError, match="under Linux only; leave it out"):
            Engine(plan, threads=2, pin=True)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(engine_module, "_cores", lambda: np.array([1 << 16], np.int64))
        with pytest.raises(TriscaleError, match="keeps threads off cores; leave pin=True out"):
            Engine(plan, threads=2, pin=True)
