"""What the compiled kernels and their twins both offer under the same names, so that one stands for the other."""

from typing import Protocol

from torch import Tensor

from triscale.kernels import compiled, twins


class Passes(Protocol):
    """The parts of squeeze-excite. What each means, with shapes, says `twins`."""

    def pool(self, x: Tensor) -> Tensor:
        """Averages over the pixels."""

    def scale(self, x: Tensor, factors: Tensor, terms: Tensor | None) -> Tensor:
        """Every pixel times its channel's factor, and a term more."""

    def dot(self, x: Tensor, grad: Tensor) -> Tensor:
        """Sums over the pixels of the products."""

    def gates(
        self, pooled: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor], activation: str
    ) -> tuple[Tensor, Tensor]:
        """The two small layers between averages and factors: before the activation, and after the logistic function."""

    def gates_backward(
        self, dots: Tensor, hidden: Tensor, gate: Tensor, reduce: Tensor, expand: Tensor, activation: str, pixels: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients on the way back through them."""

    def layers_backward(
        self, pooled: Tensor, hidden: Tensor, grad_gate: Tensor, grad_hidden: Tensor, reduce: Tensor, expand: Tensor,
        activation: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """The gradients of their weights and biases."""

    def norm_excite_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, hidden: Tensor, gate: Tensor,
        reduce: Tensor, expand: Tensor, activation: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """The gradients of input and normalisation, and what flows back into the gates."""


def passes_for(x: Tensor, *parameters: Tensor) -> Passes:
    """The compiled ones where they compute such tensors, else the twins."""
    if compiled.fits(x, *parameters):
        return compiled
    return twins
