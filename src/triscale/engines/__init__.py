"""Where a network runs, and what it takes there: `running` takes the fastest engine, our own one is `native`.

Importing this imports no torch; what measures brings it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triscale.engines.latency import Latency, measure_latency
    from triscale.engines.logits import Logits, running
    from triscale.engines.memory import measure_memory

_LATER = {
    "Latency": "latency",
    "Logits": "logits",
    "measure_latency": "latency",
    "measure_memory": "memory",
    "running": "logits",
}

__all__ = ["Latency", "Logits", "measure_latency", "measure_memory", "running"]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'triscale.engines' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"triscale.engines.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
