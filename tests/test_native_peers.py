"""The native engine beside other engines, in the same precision: what it answers, not how fast."""

import numpy as np
import pytest
from native_program import NETWORKS, answered, pictures, planned

from triscale.arch import adapt, published
from triscale.engines.native import Engine, available
from triscale.engines.table import find_engine


@pytest.mark.skipif("bf16" not in available().precisions, reason="the processor does not multiply bf16")
@pytest.mark.slow
def test_bf16_is_no_worse_than_openvinos() -> None:
    openvino, ratios = find_engine("openvino", "bf16"), []
    for name in NETWORKS:
        for classes in (2, 11, 1000):
            architecture = adapt(published(name), resolution=(57, 40), classes=classes)
            plan, network = planned(architecture)
            x = pictures(architecture, 32)
            exact = answered(network, x)
            largest = np.abs(exact).max(1, keepdims=True)
            with Engine(plan, precision="bf16") as own, openvino.open(network, precision="bf16", threads=1) as theirs:
                ours, others = (np.median((np.abs(y - exact) / largest).max(1)) for y in (own(x), theirs(x)))
            ratios.append(ours / others)
    assert np.median(ratios) <= 1
    assert max(ratios) < 1.5
