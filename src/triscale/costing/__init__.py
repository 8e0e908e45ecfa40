"""What a network costs: parameters, MACs, activations and memory, from the description alone. No torch."""

from triscale.costing.cost import Cost, Layer, Memory, cost, layers

__all__ = ["Cost", "Layer", "Memory", "cost", "layers"]
