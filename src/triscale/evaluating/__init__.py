"""How good a model is: the prediction table, what is computed from it, and two of them side by side.

Importing this imports no torch: stored tables are measured and compared without it.
"""

from triscale.evaluating.compare import compare
from triscale.evaluating.comparison import Comparison
from triscale.evaluating.evaluate import Evaluation, evaluate
from triscale.evaluating.measures import Measures, measure
from triscale.evaluating.predictions import Predictions, merge, predict_images
from triscale.evaluating.table import Table, read_table

__all__ = [
    "Comparison",
    "Evaluation",
    "Measures",
    "Predictions",
    "Table",
    "compare",
    "evaluate",
    "measure",
    "merge",
    "predict_images",
    "read_table",
]
