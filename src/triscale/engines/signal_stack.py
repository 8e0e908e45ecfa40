"""The stack that signals are handled on: a library that puts up its own for a while must not leave this thread with
memory that is gone, where the next Ctrl-C would end the process."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DISABLED = 2  # SS_DISABLE: signals are handled on the thread's usual stack


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux; see sigaltstack(2)."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack | None:
    """Of this thread, at this moment; None where it cannot be told, as outside Linux."""
    if sys.platform != "linux":
        return None
    found = SignalStack()
    return found if ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0 else None


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Whatever happens within it, this thread's stack for signals is afterwards the one that it was."""
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            restore = ctypes.CDLL(None).sigaltstack
            # The kernel takes none that has become too small for a signal, as it can after tiles were asked for (AMX).
            if restore(ctypes.byref(before), None):
                restore(ctypes.byref(SignalStack(flags=DISABLED)), None)
