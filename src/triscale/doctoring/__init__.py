"""Whether data is sound to train on."""

from triscale.doctoring.doctor import doctor
from triscale.doctoring.findings import Diagnosis, Finding, Pair, Sizes

__all__ = ["Diagnosis", "Finding", "Pair", "Sizes", "doctor"]
