"""How a network computes: modules built from an architecture."""

from triscale.nn.network import Network, build

__all__ = ["Network", "build"]
