"""The main job: a budget or a network and images in, a tested model out."""

from triscale.fitting.candidates import Candidate
from triscale.fitting.carrying import How
from triscale.fitting.fit import begin, draft, fit
from triscale.fitting.fitted import Fitted
from triscale.fitting.frozen import Frozen
from triscale.fitting.listening import Listener
from triscale.fitting.plan import Draft, Plan
from triscale.fitting.resume import resume
from triscale.fitting.train import train
from triscale.fitting.wish import CANDIDATES, Asked, Wish

__all__ = [
    "CANDIDATES",
    "Asked",
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
    "resume",
    "train",
]
