"""What the operators refuse, because a kernel would read it as something else."""

from torch import Tensor

from triscale.kernels.library import ACTIVATIONS
from triscale.kernels.twins import Window


def check_floating(*tensors: Tensor) -> None:
    """Raises TypeError for values that are no floating-point numbers: of those nothing here has a meaning."""
    for tensor in tensors:
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{tensor.dtype}: the operators compute floating-point numbers")


def check_grad(grad: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError for what a kernel would read as something else."""
    if grad.dtype != x.dtype or grad.shape != shape:
        raise ValueError(f"{grad.dtype} of {tuple(grad.shape)} is no gradient here; that is {x.dtype} of {shape}")


def check_depthwise(x: Tensor, weight: Tensor, window: Window) -> None:
    """Raises ValueError for what is no depthwise convolution, TypeError for other than floating-point numbers."""
    check_floating(x, weight)
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[:2] != (x.shape[1], 1) or weight.shape[2] != weight.shape[3]:
        raise ValueError(f"a depthwise convolution of {tuple(x.shape)} has no weight of {tuple(weight.shape)}")
    if window.stride < 1 or min(window.top, window.left) < 0 or min(window.height, window.width, *x.shape[1:]) < 1:
        raise ValueError(f"{tuple(window)} is no window on {tuple(x.shape)}")


def check_pointwise(x: Tensor, weight: Tensor) -> None:
    """The same for a convolution with a 1×1 kernel."""
    check_floating(x, weight)
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 1, 1) or min(*x.shape[1:], len(weight)) < 1:
        raise ValueError(f"a 1×1 convolution of {tuple(x.shape)} has no weight of {tuple(weight.shape)}")


def check_activation(activation: str) -> None:
    """Raises ValueError for a name of none."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{activation!r} is no activation; take one of {', '.join(ACTIVATIONS)}")


def check_epsilon(epsilon: float) -> None:
    """Raises ValueError for one that is not above 0, NaN among them."""
    if not epsilon > 0:
        raise ValueError(f"eps must be positive, not {epsilon}")


def check_norm(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> None:
    """Raises ValueError for what cannot be normalised so, TypeError for other than floating-point numbers."""
    check_floating(x, weight, bias)
    if x.ndim != 4 or x.shape[1] < 1 or weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
        raise ValueError(
            f"normalisation of {tuple(x.shape)} has no weight of {tuple(weight.shape)} and bias of {tuple(bias.shape)}"
        )
    check_activation(activation)
    if x.numel() == x.shape[1]:
        raise ValueError(f"training needs more than one value for each channel, not {tuple(x.shape)}")


def check_statistics(statistics: Tensor, x: Tensor) -> None:
    """Raises ValueError for what no normalisation of x found."""
    if statistics.shape != (3, x.shape[1]):
        raise ValueError(f"statistics are (3, {x.shape[1]}), not {tuple(statistics.shape)}")


def check_excite(x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor) -> None:
    """Raises ValueError for layers of other shapes, TypeError for other than floating-point numbers."""
    check_floating(x, reduce, reduce_bias, expand, expand_bias)
    squeezed, channels = reduce.shape if reduce.ndim == 2 else (-1, -1)
    shapes = [(squeezed,), (channels, squeezed), (channels,)]
    if (
        x.ndim != 4
        or min(x.shape[1:]) < 1
        or x.shape[1] != channels
        or shapes != [tuple(p.shape) for p in (reduce_bias, expand, expand_bias)]
    ):
        raise ValueError(f"squeeze-excite of {tuple(x.shape)} has no layers of {tuple(reduce.shape)}")


def check_gates(x: Tensor, pooled: Tensor, hidden: Tensor, gate: Tensor, reduce: Tensor, expand: Tensor) -> None:
    """Raises ValueError for what no squeeze-excite of x found."""
    (images, channels), squeezed = x.shape[:2], expand.shape[-1]
    shapes = [tuple(one.shape) for one in (pooled, hidden, gate, reduce, expand)]
    wanted = [(images, channels), (images, squeezed), (images, channels), (squeezed, channels), (channels, squeezed)]
    if shapes != wanted:
        raise ValueError(f"{shapes} are not what squeeze-excite of {tuple(x.shape)} found")
