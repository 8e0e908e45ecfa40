"""Training kernels for CPUs, several times faster than PyTorch's own, as `torch.library` operators.

Compiled by the installation (`native/`); where they are not, and for what they do not serve, PyTorch computes the same.
"""

from triscale.kernels.fused import norm_depthwise, norm_excite
from triscale.kernels.library import Status, status, warn_if_missing
from triscale.kernels.operators import depthwise, norm, pointwise, squeeze_excite

__all__ = [
    "Status",
    "depthwise",
    "norm",
    "norm_depthwise",
    "norm_excite",
    "pointwise",
    "squeeze_excite",
    "status",
    "warn_if_missing",
]
