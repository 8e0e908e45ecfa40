"""Triscale finds the most accurate convolutional network that a budget can buy.

The verbs are functions: `cost`, `scale`, `build`, `load`, `fit`, `study`, `search`, `search_network`, `train`, `eval`,
`compare`, `predict`, `features`, `explain`, `export`, `bench`, `doctor`, `import_weights`.
Importing this imports no torch; the verbs that need it bring it.
"""

from typing import TYPE_CHECKING

from triscale.arch import Architecture, adapt, resolve
from triscale.costing import Cost
from triscale.errors import TriscaleError, UserError
from triscale.lazy import on_demand
from triscale.scaling import Scaled
from triscale.verbs import cost, scale

if TYPE_CHECKING:
    from triscale.benching import bench
    from triscale.doctoring import doctor
    from triscale.evaluating import compare
    from triscale.evaluating import evaluate as eval
    from triscale.explaining import explain
    from triscale.exporting import export
    from triscale.fitting import fit, train
    from triscale.models import features, load, predict
    from triscale.nn import build
    from triscale.searching import search, search_network
    from triscale.studies import study
    from triscale.weights import import_weights

_LATER: dict[str, str | tuple[str, str]] = {
    "bench": "triscale.benching",
    "build": "triscale.nn",
    "compare": "triscale.evaluating",
    "doctor": "triscale.doctoring",
    "eval": ("triscale.evaluating", "evaluate"),
    "explain": "triscale.explaining",
    "export": "triscale.exporting",
    "features": "triscale.models",
    "fit": "triscale.fitting",
    "import_weights": "triscale.weights",
    "load": "triscale.models",
    "predict": "triscale.models",
    "search": "triscale.searching",
    "search_network": "triscale.searching",
    "study": "triscale.studies",
    "train": "triscale.fitting",
}

__all__ = [
    "Architecture",
    "Cost",
    "Scaled",
    "TriscaleError",
    "UserError",
    "adapt",
    "bench",
    "build",
    "compare",
    "cost",
    "doctor",
    "eval",
    "explain",
    "export",
    "features",
    "fit",
    "import_weights",
    "load",
    "predict",
    "resolve",
    "scale",
    "search",
    "search_network",
    "study",
    "train",
]


__getattr__, __dir__ = on_demand(_LATER, globals())
