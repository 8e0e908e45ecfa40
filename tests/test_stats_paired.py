from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triscale.stats import PairedDifference

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200)).filter(lambda counts: sum(counts) > 0)


@given(COUNTS)
def test_the_p_value_is_that_of_the_exact_binomial_test(counts: tuple[int, int, int]) -> None:
    scipy = pytest.importorskip("scipy.stats")
    first, second, same = counts
    ours = PairedDifference(first, second, first + second + same).p_value()
    theirs = scipy.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("first", [4_000, 4_900, 4_999, 5_000])
def test_the_p_value_of_ten_thousand_differing_images_is_exact(first: int) -> None:
    tail = Fraction(sum(accumulate(range(first), lambda term, k: term * (10_000 - k) // (k + 1), initial=1)))
    expected = min(1.0, float(2 * tail / 2**10_000))
    found = PairedDifference(first, 10_000 - first, 20_000).p_value()
    assert found == pytest.approx(expected, rel=1e-12)
    scipy = pytest.importorskip("scipy.stats")
    assert found == pytest.approx(scipy.binomtest(first, 10_000, 0.5).pvalue, rel=1e-8)


@given(COUNTS)
def test_the_interval_lies_around_the_difference_and_turns_with_it(counts: tuple[int, int, int]) -> None:
    first, second, same = counts
    n = first + second + same
    one, other = PairedDifference(first, second, n), PairedDifference(second, first, n)
    low, high = one.interval()
    assert -1 <= low < high <= 1
    assert other.interval() == pytest.approx((-high, -low))
    assert one.value == -other.value


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for n, p_first, p_second in ((40, 0.2, 0.05), (40, 0.02, 0.01), (300, 0.1, 0.1)):
        draws = rng.multinomial(n, [p_first, p_second, 1 - p_first - p_second], size=2000)
        intervals = [PairedDifference(int(a), int(b), n).interval() for a, b, _ in draws]
        covered = np.mean([low <= p_first - p_second <= high for low, high in intervals])
        assert covered > 0.93
