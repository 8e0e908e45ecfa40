"""Two models beside each other, image by image: whose gain is counted as whose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triscale.evaluating.pairing import paired
from triscale.stats import PairedDifference

RIGHTS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1)


def test_what_only_the_first_names_right_is_its_gain() -> None:
    first, second = np.array([True, True, True, False, False]), np.array([True, False, False, True, False])
    assert paired(first, second) == PairedDifference(first=2, second=1, n=5)
    assert paired(first, second).value == pytest.approx(0.2)
    assert paired(second, first).value == pytest.approx(-0.2)


@given(RIGHTS)
def test_the_difference_is_the_first_accuracy_less_the_second(rights: list[tuple[bool, bool]]) -> None:
    first, second = np.array(rights).T
    assert paired(first, second).value == pytest.approx(first.mean() - second.mean())


def test_answers_to_other_images_are_not_paired() -> None:
    with pytest.raises(ValueError, match="3 and 2 images cannot be paired"):
        paired(np.ones(3, bool), np.ones(2, bool))
