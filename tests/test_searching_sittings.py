"""A search in several sittings: what one of them took and found out, the next one knows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from executors import Clocked
from searches import REFERENCE, SETUP, StopError

from triscale.costing import cost
from triscale.engines import Latency
from triscale.runs import RunDirectory
from triscale.searching import Searched, SearchListener, Setup, Standing, network_search, writing
from triscale.searching.network_search import _Sitting
from triscale.searching.objectives import Objective
from triscale.trials import Progress, sittings
from triscale.trials.beginning import opened

Sit = Callable[[Setup, float | None], Searched]


class Stopping(SearchListener):
    """Somebody ends the driver once so many seconds have passed."""

    def __init__(self, pool: Clocked, stop: float | None) -> None:
        self.pool, self.stop = pool, stop
        self.notes: list[str] = []

    def progress(self, progress: Progress, standing: Standing) -> None:
        if self.stop is not None and self.pool.now >= self.stop:
            raise StopError

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def sit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sit:
    """One sitting, on a clock that begins anew with it; what it knows of those before is what they left."""
    run = RunDirectory.create(tmp_path / "search")
    monkeypatch.setattr(
        writing, "measure_latency", lambda networks, device: [Latency(1.0, 1.0, 1.0, 9, "cpu", 1) for _ in networks]
    )

    def sitting(setup: Setup, stop: float | None) -> Searched:
        pool = Clocked(1, lambda trial: setup.seconds(trial.architecture, trial.recipe.epochs))
        monkeypatch.setattr(network_search, "clock", SimpleNamespace(monotonic=lambda: pool.now))
        monkeypatch.setattr(sittings, "monotonic", lambda: pool.now)
        if not run.begun():
            run.write_settings({"asked": {"verb": "search"}, "setup": setup.to_json(), "finalists": None})
        with opened(run, "search") as ledger:
            return _Sitting(run, run.settings(), setup, ledger, pool, Stopping(pool, stop), started=0.0).go_through()

    return sitting


def test_the_asked_time_is_that_of_all_sittings(sit: Sit) -> None:
    setup = replace(SETUP, time=400.0, candidates=None, pace=1 / (30 * cost(REFERENCE).macs))
    with pytest.raises(StopError):
        sit(setup, 150.0)
    took = sit(setup, None).values["time"]["seconds"]
    assert 300 < took <= 400


def test_that_nothing_further_was_found_outlasts_the_sitting(sit: Sit) -> None:
    one = SETUP.space.stages[0]
    assert one is not None
    few = replace(one, kind=("mbconv",), squeeze_excite=(0.25,), skip=("identity",), channels=(1.0,), repeats=(0,))
    space = replace(SETUP.space, stages=(few, *[None] * (len(REFERENCE.stages) - 1)))
    setup = replace(SETUP, space=space, objective=Objective({"macs": 3.0 * cost(REFERENCE).macs}, "paper"))
    assert [sit(setup, None).values["used_up"] for _ in range(2)] == [True, True]
