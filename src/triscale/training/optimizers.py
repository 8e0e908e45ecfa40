"""Optimizers by recipe, and the parameters they move: each with its own rate and decay, by depth and by name."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from triscale.errors import UserError
from triscale.models.model import Model
from triscale.training.recipe import SGD, AdamW, Recipe, RMSProp


class TensorFlowRMSProp(Optimizer):
    """RMSProp as TensorFlow computes it, which the EfficientNet paper was trained with.

    Unlike PyTorch's: epsilon stands below the root, the mean of squares starts at 1 and not at 0, and the rate is
    inside the momentum:

        square ← rho·square + (1 − rho)·g²
        velocity ← momentum·velocity + rate·g/√(square + epsilon)
        weight ← weight − velocity

    decay is added to the gradient (L2). With the mean at 0 a first step would be 1/√(1 − rho) of the rate in every
    coordinate, whatever the gradient.
    """

    def __init__(
        self, params: list[dict[str, Any]], rate: float, *, rho: float, momentum: float, epsilon: float, decay: float
    ) -> None:
        defaults = {"lr": rate, "rho": rho, "momentum": momentum, "epsilon": epsilon, "weight_decay": decay}
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step from the gradients as they are; no closure is called."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            for parameter in moved:
                if not self.state[parameter]:
                    self.state[parameter] = {
                        "square": torch.ones_like(parameter, memory_format=torch.preserve_format),
                        "velocity": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    }
            squares = [self.state[parameter]["square"] for parameter in moved]
            velocities = [self.state[parameter]["velocity"] for parameter in moved]
            gradients: list[Tensor] = [parameter.grad for parameter in moved]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, moved, alpha=group["weight_decay"]))
            torch._foreach_mul_(squares, group["rho"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["rho"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_addcdiv_(velocities, gradients, roots, value=group["lr"])
            torch._foreach_sub_(moved, velocities)
        return None


def make_optimizer(model: Model, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the model's parameters, in groups of one rate and one decay.

    Each group's `scale` is what the recipe's rate is multiplied with for it: by depth, then by name. Parameters whose
    scale is 0 are frozen. Raises `UserError` for a pattern that matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for each in recipe.by_name:
        if not any(map(each.matches, names)):
            raise UserError(
                f"recipe: by_name {each.pattern!r} matches no parameter of {model.architecture.name}; they have names "
                f"such as {names[0]} and {names[-1]}"
            )
    last = model.architecture.blocks + 1
    members: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        scale, decay = recipe.depth_decay ** (last - _depth(name, model)), 1.0
        for each in recipe.by_name:
            if each.matches(name):
                scale, decay = scale * each.rate, decay * each.decay
        parameter.requires_grad_(scale > 0)
        if scale > 0:
            members[scale, decay].append(parameter)
    if not members:
        raise UserError("recipe: by_name freezes every parameter, so nothing would learn; leave some a rate above 0")
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": recipe.optimizer.decay * decay, "scale": scale}
        for (scale, decay), parameters in sorted(members.items(), key=lambda item: item[0])
    ]
    return _make(groups, recipe)


def _make(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    rate = recipe.rate.peak
    match recipe.optimizer:
        case AdamW(beta1=beta1, beta2=beta2, epsilon=epsilon):
            return torch.optim.AdamW(groups, lr=rate, betas=(beta1, beta2), eps=epsilon, fused=True)
        case SGD(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)
        case RMSProp(rho=rho, momentum=momentum, epsilon=epsilon, decay=decay):
            return TensorFlowRMSProp(groups, rate, rho=rho, momentum=momentum, epsilon=epsilon, decay=decay)


def _depth(name: str, model: Model) -> int:
    """How many blocks lie before a parameter: 0 in the stem, one more than the last block in the head."""
    part, _, rest = name.partition(".")
    if part != "stages":
        return 0 if part == "stem" else model.architecture.blocks + 1
    stage, number = map(int, rest.split(".")[:2])
    return 1 + number + sum(each.repeats for each in model.architecture.stages[:stage])
