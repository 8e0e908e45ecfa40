"""What a name means where a network of the zoo and a directory are both called so: the same for every verb."""

from pathlib import Path

from triscale.arch import ZOO
from triscale.runs import RunDirectory
from triscale.weights.store import find_name


def run_meant(name: str | Path) -> RunDirectory | None:
    """The run whose model is meant: its directory, that of a run of all stages, or the model file in it. None where
    there is none, and for a network of the zoo or published weights, whatever lies here; ``./NAME`` means what lies
    here only as a text."""
    path = Path(name)
    if str(name) in ZOO or find_name(str(name)) is not None:
        return None
    place = path if path.is_dir() else path.parent
    return RunDirectory.at(place) if path in (place, RunDirectory(place).model) else None
