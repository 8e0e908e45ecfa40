"""Where baselines come from: spaces, objectives, strategies, and the search through them."""

from triscale.searching.asked import Asked
from triscale.searching.calibrating import Calibrated
from triscale.searching.generic import Evaluated, Found, search
from triscale.searching.halving import Standing
from triscale.searching.listening import SearchListener
from triscale.searching.network_search import begin_search, resume_search, search_network
from triscale.searching.networks import SPACES, NetworkSpace, StageChoices, around, mnasnet, space_from_dict
from triscale.searching.objectives import ABOUT, BAND, EXPONENT, KINDS, Objective
from triscale.searching.setup import Setup
from triscale.searching.space import Codes, Space
from triscale.searching.strategies import STRATEGIES, Evolution, Known, RandomChoice, Scored, Strategy, TreeParzen
from triscale.searching.writing import Searched

__all__ = [
    "ABOUT",
    "BAND",
    "EXPONENT",
    "KINDS",
    "SPACES",
    "STRATEGIES",
    "Asked",
    "Calibrated",
    "Codes",
    "Evaluated",
    "Evolution",
    "Found",
    "Known",
    "NetworkSpace",
    "Objective",
    "RandomChoice",
    "Scored",
    "SearchListener",
    "Searched",
    "Setup",
    "Space",
    "StageChoices",
    "Standing",
    "Strategy",
    "TreeParzen",
    "around",
    "begin_search",
    "mnasnet",
    "resume_search",
    "search",
    "search_network",
    "space_from_dict",
]
