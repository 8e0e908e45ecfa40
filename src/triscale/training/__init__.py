"""How a network learns: the recipe, the loop, the machine it runs on."""

from triscale.training.engine import EpochMetrics, Step, train
from triscale.training.machine import Machine, describe, fastest_machine, steady_allocator
from triscale.training.recipe import Recipe

__all__ = [
    "EpochMetrics",
    "Machine",
    "Recipe",
    "Step",
    "describe",
    "fastest_machine",
    "steady_allocator",
    "train",
]
