import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from triscale.stats import Proportion


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_the_interval_is_wilsons_as_scipy_computes_it(counts: tuple[int, int], confidence: float) -> None:
    count, n = counts
    expected = binomtest(count, n).proportion_ci(confidence, method="wilson")
    assert Proportion(count, n).interval(confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_proportion_says_its_interval_and_n() -> None:
    assert str(Proportion(353, 359)) == "98.33% (95 % interval 96.40% to 99.23%, n = 359)"
