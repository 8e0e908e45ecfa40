"""How a network computes: modules built from an architecture."""

from triscale.nn.layers import WithKernel
from triscale.nn.modes import evaluating
from triscale.nn.network import Network, build

__all__ = ["Network", "WithKernel", "build", "evaluating"]
