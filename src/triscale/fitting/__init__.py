"""The main job: a budget or a network and images in, a tested model out."""

from triscale.fitting.candidates import Candidate
from triscale.fitting.carrying import Fitted, How
from triscale.fitting.fit import begin, draft, fit
from triscale.fitting.frozen import Frozen
from triscale.fitting.listening import Listener
from triscale.fitting.plan import Draft, Plan
from triscale.fitting.resume import resume
from triscale.fitting.train import train
from triscale.fitting.wish import CANDIDATES, Wish, make_wish

__all__ = [
    "CANDIDATES",
    "Candidate",
    "Draft",
    "Fitted",
    "Frozen",
    "How",
    "Listener",
    "Plan",
    "Wish",
    "begin",
    "draft",
    "fit",
    "make_wish",
    "resume",
    "train",
]
