"""When the page of a run of many trials is made anew."""

import pytest

from triscale.trials import paging
from triscale.trials.paging import EVERY, SHARE, Paging


class Clock:
    """Seconds that a test lets go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(paging, "monotonic", clock)
    return clock


def test_a_page_is_made_after_a_while_and_only_where_there_is_news(clock: Clock) -> None:
    page = Paging(clock())
    clock.now += EVERY / 2
    assert not page.due(5)
    clock.now += EVERY
    assert not page.due(0)
    assert page.due(1)
    with page.making(1):
        pass
    clock.now += 2 * EVERY
    assert not page.due(1)
    assert page.due(2)


def test_a_page_that_takes_long_is_made_so_much_more_seldom(clock: Clock) -> None:
    page = Paging(clock())
    with page.making(1):
        clock.now += 5.0
    clock.now += SHARE * 5.0 - 1
    assert not page.due(2)
    clock.now += 2
    assert page.due(2)
