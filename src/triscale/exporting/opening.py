"""An exported file as what can answer: what it says of itself, and its logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from triscale.arch import Architecture
from triscale.data import Preprocess
from triscale.engines.runner import Array, Runner
from triscale.errors import UserError
from triscale.exporting.formats import FORMATS, PREFIX, Format
from triscale.models.model import Said


class _Telling(Protocol):
    """A runner that knows what its file says."""

    def __call__(self, images: Array, /) -> Array: ...

    def metadata(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """An exported network, ready to run. format: its kind. run: images (n, channels, h, w) → logits (n, classes)."""

    path: Path
    format: Format
    architecture: Architecture
    classes: tuple[str, ...]
    preprocess: Preprocess
    run: Runner


def is_exported(name: str | Path) -> bool:
    """Whether a name is a file of an export, by its ending."""
    path = Path(name)
    return path.suffix in {kind.suffix for kind in FORMATS.values()} and path.is_file()


def opened(path: str | Path, *, threads: int) -> File:
    """The file, in fp32, run by the engine that it was made for. Raises `UserError` for a file that Triscale did not
    write, and for archives of torch.export: reading those runs what is in them."""
    place = Path(path)
    kind = next((one for one in FORMATS.values() if one.suffix == place.suffix), None)
    if kind is None or not place.is_file():
        endings = ", ".join(one.suffix for one in FORMATS.values())
        raise UserError(f"{place}: no exported file; those end in {endings}")
    if kind.name == "torch":
        raise UserError(
            f"{place}: such archives may hold code, so they are not opened; name the run, or export to onnx"
        )
    kind.check()
    run = kind.open(place, threads)
    said = Said.read(_metadata(run), str(place))  # type: ignore[arg-type]
    return File(place, kind, said.architecture, said.classes, said.preprocess, run)


def _metadata(run: _Telling) -> Mapping[str, str]:
    """Without the prefix that ONNX files have before each key."""
    return {key.removeprefix(PREFIX): value for key, value in run.metadata().items()}
