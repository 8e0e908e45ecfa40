"""How a network learns: the recipe, the loop, what it can go on from, the machine it runs on."""

from triscale.training.checkpoints import Checkpoints, InMemory, Keeper, rows_of
from triscale.training.engine import Pace, rehearse, train
from triscale.training.machine import Machine, describe, fastest_machine, repeatable_machine, steady_allocator
from triscale.training.processes import ALONE, Processes, joined
from triscale.training.recipe import Recipe, regularised
from triscale.training.recipes import RECIPES, NamedRecipe, find_recipe, named, resolve
from triscale.training.schedule import Deadline, Schedule
from triscale.training.watching import CLOCK, DivergedError, EpochMetrics, Step, StoppedError, Validation, Watch

__all__ = [
    "ALONE",
    "CLOCK",
    "RECIPES",
    "Checkpoints",
    "Deadline",
    "DivergedError",
    "EpochMetrics",
    "InMemory",
    "Keeper",
    "Machine",
    "NamedRecipe",
    "Pace",
    "Processes",
    "Recipe",
    "Schedule",
    "Step",
    "StoppedError",
    "Validation",
    "Watch",
    "describe",
    "fastest_machine",
    "find_recipe",
    "joined",
    "named",
    "regularised",
    "rehearse",
    "repeatable_machine",
    "resolve",
    "rows_of",
    "steady_allocator",
    "train",
]
