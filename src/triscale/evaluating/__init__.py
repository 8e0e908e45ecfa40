"""How good a model is: the prediction table and what is computed from it."""

from triscale.evaluating.predictions import Predictions, predict_images

__all__ = ["Predictions", "predict_images"]
