"""Where a network runs, and what it takes there: measured latency and memory."""

from triscale.engines.latency import Latency, measure_latency
from triscale.engines.memory import measure_memory

__all__ = ["Latency", "measure_latency", "measure_memory"]
