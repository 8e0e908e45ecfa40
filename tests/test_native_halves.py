"""Half precision in the native engine: near, the same whoever asks, and fp32 where fp16 ends."""

import copy
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from native_program import NETWORKS, answered, arrays, furthest, pictures, planned
from specs import architectures
from tiny import TINY
from unsteady import disturbed

from triscale.arch import Architecture, Head, MBConv, Stage, Stem, adapt, published
from triscale.engines.native import Availability, Engine, available, compile_plan
from triscale.errors import UserError
from triscale.nn import Network, build
from triscale.nn.blocks import SqueezeExcite
from triscale.precision import Precision

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}"),
]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_or_refused(precision: Precision) -> None:
    architecture = adapt(published("efficientnet_b0"), resolution=(64, 64), classes=10)
    plan, network = planned(architecture)
    if precision not in available().precisions:
        with pytest.raises(UserError, match=f"does not multiply {precision}; take 'fp32'"):
            Engine(plan, precision=precision)
        return
    x = pictures(architecture, 3)
    with Engine(plan, precision=precision, threads=2) as engine:
        assert furthest(engine(x), answered(network, x)) < 0.1


needs_fp16 = pytest.mark.skipif("fp16" not in available().precisions, reason="the processor does not multiply fp16")


needs_bf16 = pytest.mark.skipif("bf16" not in available().precisions, reason="the processor does not multiply bf16")


halves = pytest.mark.parametrize(
    "precision", [pytest.param("bf16", marks=needs_bf16), pytest.param("fp16", marks=needs_fp16)]
)


ROUNDING = {"bf16": 2**-8, "fp16": 2**-11}


@halves
@settings(max_examples=30)
@given(architecture=architectures())
def test_half_precision_is_near_and_depends_on_neither_threads_nor_company(
    precision: Precision, architecture: Architecture
) -> None:
    plan, network = planned(architecture)
    x = pictures(architecture, 3)
    with Engine(plan, precision=precision, threads=1) as engine:
        found = engine(x)
        assert all(engine(x[i : i + 1]).tobytes() == found[i].tobytes() for i in range(3))
    for threads in (2, 3):
        with Engine(plan, precision=precision, threads=threads) as engine:
            assert engine(x).tobytes() == found.tobytes()
    # As near as PyTorch's own bf16, or a hundredth of the largest logit, or as rounding of maps and weights is.
    exact = answered(network, x)
    with torch.inference_mode():
        bf16 = copy.deepcopy(network).bfloat16()(torch.from_numpy(x).bfloat16()).float().numpy()
    off = disturbed(network, x, lambda out, chance: out * (1 + chance * ROUNDING[precision]), weights=True)
    assert furthest(found, exact) <= max(0.01, furthest(bf16, exact), 2 * max(furthest(y, exact) for y in off))


@needs_bf16
def test_logits_of_bf16_are_not_rounded_with_the_maps() -> None:
    """What is added to all logits changes none of their differences, large as it may be."""
    plan, network = planned(TINY)
    classifier = network.head.classifier
    assert isinstance(classifier, torch.nn.Linear)
    x = pictures(TINY, 32)
    with torch.no_grad():
        classifier.bias.add_(20.0)
    with (
        Engine(plan, precision="bf16") as without,
        Engine(compile_plan(TINY, arrays(network)), precision="bf16") as added,
    ):
        apart = added(x) - without(x)
    assert np.abs(apart - 20).max() < 0.02  # bf16 has steps of 0.125 there


@needs_fp16
@pytest.mark.parametrize("name", NETWORKS)
def test_fp16_computes_published_networks_no_worse_than_bf16(name: str) -> None:
    architecture = adapt(published(name), resolution=(57, 40), classes=11)
    plan, network = planned(architecture)
    x = pictures(architecture, 3)
    exact = answered(network, x)
    with Engine(plan, precision="fp16") as half, Engine(plan, precision="bf16") as bf16:
        assert furthest(half(x), exact) <= furthest(bf16(x), exact)


@halves
def test_what_goes_beyond_fp16_is_answered_in_fp32(precision: Precision) -> None:
    if precision == "bf16" and available().isa != "amx":
        pytest.skip("bf16 is summed in fp32 here, and nothing goes beyond that")
    plan, _ = planned(TINY)
    x = pictures(TINY, 4)
    x[1:3] *= 1e6
    with Engine(plan, precision=precision, threads=2) as half, Engine(plan, threads=2) as exact:
        found, wanted = half(x), exact(x)
        assert np.array_equal(found[1:3], wanted[1:3])
        assert not np.array_equal(found[[0, 3]], wanted[[0, 3]])
        assert np.array_equal(half(x[3:]), found[3:])
        logits, _ = half.timed(x)
        assert np.array_equal(logits[[0, 3]], found[[0, 3]])
        assert not np.isfinite(logits[1:3]).all(1).any()  # nothing is computed again beside the clock


