"""What lies in a run before it trains: the frozen plan, and which image went where."""

from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from typing import Any

from triscale.data import Data, data_values
from triscale.fitting.plan import Plan
from triscale.fitting.ready import Ready
from triscale.runs import RunDirectory
from triscale.training import describe


def write_beginning(
    run: RunDirectory, ready: Ready, plan: Plan, *, on_bad: str, before: Mapping[str, str], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The run's beginning; run.json last, so that where it is, all is. Gives back what it holds.

    before: what the weights had learned from, by name. asked: what the run was called with, to be compared when it is
    called again to go on.
    """
    # Which image went where, and what the weights had learned from before.
    run.write_splits(chain(ready.images.rows(), ((name, "before", digest) for name, digest in before.items())))
    if plan.weights is not None:
        run.checkpoints.mkdir(exist_ok=True)
        ready.model.save(run.start)
    run.write_settings(_settings(ready.images, plan, on_bad) | {"asked": dict(asked)})
    return run.settings()


def _settings(data: Data, plan: Plan, on_bad: str) -> dict[str, Any]:
    return {
        "triscale": version("triscale"),
        "versions": describe(),
        "data": data_values(data, on_bad),
        "plan": plan.to_dict(),
    }
