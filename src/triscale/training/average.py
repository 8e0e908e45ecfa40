"""The moving average of a network's weights: what is evaluated and kept."""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

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

    @torch.no_grad()
    def refresh_statistics(self, pictures: Iterable[Tensor]) -> None:
        """Normalisation statistics of the averaged weights, in fp32: plain means over batches of uint8 (n, c, h, w).

        A running mean that keeps 99 % still holds its start after a hundred steps, and follows weights that are not
        these. Everything but normalisation computes as in evaluation.
        """
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        kept, device = [norm.momentum for norm in norms], next(self.model.parameters()).device
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for a plain mean
            norm.train()
        for x in pictures:
            self.model(self.model.preprocess.normalise(x.to(device)))
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()