def passing_on(block: MBConv) -> Network:
    """A network whose maps all hold its image's one value: convolutions average, normalisation changes nothing."""
    stem, head = Stem(40, kernel=1, stride=1, activation=block.activation), Head(4, None, dropout=0.0)
    network = build(
        Architecture((Stage(block, 16),), stem=stem, head=head, resolution=(14, 14), channels=1, stochastic_depth=0.0)
    ).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_var = torch.full((module.num_features,), 1 - module.eps)
    return network


def answered_in_half(network: Network, value: float, precision: Precision) -> tuple[npt.NDArray[np.float32], float]:
    """The logits of an image of that value, not computed again in fp32 if they are not finite; and how far off."""
    x = np.full((1, 1, 14, 14), value, np.float32)
    with Engine(compile_plan(network.architecture, arrays(network)), precision=precision) as engine:
        logits, _ = engine.timed(x)
    return logits, furthest(logits, answered(network, x))


@halves
@pytest.mark.parametrize("value", [1.7890625, 4800.0])
def test_what_squeeze_excite_sees_is_summed_in_fp32(precision: Precision, value: float) -> None:
    """Fourteen of the first, one after another in fp16, are off by 0.2 %; of the second they are infinite."""
    network = passing_on(MBConv(1, 1, squeeze_excite=0.5, activation="relu"))
    (excite,) = (module for module in network.modules() if isinstance(module, SqueezeExcite))
    gain = 512 / 2 ** np.floor(np.log2(value))  # by which the gate shows whether the average is the value
    assert excite.reduce.bias is not None
    assert excite.expand.bias is not None
    with torch.no_grad():
        excite.reduce.weight.zero_()[:, [0, -1]] = gain / 2  # of a whole panel and of half a one
        excite.reduce.bias.fill_(1 - gain * value)
        excite.expand.bias.fill_(-1)
    logits, off = answered_in_half(network, value, precision)
    assert np.isfinite(logits).all()
    assert off < 0.01


@halves
@pytest.mark.parametrize("value", [12000.0, 60000.0])
def test_hard_swish_ends_where_the_precision_does(precision: Precision, value: float) -> None:
    network = passing_on(MBConv(1, 1, squeeze_excite=0, activation="hardswish"))
    logits, off = answered_in_half(network, value, precision)
    assert np.isfinite(logits).all()
    assert off < 0.01


@halves
def test_an_image_is_answered_alike_whatever_came_before_it(precision: Precision) -> None:
    # Convolutions of numbers of inputs that fill no whole tile; buffers that several maps have in turns.
    whole, widths = (
        adapt(published("efficientnet_b0"), resolution=(48, 48), classes=7),
        (24, 40, 80, 144, 200, 352, 488),
    )
    stages = tuple(replace(stage, channels=width) for stage, width in zip(whole.stages, widths, strict=True))
    architecture = replace(whole, stages=stages)
    plan, _ = planned(architecture)
    x = pictures(architecture, 3)
    x[1] *= 1e6
    x[2] = x[0]
    with Engine(plan, precision=precision, threads=1) as engine:
        first, _, again = engine(x)
        assert first.tobytes() == again.tobytes()
        logits, _ = engine.timed(x)
        assert logits[0].tobytes() == logits[2].tobytes() == first.tobytes()


AVAILABLE: list[tuple[str | None, tuple[Precision, ...], dict[str, bool]]] = [
    (None, (), {"fp32": False, "bf16": False, "fp16": False}),
    ("avx2", ("fp32",), {"fp32": False, "bf16": False, "fp16": False}),
    ("avx512bf16", ("fp32", "bf16"), {"fp32": False, "bf16": True, "fp16": False}),
    ("avx512fp16", ("fp32", "bf16", "fp16"), {"fp32": False, "bf16": False, "fp16": True}),
    ("amx", ("fp32", "bf16", "fp16"), {"fp32": False, "bf16": True, "fp16": True}),
]


@pytest.mark.parametrize(("isa", "precisions", "pays"), AVAILABLE)
def test_half_precision_pays_where_it_is_faster_than_single(
    isa: str | None, precisions: tuple[Precision, ...], pays: dict[str, bool]
) -> None:
    here = Availability(isa, precisions)
    assert {precision: here.pays(precision) for precision in pays} == pays
    assert here.half is None or here.pays(here.half)
