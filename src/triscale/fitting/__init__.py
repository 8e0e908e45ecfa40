"""The main job: read the images, grow the baseline to the budget, train, test, and leave a run behind."""

from triscale.fitting.fit import Fitted, Listener, fit
from triscale.fitting.plan import Plan

__all__ = ["Fitted", "Listener", "Plan", "fit"]
