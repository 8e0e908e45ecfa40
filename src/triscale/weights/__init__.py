"""What a network has learned: published weights as objects, and the files of other projects."""

from triscale.weights.importing import Imported, Provenance, import_weights
from triscale.weights.meant import run_meant
from triscale.weights.naming import PROJECTS
from triscale.weights.published import Weights, catalogue, default_weights
from triscale.weights.store import fetch_weights, find_name, find_weights, open_weights, way_to

__all__ = [
    "PROJECTS",
    "Imported",
    "Provenance",
    "Weights",
    "catalogue",
    "default_weights",
    "fetch_weights",
    "find_name",
    "find_weights",
    "import_weights",
    "open_weights",
    "run_meant",
    "way_to",
]
