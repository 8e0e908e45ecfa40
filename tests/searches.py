"""A search of networks whose trials are a formula, in sittings."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from executors import Formula
from tiny import TINY

from triscale.costing import cost
from triscale.searching.costs import Costs
from triscale.searching.halving import Search
from triscale.searching.networks import around
from triscale.searching.objectives import Objective
from triscale.searching.setup import Setup
from triscale.searching.space import Codes
from triscale.searching.strategies import find_strategy
from triscale.training import Recipe
from triscale.trials import How, Ledger, Progress, run_asked

REFERENCE = replace(TINY, head=replace(TINY.head, classes=3), resolution=(12, 12), name="small")
SETUP = Setup(
    space=around(REFERENCE),
    objective=Objective({"macs": 1.02 * cost(REFERENCE).macs}),
    strategy="evolution",
    recipe=Recipe(epochs=9, batch=16),
    images=30,
    rungs=(1, 3, 9),
    how=How(),
    workers=1,
    seed=0,
    data="0" * 64,
    pace=1e-9,
    judged=0.0,
    selection=30,
    time=None,
    candidates=27,
)


class StopError(Exception):
    """Somebody ends the driver."""


class Chosen:
    """What run.json would say of the finalists."""

    def __init__(self) -> None:
        self.codes: list[Codes] | None = None

    def __call__(self, codes: Sequence[Codes]) -> None:
        assert self.codes is None, "chosen twice"
        self.codes = list(codes)


def sit(
    place: Path, pool: Formula, setup: Setup = SETUP, stop: int | None = None, chosen: Chosen | None = None
) -> Search:
    """A sitting; it ends after so many trials where `stop` says so."""
    chosen = chosen or Chosen()
    with closing(Ledger(place, "search")) as ledger:
        ledger.requeue()
        costs = Costs(setup.objective, setup.reference, torch.device("cpu"))
        spent = 0.0 if setup.time is None else sum(one.seconds for one in ledger.finished().values())

        def left() -> float:
            now = sum(pool.seconds * trial.recipe.epochs for trial in pool.began)
            return math.inf if setup.time is None else setup.time - spent - now

        search = Search(setup, find_strategy(setup.strategy), costs, left, lambda: pool.slots, chosen)
        search.restore(ledger.ended(), chosen.codes)

        def told(progress: Progress) -> None:
            if stop is not None and progress.done >= stop:
                raise StopError

        run_asked(ledger, pool, search, told)
    return search
