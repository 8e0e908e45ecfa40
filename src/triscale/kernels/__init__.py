"""Training kernels for CPUs, several times faster than PyTorch's own, as `torch.library` operators.

Compiled by the installation (`native/`); where they are not, and for what they do not serve, PyTorch computes the same.
Importing this imports no torch; the operators bring it.
"""

from typing import TYPE_CHECKING

from triscale.kernels.library import Status, status, warn_if_missing
from triscale.lazy import on_demand

if TYPE_CHECKING:
    from triscale.kernels.fused import norm_depthwise, norm_excite
    from triscale.kernels.operators import depthwise, norm, pointwise, squeeze_excite

_LATER = {
    "depthwise": "triscale.kernels.operators",
    "norm": "triscale.kernels.operators",
    "norm_depthwise": "triscale.kernels.fused",
    "norm_excite": "triscale.kernels.fused",
    "pointwise": "triscale.kernels.operators",
    "squeeze_excite": "triscale.kernels.operators",
}

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


__getattr__, __dir__ = on_demand(_LATER, globals())
