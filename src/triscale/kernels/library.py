"""The compiled kernels: where they lie, which instruction set they use, or why they are not there."""

import ctypes
import os
import warnings
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Literal

from triscale.errors import SlowerWarning, UserError

ISAS = ("baseline", "avx2", "avx512", "avx512bf16", "avx512fp16", "amx")
ACTIVATIONS = ("none", "relu", "relu6", "hardswish", "silu")  # in the order of interface.h
_SWITCH, _ISA = "TRISCALE_KERNELS", "TRISCALE_ISA"
_FILE = str(Path(__file__).parent / "native" / "triscale_kernels.so")

_POINTER, _INT, _LONG, _DOUBLE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_double
_ARGUMENTS = {
    "depthwise": (_POINTER, _INT, _INT, *[_POINTER] * 3),
    "depthwise_backward": (_POINTER, _INT, _INT, *[_POINTER] * 5),
    "norm": (_LONG, _LONG, _LONG, _DOUBLE, _INT, _INT, *[_POINTER] * 5),
    "norm_backward": (_LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 8),
    "pool": (_LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 2),
    "scale": (_LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 4),
    "pointwise": (_LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 3),
    "pointwise_backward": (_LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 5),
    "norm_depthwise": (_POINTER, _LONG, _DOUBLE, _INT, _INT, *[_POINTER] * 6),
    "norm_depthwise_backward": (_POINTER, _LONG, _INT, _INT, *[_POINTER] * 10),
    "norm_excite": (_POINTER, _LONG, _DOUBLE, _INT, _INT, *[_POINTER] * 12),
    "norm_excite_backward": (_POINTER, _LONG, _INT, _INT, *[_POINTER] * 14),
    "dot": (_LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 3),
}


class Result(IntEnum):
    """What a kernel returns, as interface.h has it: `DECLINED` where there is none for what was asked."""

    DONE = 0
    NO_MEMORY = -1
    DECLINED = -2


@dataclass(frozen=True, slots=True)
class Status:
    """isa: the instruction set in use, or None where operators run on PyTorch alone; why: the reason, if so."""

    isa: str | None
    why: str = ""


@cache
def load() -> tuple[ctypes.CDLL | None, Status]:
    """The library, opened once, and what there is to say about it.

    TRISCALE_KERNELS=off leaves it alone; TRISCALE_ISA names the fastest instruction set that it may use; an
    empty value is none. Raises `UserError` for other values of the two.
    """
    switch, most = os.environ.get(_SWITCH) or "on", os.environ.get(_ISA, "")
    if switch not in ("on", "off"):
        raise UserError(f"{_SWITCH}={switch!r} is neither on nor off")
    if most and most not in ISAS:
        raise UserError(f"{_ISA}={most!r} is no instruction set; take one of {', '.join(ISAS)}")
    if switch == "off":
        return None, Status(None, f"{_SWITCH} is off")
    path = Path(_FILE)
    if not path.exists():
        return None, Status(None, "they were not compiled: the installation found no C++ compiler that works")
    try:
        library = ctypes.CDLL(str(path))
        for name, arguments in _ARGUMENTS.items():
            getattr(library, f"triscale_{name}").argtypes = arguments
        library.triscale_choose.argtypes, library.triscale_choose.restype = [ctypes.c_char_p], ctypes.c_char_p
        library.triscale_use_team.argtypes, library.triscale_use_team.restype = [_POINTER], None
        # A processor of another kind knows none of the faster names: there the baseline is all there is.
        chosen = library.triscale_choose(most.encode()) or library.triscale_choose(b"baseline")
    except (OSError, AttributeError) as error:
        return None, Status(None, f"they do not load: {error}")
    return library, Status(chosen.decode())


def status() -> Status:
    """Whether there are compiled kernels, for which instruction set, or why not."""
    return load()[1]


@cache
def warn_if_missing(what: Literal["training", "answering"] = "training") -> None:
    """Says, once in a process, what is slower without the kernels; not where they are switched off.

    Answering is also slower where no more than the baseline's instructions are there, or may be used.
    """
    found = status()
    if what == "answering" and found.isa == "baseline":
        why = "it takes AVX2 or AVX-512, which are not in use here"
        warnings.warn(f"Triscale's own engine is not used, answering is slower: {why}", SlowerWarning, stacklevel=3)
    if found.isa is None and os.environ.get(_SWITCH) != "off":
        warnings.warn(
            f"Triscale's own kernels are not used, {what} is slower: {found.why}", SlowerWarning, stacklevel=3
        )
