"""An exported file as what can answer: what it says of itself, and its logits."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from triscale.arch import Architecture
from triscale.data import Preprocess
from triscale.engines.runner import Array, Runner
from triscale.errors import LessExactWarning, UserError
from triscale.exporting.formats import FORMATS, LARGEST_WEIGHT, PREFIX, SAFE, Format
from triscale.models.model import Said


class _Telling(Protocol):
    """A runner that knows what its file says."""

    def __call__(self, images: Array, /) -> Array: ...

    def metadata(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """An exported network, ready to run. format: its kind. run: images (n, channels, h, w) → logits (n, classes).
    int8: whether it is in int8, as far as that goes; in fp32 otherwise."""

    path: Path
    format: Format
    architecture: Architecture
    classes: tuple[str, ...]
    preprocess: Preprocess
    run: Runner
    int8: bool


def is_exported(name: str | Path) -> bool:
    """Whether a name is a file of an export, by its ending."""
    path = Path(name)
    return path.suffix in {kind.suffix for kind in FORMATS.values()} and path.is_file()


def opened(path: str | Path, *, threads: int) -> File:
    """The file, in fp32 or int8 as it is, run by the engine that it was made for. Warns of a file in int8 whose sums
    overflow on this processor. Raises `UserError` for a file that Triscale did not write, and for archives of
    torch.export: reading those runs what is in them."""
    place = Path(path)
    kind = next((one for one in FORMATS.values() if one.suffix == place.suffix), None)
    if kind is None or not place.is_file():
        endings = ", ".join(one.suffix for one in FORMATS.values())
        raise UserError(f"{place}: no exported file; those end in {endings}")
    if kind.name == "torch":
        raise UserError(
            f"{place}: such archives may hold code, so they are not opened; name the run, or export to onnx"
        )
    kind.check_opening(place)
    run = kind.open(place, threads)
    metadata = _metadata(run)  # type: ignore[arg-type]
    said = Said.read(metadata, str(place))
    _warn_of_overflow(place, kind, metadata)
    return File(place, kind, said.architecture, said.classes, said.preprocess, run, LARGEST_WEIGHT in metadata)


def _warn_of_overflow(place: Path, kind: Format, metadata: Mapping[str, str]) -> None:
    largest = metadata.get(LARGEST_WEIGHT)
    if kind.engine is None or largest is None or largest == str(SAFE):
        return
    if find_spec("onnx") is None:  # which running does not take, but asking the engine does
        told = "answers may be less exact here: without onnx nobody knows whether sums of its int8 weights overflow"
        warnings.warn(f"{place}: {told}; pip install 'triscale[export]'", LessExactWarning, stacklevel=3)
        return
    from triscale.exporting import saturating  # with ONNX, which only a file in int8 needs
    from triscale.exporting.calibrating import TARGETS
    from triscale.exporting.rewriting import LARGEST

    target = TARGETS[kind.engine]
    if largest == str(LARGEST) and saturating.largest_weight(target) < LARGEST:
        told = f"answers are less exact here: {target.title}'s sums of its int8 weights overflow on this processor"
        warnings.warn(f"{place}: {told}; export it on such a one", LessExactWarning, stacklevel=3)


def _metadata(run: _Telling) -> Mapping[str, str]:
    """Without the prefix that ONNX files have before each key."""
    return {key.removeprefix(PREFIX): value for key, value in run.metadata().items()}
