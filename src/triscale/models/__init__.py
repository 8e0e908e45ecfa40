"""A network in the hand: architecture, weights, classes and preprocessing together."""

from triscale.models.model import Model, load
from triscale.models.predicting import Guess, predict

__all__ = ["Guess", "Model", "load", "predict"]
