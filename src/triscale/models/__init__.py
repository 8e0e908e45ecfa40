"""A network in the hand: architecture, weights, classes and preprocessing together."""

from triscale.models.model import Model, load

__all__ = ["Model", "load"]
