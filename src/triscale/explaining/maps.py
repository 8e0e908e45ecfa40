"""Where in a picture a network finds its class: exact maps for pooled linear heads, Grad-CAM for everything else."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from triscale.errors import UserError
from triscale.nn import Network, evaluating


class Maps(NamedTuple):
    """Of n pictures: evidence for one class each (n, h, w), logits (n, classes), and which class it was, (n,)."""

    values: Tensor
    logits: Tensor
    classes: Tensor


def class_activation_maps(network: Network, x: Tensor, classes: Sequence[int] | None = None) -> Maps:
    """The share of every position in the logit of a class (Zhou et al., arXiv 1512.04150, section 2).

    x: (n, channels, h, w), preprocessed. classes: one index a picture; each picture's likeliest without them.
    A network ends in the averages of its last features A over h·w positions and one linear layer, so position (i, j)
    adds Σ_c w[class, c]·A_c(i, j)/(h·w) to the logit: a map sums to the logit minus the bias, up to rounding in fp32.
    The network is left as it was. Raises `UserError` for a class that it does not have.
    """
    with evaluating(network), torch.no_grad():
        for part in (network.stem, *network.stages, network.head.conv):
            x = part(x)
        linear = network.head.classifier
        logits: Tensor = linear(x.mean((2, 3)))
        chosen = _chosen(logits, classes)
        weights = linear.weight[chosen] / (x.shape[2] * x.shape[3])
        return Maps(torch.einsum("nc,nchw->nhw", weights, x), logits, chosen)


def grad_cam(module: nn.Module, layer: nn.Module, x: Tensor, classes: Sequence[int] | None = None) -> Maps:
    """Grad-CAM of any network at any layer (Selvaraju et al., arXiv 1610.02391, equations 1 and 2).

    module: answers x with logits (n, classes). layer: a part of it, called once, whose output A is (n, c, h, w).
    classes: one index a picture; each picture's likeliest without them. The map is ReLU(Σ_c α_c·A_c) with α_c the
    mean over positions of the logit's gradient by A_c: an approximation, in no unit, that shows no evidence against.
    At the last features of a network with a pooled linear head it is the ReLU of `class_activation_maps`.

    The module is looked at in evaluation mode; modes, gradients, `requires_grad` and hooks are left as they were.
    Raises `UserError` where the layer plays no part, plays it more than once, or has another kind of output.
    """
    if not any(part is layer for part in module.modules()):
        raise UserError(f"grad_cam: {type(layer).__name__} is no part of {type(module).__name__}; name one of its own")
    outputs: list[Tensor] = []

    def watch(_layer: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            what = f"a {output.ndim}-d tensor" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(f"grad_cam: {type(layer).__name__} gives {what}, no maps (n, c, h, w); name another layer")
        outputs.append(output.detach().requires_grad_())
        # What follows may write into its input, as nn.ReLU(inplace=True) does: it gets a copy.
        return outputs[-1].clone()

    with evaluating(module), torch.inference_mode(False), torch.enable_grad():
        hook = layer.register_forward_hook(watch)
        try:
            logits: Tensor = module(x.detach().clone())
        finally:
            hook.remove()
        if len(outputs) != 1:
            times = f"{len(outputs)} times" if outputs else "not at all"
            raise UserError(f"grad_cam: {type(layer).__name__} is called {times}, not once; name another layer")
        chosen = _chosen(logits, classes)
        scores = logits.gather(1, chosen[:, None]).sum()
        gradient = torch.autograd.grad(scores, outputs[0])[0]
    with torch.no_grad():
        values = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), outputs[0].detach()).relu()
    return Maps(values, logits.detach(), chosen)


def _chosen(logits: Tensor, classes: Sequence[int] | None) -> Tensor:
    if logits.ndim != 2:
        raise UserError(f"explain: a network answered with {tuple(logits.shape)}; logits (n, classes) are needed")
    if classes is None:
        return logits.argmax(1)
    n, count = logits.shape
    if len(classes) != n:
        raise UserError(f"explain: {len(classes)} classes for {n} pictures; give one each")
    for index in classes:
        if not 0 <= index < count:
            raise UserError(f"explain: class {index} of a network with {count}; name one from 0 to {count - 1}")
    return torch.tensor(list(classes), dtype=torch.long, device=logits.device)
