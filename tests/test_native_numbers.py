"""What is no number stays none, infinity stays where it is, and long sums stay exact: in every instruction set here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from native_program import answered, arrays, pictures, planned
from numpy.typing import NDArray

from triscale.arch import Architecture, Basic, Conv, Head, MBConv, Stage, Stem
from triscale.engines.native import Engine, available, compile_plan
from triscale.kernels.library import ISAS
from triscale.nn import build
from triscale.precision import Precision

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("place", range(9))
def test_a_maximum_keeps_what_is_no_number(place: int, precision: Precision) -> None:
    if precision not in available().precisions:
        pytest.skip(f"the processor does not multiply {precision}")
    # The stem's kernel is one pixel, and its map is pooled to the windows of 3×3 around every other one.
    stage = Stage(Conv(1, "relu"), 9)
    architecture = Architecture((stage,), Stem(9, 1, 1, "relu", 2), Head(3, None), (12, 12), 3, "symmetric")
    plan, network = planned(architecture)
    x = pictures(architecture, 1)
    x[0, :, 3 + place // 3, 3 + place % 3] = np.nan
    assert np.isnan(answered(network, x, torch.float32)).all()
    with Engine(plan, precision=precision, threads=1) as engine:
        assert np.isnan(engine(x)).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000, 0x7F800001, 0x7FC00000])
def test_what_is_no_number_stays_none_whatever_its_bits(bits: int, precision: Precision) -> None:
    """Of six channels: those of few stay planes and are rounded as vectors."""
    if precision not in available().precisions:
        pytest.skip(f"the processor does not multiply {precision}")
    architecture = Architecture((Stage(Conv(1, "relu"), 9),), Stem(9, 3, 1, "relu"), Head(3, None), (5, 5), 6)
    plan, _ = planned(architecture)
    x = pictures(architecture, 1)
    x.view(np.uint32)[0, 4, 2, 2] = bits
    with Engine(plan, precision=precision, threads=1) as engine:
        assert np.isnan(engine(x)).all()


@pytest.mark.parametrize("stem", [3, 9, 17])
def test_infinity_becomes_no_channel_of_a_shortcut_to_more(stem: int) -> None:
    stage = Stage(MBConv(3, 2, 0, "relu6"), stem + 3, 1, 2, "pool")
    architecture = Architecture((stage,), Stem(stem, 3, 1, "relu6"), Head(4, None), (8, 8), 3)
    plan, network = planned(architecture)
    x = pictures(architecture, 1)
    x[0, 0, 3, 3] = np.inf
    wanted = answered(network, x, torch.float32)
    assert np.isfinite(wanted).all()
    with Engine(plan, threads=1) as engine:
        np.testing.assert_allclose(engine(x), wanted, rtol=1e-4, atol=1e-4)


def constant(wide: int) -> tuple[Engine, NDArray[np.float32], NDArray[np.float64]]:
    """An engine whose classifier adds up that many equal products, an image, and the exact logits."""
    stage = Stage(Conv(1, "relu"), 8)
    architecture = Architecture((stage,), Stem(8, 3, 1, "relu"), Head(256, wide), (2, 2), 3)
    network = build(architecture).eval()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if tensor.ndim == 4:
                tensor.abs_()
            if name == "head.conv.conv.weight":
                tensor.fill_(0.37)
            if name == "head.classifier.weight":
                tensor.copy_(torch.linspace(0.1, 0.2, 256)[:, None].expand(256, wide))
    x = np.full((1, 3, 2, 2), 0.7, np.float32)
    return Engine(compile_plan(architecture, arrays(network)), threads=1), x, answered(network, x)


@pytest.mark.parametrize("wide", [1280, 2048, 8192])
def test_many_equal_products_are_summed_as_exactly_as_few(wide: int) -> None:
    engine, x, wanted = constant(wide)
    with engine:
        np.testing.assert_allclose(engine(x), wanted, rtol=1e-5)


def test_long_sums_over_taps_depend_on_neither_threads_nor_company() -> None:
    """Parts of a sum are several taps of 100 channels, one of 512, or some inputs of the 1,280."""
    stages = Stage(Basic(3, "relu"), 100), Stage(Conv(1, "relu"), 512), Stage(Conv(3, "relu"), 40)
    architecture = Architecture(stages, Stem(100, 3, 1, "relu"), Head(5, 1280), (9, 7), 3)
    plan, _ = planned(architecture)
    x = pictures(architecture, 3)
    with Engine(plan, threads=1) as engine:
        found = engine(x)
        assert all(engine(x[i : i + 1]).tobytes() == found[i].tobytes() for i in range(3))
    for threads in (2, 3):
        with Engine(plan, threads=threads) as engine:
            assert engine(x).tobytes() == found.tobytes()


@pytest.mark.parametrize("isa", ISAS[1 : ISAS.index(available().isa or "baseline")])
def test_slower_instruction_sets_keep_to_it_too(isa: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not slower", str(Path(__file__))]
    done = subprocess.run(command, env=os.environ | {"TRISCALE_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
