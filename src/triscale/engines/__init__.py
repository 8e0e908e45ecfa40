"""Where a network runs, and what it takes there: `running` takes the fastest engine, our own one is `native`.

Importing this imports no torch; what measures brings it.
"""

from typing import TYPE_CHECKING

from triscale.lazy import on_demand

if TYPE_CHECKING:
    from triscale.engines.latency import Latency, measure_latency
    from triscale.engines.logits import Logits, running
    from triscale.engines.memory import measure_memory

_LATER = {
    "Latency": "triscale.engines.latency",
    "Logits": "triscale.engines.logits",
    "measure_latency": "triscale.engines.latency",
    "measure_memory": "triscale.engines.memory",
    "running": "triscale.engines.logits",
}

__all__ = ["Latency", "Logits", "measure_latency", "measure_memory", "running"]


__getattr__, __dir__ = on_demand(_LATER, globals())
