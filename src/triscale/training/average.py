"""The moving average of a network's weights: what is evaluated and kept."""

from copy import deepcopy

import torch
from torch import Tensor

from triscale.models.model import Model


class Average:
    """A copy of a model whose weights and running statistics follow the trained one's slowly (official code)."""

    def __init__(self, model: Model) -> None:
        self.model: Model = deepcopy(model).eval().requires_grad_(False)
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._floats: tuple[list[Tensor], list[Tensor]] = (
            [mine for mine, _ in pairs if mine.is_floating_point()],
            [theirs for mine, theirs in pairs if mine.is_floating_point()],
        )
        self._counts = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average ← decay·average + (1 − decay)·weights."""
        mine, theirs = self._floats
        torch._foreach_lerp_(mine, theirs, 1 - decay)  # one call for hundreds of small tensors
        for count, other in self._counts:
            count.copy_(other)
