"""How a network computes: modules built from an architecture."""

from triscale.nn.layers import Kernels
from triscale.nn.network import Network, build

__all__ = ["Kernels", "Network", "build"]
