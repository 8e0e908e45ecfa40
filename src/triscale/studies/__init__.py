"""How scaling pays off: designs of equal cost, trials with shared seeds, a surface with its confidence set."""

from triscale.studies.asked import Asked
from triscale.studies.comparing import Comparisons, compare_arms, seeds_to_tell
from triscale.studies.conclusions import Conclusions
from triscale.studies.designs import DESIGNS, Arm, Design, find_design
from triscale.studies.listening import StudyListener
from triscale.studies.planning import Line
from triscale.studies.power import detectable
from triscale.studies.setup import Choice, Setup
from triscale.studies.study import Studied
from triscale.studies.studying import begin_study, resume_study, study
from triscale.studies.surface import Surface, fit_surface
from triscale.studies.wanted import Wanted, make_designs

__all__ = [
    "DESIGNS",
    "Arm",
    "Asked",
    "Choice",
    "Comparisons",
    "Conclusions",
    "Design",
    "Line",
    "Setup",
    "Studied",
    "StudyListener",
    "Surface",
    "Wanted",
    "begin_study",
    "compare_arms",
    "detectable",
    "find_design",
    "fit_surface",
    "make_designs",
    "resume_study",
    "seeds_to_tell",
    "study",
]
