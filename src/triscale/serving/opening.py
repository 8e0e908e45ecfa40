"""What is served: whatever a name means, opened, as the few things that answering takes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from triscale import exporting
from triscale.data import Preprocess
from triscale.engines import Logits, running
from triscale.errors import UserError
from triscale.exporting import is_exported
from triscale.models import answering, learned
from triscale.nn.network import Network
from triscale.precision import Precision


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """name: in addresses. logits: from images (n, channels, h, w) to (n, classes), callable from any thread. precision:
    in which they are computed, int8 being for exported files alone. network: what activation
    maps are computed with; None where there can be none. platform: what computes."""

    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    logits: Logits
    network: Network | None = None
    platform: str = "triscale"
    precision: Precision | Literal["int8"] = "fp32"

    @property
    def sees_pictures(self) -> bool:
        """Whether its input is what picture files hold: gray or RGB."""
        return self.preprocess.channels in (1, 3)

    @property
    def maps(self) -> bool:
        """Whether it can show where in a picture it finds a class."""
        return self.network is not None and self.sees_pictures


@contextmanager
def opened(
    name: str | Path, weights: str | Path | None = None, *, called: str | None = None, precision: str | None = None
) -> Iterator[Served]:
    """The model that a name means (see `triscale.models.load`), or an exported file, until it is no longer needed.

    called: its name in addresses; without it the last part of `name`. precision: fp32, bf16 or fp16; if None as for
    `triscale.models.answering`. Raises `UserError` for a model without learned weights, for a name that no address can
    have, and where a precision is named that is not here, or for an exported file.
    """
    named = name_in_addresses(name, called)
    if is_exported(name):
        if precision is not None:
            raise UserError(f"--precision {precision}: {name} has its own; leave it out, or name the run it came from")
        yield _exported(name, weights, named)
        return
    model = learned(name, weights)
    chosen = answering(model, precision)
    with running(model, precision=chosen) as logits:
        yield Served(named, model.classes, model.preprocess, logits, network=model, precision=chosen)


def _exported(name: str | Path, weights: str | Path | None, called: str) -> Served:
    """A file of another engine, which computes; there is no network to look into, so no maps."""
    if weights is not None:
        raise UserError(f"--weights {weights}: {name} has its own; leave one of them out")
    file = exporting.opened(name, threads=torch.get_num_threads())
    run = file.run

    def logits(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(run(np.ascontiguousarray(x.numpy(), np.float32)))

    precision: Literal["int8", "fp32"] = "int8" if file.int8 else "fp32"
    return Served(called, file.classes, file.preprocess, logits, platform=file.format.name, precision=precision)


def name_in_addresses(name: str | Path, called: str | None) -> str:
    """What it is called, or what the last part of its own name makes. Raises `UserError` for what no address holds."""
    if called is None:
        return addressable(name)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", called) or called in (".", ".."):  # which clients take for folders
        raise UserError(
            f"--name {called!r}: is no name for addresses; write letters, digits, dots, dashes or underscores"
        )
    return called


def addressable(name: str | Path) -> str:
    """A name of letters, digits, dots, dashes and underscores."""
    path = Path(name)
    short = path.stem if path.suffix in (".safetensors", ".json", ".onnx", ".xml") else path.resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", short).strip("-.") or "model"
