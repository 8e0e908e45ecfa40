"""`export`: a model as a file of another engine, checked on real images before it is written."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from triscale.engines.table import graph_of, weights_of
from triscale.errors import TriscaleError, UserError
from triscale.exporting.checking import RELATIVE, SAME, Agreement, Checked, check, first_difference
from triscale.exporting.formats import Format, find_format
from triscale.exporting.images import Seen, batches_from, batches_of, images_of
from triscale.models import Model, learned
from triscale.runs import RunDirectory, write_whole

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. path: the file that is named to other tools; size: bytes of all files."""

    path: Path
    format: str
    agreement: Agreement
    size: int


def export(
    name: str | Path | Model,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """The model as a file of another engine; nothing is written unless it agrees with PyTorch on real images.

    to: one of `FORMATS`. out: the new file; by default `model` with the format's ending in the run's directory, or in
    the current one. images: what to check with; a run has its own, which this says the place of where they have moved.
    Input: `images` float32 (n, channels, h, w), preprocessed; output: `logits` (n, classes). Architecture, classes and
    preprocessing travel in the file. Raises `UserError` for what was asked wrongly; `TriscaleError` for a file that
    does not agree, naming the layer where that begins.
    """
    kind = find_format(to)
    model = learned(name).cpu()
    run = _run_of(name)
    path = _place(kind, name, out, run)
    seen = _images(model, run, None if images is None else Path(images), name)
    graph = graph_of(model.architecture, weights_of(model))
    with tempfile.TemporaryDirectory(prefix="triscale-") as folder:
        staged = Path(folder) / path.name
        kind.write(graph, model, staged)
        checked = check(model, kind.open(staged, torch.get_num_threads()), seen, progress or (lambda done, of: None))
        if not checked.agreement.holds:
            raise TriscaleError(f"{path}: not written: {_why(kind, staged, model, checked)}")
        files = kind.files(staged)
        for file in files:
            write_whole(path.parent / file.name, file.read_bytes())
        return Exported(path, kind.name, checked.agreement, sum(file.stat().st_size for file in files))


def _run_of(name: str | Path | Model) -> RunDirectory | None:
    if isinstance(name, Model) or not Path(name).exists():
        return None
    place = Path(name) if Path(name).is_dir() else Path(name).parent
    return RunDirectory(place) if RunDirectory(place).begun() else None


def _place(kind: Format, name: str | Path | Model, out: str | Path | None, run: RunDirectory | None) -> Path:
    """Where the file shall lie. Raises `UserError` where it cannot."""
    if out is None:
        called = "model" if run else name.architecture.name if isinstance(name, Model) else Path(name).stem
        out = (run.path if run else Path()) / f"{called}{kind.suffix}"
    path = Path(out)
    if path.suffix != kind.suffix:
        raise UserError(f"--out {path}: does not end in {kind.suffix}, as files of {kind.title} do")
    for file in kind.files(path):
        if file.exists():
            raise UserError(f"--out {path}: {file} exists already; name another file with --out, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: {path.parent} is no directory; make it first")
    return path


def _images(model: Model, run: RunDirectory | None, place: Path | None, name: object) -> Seen:
    if run is not None:
        return batches_of(model, images_of(run, place))
    if place is None:
        raise UserError(
            f"{name}: comes without images, and a file is only written once it agrees on real ones; name some: "
            "--images PICTURES"
        )
    return batches_from(model, place)


def _why(kind: Format, staged: Path, model: Model, checked: Checked) -> str:
    found = checked.agreement
    same = f"{found.same:,} of {found.n:,} images keep their class (at least {SAME:.1%} must)"
    text = f"{same}, logits are apart by {found.largest:.1e} of the largest (at most {RELATIVE:.0e})"
    where = first_difference(kind, staged, model, checked.worst)
    if where is None:
        return f"{text}; no layer before the last says where that begins"
    return f"{text}; the difference begins at {where.layer}, whose output is apart by {where.largest:.1e}"
