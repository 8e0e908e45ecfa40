"""A network in the hand: architecture, weights, classes and preprocessing together."""

from triscale.models.model import Model, from_import, load
from triscale.models.predicting import Features, Guess, answering, features, learned, predict

__all__ = ["Features", "Guess", "Model", "answering", "features", "from_import", "learned", "load", "predict"]
