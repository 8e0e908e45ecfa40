"""The engine's functions in the compiled library, or why there is none."""

import ctypes
from dataclasses import dataclass
from functools import cache

from triscale.errors import TriscaleError, UserError
from triscale.kernels.library import load
from triscale.precision import ANSWERING, HalfPrecision, Precision

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
    "multiplies": (ctypes.c_int, ()),
    "limit": (_LONG, (_LONG, _LONG)),
}


@dataclass(frozen=True, slots=True)
class Availability:
    """isa: the instruction set that engines use here, or None where there are none; why: the reason, if so.

    precisions: in which it multiplies.
    """

    isa: str | None
    precisions: tuple[Precision, ...] = ()
    why: str = ""

    @property
    def half(self) -> HalfPrecision | None:
        """In which half precision it is fastest: bf16 by matrix tiles, fp16 before bf16 without them, or None where it
        multiplies neither.

        Processors that have both without matrix tiles multiply fp16 twice as fast as fp32, and bf16 half as fast.
        """
        if self.isa == "amx":
            return "bf16"
        return "fp16" if "fp16" in self.precisions else "bf16" if "bf16" in self.precisions else None

    def pays(self, precision: Precision) -> bool:
        """Whether it is faster than fp32: fp16 wherever it is, bf16 where nothing is faster."""
        return precision in ("fp16", self.half) and precision in self.precisions

    def ends_early(self, precision: Precision) -> bool:
        """Whether something is computed as fp16, which ends at 65,504."""
        return precision == "fp16" or (precision == "bf16" and self.isa == "amx")


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
    multiplies = library.triscale_engine_multiplies()
    precisions = tuple(one for place, one in enumerate(ANSWERING) if multiplies >> place & 1)
    return library, Availability(status.isa, precisions)


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


def find_precision(precision: str) -> Precision:
    """The precision of that name. Raises `UserError` for another word, and where the processor does not multiply it."""
    if precision not in ANSWERING:
        raise UserError(f"precision {precision!r} {missing(precision)}")
    why = missing(precision)
    if why is not None:
        raise UserError(f"precision {precision!r}: {why}; take 'fp32'")
    return precision


def missing(precision: str) -> str | None:
    """Why the engine does not compute in it here, if so."""
    here = available()
    if precision not in ANSWERING:
        return f"is none of {', '.join(ANSWERING)}"
    if here.isa is None:
        return here.why
    if precision in here.precisions:
        return None
    return f"the instruction set {here.isa} of this processor does not multiply {precision}"


def number_of(precision: str) -> int:
    """By which the C++ side knows a precision. Raises as `find_precision`."""
    return ANSWERING.index(find_precision(precision))
