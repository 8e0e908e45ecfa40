"""How fast networks are on this machine: `bench`, by every engine, in turns."""

from typing import TYPE_CHECKING

from triscale.lazy import on_demand

if TYPE_CHECKING:
    from triscale.benching.measuring import Bench, bench

# A new process of one engine imports this package, and none of the other engines.
_LATER = {"Bench": "triscale.benching.measuring", "bench": "triscale.benching.measuring"}

__all__ = ["Bench", "bench"]


__getattr__, __dir__ = on_demand(_LATER, globals())
