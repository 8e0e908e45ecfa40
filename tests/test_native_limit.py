"""What `measure_limit` refuses."""

import pytest

from triscale.arch import adapt, published
from triscale.engines.native import Engine, available, compile_plan, measure_limit
from triscale.engines.table import weights_of
from triscale.errors import UserError
from triscale.nn import build

pytestmark = pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}")


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.0, "2", True])
def test_threads_that_no_engine_takes_are_refused_in_its_words(threads: int) -> None:
    network = build(adapt(published("resnet18"), resolution=(16, 16), classes=2))
    with pytest.raises(UserError) as wanted:
        Engine(compile_plan(network.architecture, weights_of(network)), threads=threads)
    with pytest.raises(UserError) as found:
        measure_limit("fp32", threads)
    assert str(found.value) == str(wanted.value)
