"""Training kernels for CPUs, several times faster than PyTorch's own, as `torch.library` operators.

Compiled by the installation (`native/`); where they are not, and for what they do not serve, PyTorch computes the same.
Importing this imports no torch; the operators bring it.
"""

from typing import TYPE_CHECKING

from triscale.kernels.library import Status, status, warn_if_missing

if TYPE_CHECKING:
    from triscale.kernels.fused import norm_depthwise, norm_excite
    from triscale.kernels.operators import depthwise, norm, pointwise, squeeze_excite

_LATER = {
    "depthwise": "operators",
    "norm": "operators",
    "norm_depthwise": "fused",
    "norm_excite": "fused",
    "pointwise": "operators",
    "squeeze_excite": "operators",
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


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'triscale.kernels' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"triscale.kernels.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
