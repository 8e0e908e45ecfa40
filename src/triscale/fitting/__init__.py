"""The main job: a budget and images in, a tested model out."""

from triscale.fitting.candidates import Candidate
from triscale.fitting.fit import Fitted, Listener, carry_out, draft, fit
from triscale.fitting.plan import Draft, Plan
from triscale.fitting.wish import CANDIDATES, Wish, make_wish

__all__ = [
    "CANDIDATES",
    "Candidate",
    "Draft",
    "Fitted",
    "Listener",
    "Plan",
    "Wish",
    "carry_out",
    "draft",
    "fit",
    "make_wish",
]
