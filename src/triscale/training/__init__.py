"""How a network learns: the recipe, the loop, the machine it runs on."""

from triscale.training.engine import EpochMetrics, Pace, Step, Validation, rehearse, train
from triscale.training.machine import Machine, describe, fastest_machine, steady_allocator
from triscale.training.recipe import Recipe
from triscale.training.schedule import Deadline, Schedule

__all__ = [
    "Deadline",
    "EpochMetrics",
    "Machine",
    "Pace",
    "Recipe",
    "Schedule",
    "Step",
    "Validation",
    "describe",
    "fastest_machine",
    "rehearse",
    "steady_allocator",
    "train",
]
