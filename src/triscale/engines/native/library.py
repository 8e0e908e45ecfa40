"""The engine's functions in the compiled library, or why there is none."""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from triscale.errors import TriscaleError, UserError
from triscale.kernels.library import load

Precision = Literal["fp32", "bf16"]
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64
_FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "create": (
        _POINTER,
        (_POINTER, _LONG, _LONG, _POINTER, _LONG, _LONG, _LONG, _LONG, ctypes.c_char_p, _LONG),
    ),
    "run": (ctypes.c_int, (_POINTER, _POINTER, _LONG, _POINTER)),
    "profile": (None, (_POINTER, _POINTER, _LONG, _POINTER, _POINTER)),
    "pin": (ctypes.c_int, (_POINTER, _POINTER, _LONG)),
    "destroy": (None, (_POINTER,)),
    "bf16": (ctypes.c_int, ()),
    "limit": (_LONG, (_LONG, _LONG)),
}


@dataclass(frozen=True, slots=True)
class Availability:
    """isa: the instruction set that engines use here, or None where there are none; why: the reason, if so.

    bf16: whether that instruction set multiplies bf16.
    """

    isa: str | None
    bf16: bool = False
    why: str = ""


@cache
def _opened() -> tuple[ctypes.CDLL | None, Availability]:
    library, status = load()
    if library is None:
        return None, Availability(None, why=status.why)
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, f"triscale_engine_{name}")
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        return None, Availability(None, why="an older version compiled it; install Triscale again")
    return library, Availability(status.isa, bool(library.triscale_engine_bf16()))


def available() -> Availability:
    """Whether there is an engine, by which instruction set, or why not.

    Raises `UserError` where TRISCALE_KERNELS or TRISCALE_ISA have a value that they cannot have.
    """
    return _opened()[1]


def library() -> ctypes.CDLL:
    """The library. Raises `TriscaleError` where it has no engine, naming the reason."""
    found, status = _opened()
    if found is None:
        raise TriscaleError(f"there is no native engine here: {status.why}; run the model by PyTorch")
    return found


def is_bf16(precision: Precision) -> bool:
    """Whether it is bf16. Raises `UserError` for another word, and where the processor has no such products."""
    if precision not in get_args(Precision):
        raise UserError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    if precision == "bf16" and not available().bf16:
        raise UserError(
            f"precision {precision!r}: the instruction set {available().isa} of this processor does not multiply "
            "bf16; take 'fp32'"
        )
    return precision == "bf16"
