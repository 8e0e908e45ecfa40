"""How good a model is: the prediction table and what is computed from it."""

from triscale.evaluating.evaluate import Evaluation, evaluate
from triscale.evaluating.predictions import Predictions, predict_images

__all__ = ["Evaluation", "Predictions", "evaluate", "predict_images"]
