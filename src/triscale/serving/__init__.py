"""Answers over HTTP: the Open Inference Protocol and a plain endpoint for pictures, within limits that hold."""

from typing import TYPE_CHECKING

from triscale.lazy import on_demand

if TYPE_CHECKING:
    from triscale.serving.addresses import application
    from triscale.serving.batching import Batcher
    from triscale.serving.limits import Limits
    from triscale.serving.opening import Served, opened

_LATER = {
    "Batcher": "triscale.serving.batching",
    "Limits": "triscale.serving.limits",
    "Served": "triscale.serving.opening",
    "application": "triscale.serving.addresses",
    "opened": "triscale.serving.opening",
}

__all__ = ["Batcher", "Limits", "Served", "application", "opened"]

__getattr__, __dir__ = on_demand(_LATER, globals())
