"""A plan as run.json holds it: what a run is carried out by, today and when it goes on after it was killed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from triscale.arch import Architecture, from_dict
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.nn import Network
from triscale.plain import from_plain
from triscale.scaling import Multipliers, Scaled
from triscale.scaling.trim import Step
from triscale.training import Deadline, Machine, Pace, Processes, Recipe
from triscale.weights import Provenance

MARGIN = 0.03  # of the time, and some seconds: for starting, stopping, and a machine that is not always equally fast
MARGIN_SECONDS = 3.0


def margin(limit: float) -> float:
    """Seconds of a time limit that are not planned with."""
    return MARGIN * limit + MARGIN_SECONDS


@dataclass(frozen=True, eq=False)
class Frozen:
    """The plan of a run that is being carried out; see `Plan` for what is what. values: all of it, as written.

    planning: seconds that went by before training could start. expected: seconds of all of it, where somebody knows.
    candidates: rows of the plan's table.
    """

    values: Mapping[str, Any]
    scaled: Scaled
    architecture: Architecture
    preprocess: Preprocess
    recipe: Recipe
    machine: Machine
    pace: Pace
    steps: int
    after: float
    planning: float
    expected: float | None
    time: float | None
    seed: int
    why: str
    candidates: tuple[Mapping[str, Any], ...]
    weights: Provenance | None
    scratch: Recipe | None
    engine: str | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str) -> "Frozen":
        """The plan of a run.json. Raises `UserError` for one that another version wrote, or that is damaged."""
        try:
            architecture = from_dict(values["architecture"], source)
            return cls(
                values=values,
                scaled=_scaled(values, architecture, source),
                architecture=architecture,
                preprocess=Preprocess.from_json(values["preprocess"]),
                recipe=from_plain(Recipe, values["recipe"], source, "plan.recipe"),
                machine=_machine(values, architecture, source),
                pace=Pace(values["step_seconds"], values["epoch_end_seconds"]),
                steps=values["steps"],
                after=values["after_seconds"],
                planning=values["planning_seconds"],
                expected=values["expected_seconds"],
                time=values["time"],
                seed=values["seed"],
                why=values["why"],
                candidates=tuple(values["candidates"]),
                weights=None if values["weights"] is None else Provenance.from_json(values["weights"]),
                scratch=None
                if values["scratch"] is None
                else from_plain(Recipe, values["scratch"], source, "plan.scratch"),
                engine=values["engine"],
            )
        except UserError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{source}: its plan is not one that this version can carry out ({error!r}); begin another run, or go "
                "on with the version that it names"
            ) from None

    def on(self, processes: Processes) -> "Frozen":
        """The plan as one of several processes carries it out: each has a CUDA device of its own."""
        if processes.world == 1 or not self.machine.device.startswith("cuda"):
            return self
        return replace(self, machine=replace(self.machine, device=f"cuda:{processes.local}"))

    @property
    def deadline(self) -> Deadline | None:
        """How long the training may take."""
        if self.time is None:
            return None
        return Deadline(self._left - self._scratch_seconds, self.pace.step, self.pace.epoch_end)

    def scratch_deadline(self, spent: float) -> Deadline | None:
        """The same for the training from scratch, after the first one took so many seconds."""
        return None if self.time is None else Deadline(self._left - spent, self.pace.step, self.pace.epoch_end)

    @property
    def _left(self) -> float:
        assert self.time is not None
        return self.time - self.planning - self.after - margin(self.time)

    @property
    def _scratch_seconds(self) -> float:
        if self.scratch is None:
            return 0.0
        return self.steps * self.pace.step + self.recipe.epochs * self.pace.epoch_end


def _machine(values: Mapping[str, Any], architecture: Architecture, source: str) -> Machine:
    """Raises ValueError where it names kernels for layers that the network has not."""
    machine = from_plain(Machine, values["machine"], source, "plan.machine")
    if machine.kernels:
        with torch.device("meta"):
            Network(architecture).use(machine.kernels)
    return machine


def _scaled(values: Mapping[str, Any], architecture: Architecture, source: str) -> Scaled:
    scaling, budget = values["scaling"], values["scaling"]["budget"]
    return Scaled(
        baseline=from_dict(values["baseline"], source),
        architecture=architecture,
        rule=scaling["rule"],
        multipliers=Multipliers(**scaling["multipliers"]),
        asked=scaling["asked"],
        trim=tuple(Step(**step) for step in scaling["trim"]),
        limits={term: entry["limit"] for term, entry in budget.items()},
        values={term: entry["value"] for term, entry in budget.items()},
    )
