"""Triscale's own inference engine for CPUs: a trained network as a plan, and what carries it out. No torch.

`compile_plan(architecture, weights)` makes the `Plan`, `Engine(plan)` is called with images and returns logits.
`open_run(path)` is the engine of a run's model.
"""

from triscale.engines.native.engine import Engine
from triscale.engines.native.library import Availability, available
from triscale.engines.native.limit import measure_limit
from triscale.engines.native.opening import open_run
from triscale.engines.native.plan import Plan
from triscale.engines.native.program import compile_plan
from triscale.precision import Precision

__all__ = ["Availability", "Engine", "Plan", "Precision", "available", "compile_plan", "measure_limit", "open_run"]
