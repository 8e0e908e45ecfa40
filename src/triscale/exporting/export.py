"""`export`: a model as a file of another engine, checked on real images before it is written."""

import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from triscale.engines.table import graph_of, weights_of
from triscale.errors import TriscaleError, UserError
from triscale.exporting.checking import RELATIVE, SAME, Agreement, Difference, by_pytorch, check, first_difference
from triscale.exporting.formats import LARGEST_WEIGHT, LOST_BY_ESTIMATE, Format, find_format
from triscale.exporting.images import Seen, batches_from, batches_of, images_of
from triscale.models import Model, learned
from triscale.runs import RunDirectory, write_whole
from triscale.weights import run_meant

if TYPE_CHECKING:
    from triscale.exporting.quantizing import Quantized

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. path: the file that is named to other tools; size: bytes of all files. quantized: what int8
    cost and gained; None in fp32."""

    path: Path
    format: str
    agreement: Agreement
    size: int
    quantized: "Quantized | None" = None


def export(
    name: str | Path | Model,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    int8: bool = False,
    most_lost: float = LOST_BY_ESTIMATE,
    progress: Progress | None = None,
) -> Exported:
    """The model as a file of another engine; nothing is written unless it agrees with PyTorch on real images.

    to: one of `FORMATS`. out: the new file; by default `model` with the format's ending in the run's directory, and for
    other networks their name with it in the current one. images: what to check with; a run has its own, which this says
    the place of where they have moved.
    int8: see `quantize`, for the engine of the format: calibrated on the run's training images, held against its
    validation images, of whose accuracy at most `most_lost` may be lost. Such a file must agree with the network in
    int8 that passed.

    Input: `images` float32 (n, channels, h, w), preprocessed; output: `logits` (n, classes). Architecture, classes and
    preprocessing travel in the file. Raises `UserError` for what was asked wrongly; `TriscaleError` for a file that
    does not agree, naming the layer where that begins, and for a network that loses too much in int8.
    """
    kind = find_format(to)
    if int8 and kind.engine is None:
        raise UserError(f"--int8: files of {kind.title} hold no int8 networks; take --to onnx or --to openvino")
    model, called, run = learned(name), str(name), None
    if isinstance(name, Model):  # somebody else's: it stays where it is, and as it is
        model, called = deepcopy(model), name.architecture.name
    else:
        run = run_meant(name)
    model = model.cpu()
    path = _place(kind, name, out, run, "-int8" if int8 else "")
    told = progress or (lambda what, done, of: None)
    place = None if images is None else Path(images)
    quantized = _quantized(kind, model, run, place, called, most_lost, told) if int8 else None
    seen = _images(model, run, place, called)
    with tempfile.TemporaryDirectory(prefix="triscale-") as folder:
        staged, threads = Path(folder) / path.name, torch.get_num_threads()
        graph = quantized.graph if quantized else graph_of(model.architecture, weights_of(model))
        more = {LARGEST_WEIGHT: str(quantized.largest)} if quantized else {}
        _stage(kind, graph, model, model.metadata() | more, staged, path)
        wanted = kind.wanted(graph, threads) if quantized else partial(by_pytorch, model)
        checked = check(wanted, kind.open(staged, threads), seen, partial(told, "checking on images"))
        if not checked.agreement.holds:
            where = None if quantized else first_difference(kind, staged, model, checked.worst)
            raise TriscaleError(f"{path}: not written: {_why(checked.agreement, where)}")
        files = kind.files(staged)
        _write({path.parent / file.name: file for file in files})
        size = sum(file.stat().st_size for file in files)
        return Exported(path, kind.name, checked.agreement, size, quantized)


def _stage(kind: Format, graph: bytes, model: Model, said: Mapping[str, str], staged: Path, path: Path) -> None:
    """The file where it is checked first. Raises `TriscaleError` where there is no room for it."""
    try:
        kind.write(graph, model, said, staged)
    except OSError as error:
        raise TriscaleError(
            f"{path}: not written: there was no writing it to {staged.parent.parent}, where it is checked first "
            f"({error.strerror or error}); make room there, or name another directory in TMPDIR"
        ) from None


def _write(files: Mapping[Path, Path]) -> None:
    """Each as a copy of another, or none of them: they are of no use alone, and would be in the next one's way."""
    written: list[Path] = []
    try:
        for place, file in files.items():
            write_whole(place, file.read_bytes())
            written.append(place)
    except BaseException:
        for place in written:
            place.unlink(missing_ok=True)
        raise


def _quantized(
    kind: Format,
    model: Model,
    run: RunDirectory | None,
    place: Path | None,
    called: str,
    most_lost: float,
    told: Progress,
) -> "Quantized":
    from triscale.exporting.quantizing import quantize  # with ONNX, which an installation to serve does not have

    if run is None:
        raise UserError(
            f"{called}: is no run, and int8 is calibrated on the images that a run learned from; name a run"
        )
    data = images_of(run, place)
    assert kind.engine is not None
    return quantize(model, data.train, data.val, engine=kind.engine, most_lost=most_lost, progress=told)


def _place(kind: Format, name: str | Path | Model, out: str | Path | None, run: RunDirectory | None, more: str) -> Path:
    """Where the file shall lie. Raises `UserError` where it cannot."""
    if out is None:
        called = "model" if run else name.architecture.name if isinstance(name, Model) else Path(name).stem
        out = (run.path if run else Path()) / f"{called}{more}{kind.suffix}"
    path = Path(out)
    if path.suffix != kind.suffix:
        raise UserError(f"--out {path}: does not end in {kind.suffix}, as files of {kind.title} do")
    for file in kind.files(path):
        if file.exists():
            raise UserError(f"--out {path}: {file} exists already; name another file with --out, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: {path.parent} is no directory; make it first")
    return path


def _images(model: Model, run: RunDirectory | None, place: Path | None, called: str) -> Seen:
    if run is not None:
        return batches_of(model, images_of(run, place))
    if place is None:
        raise UserError(
            f"{called}: comes without images, and a file is only written once it agrees on real ones; name some: "
            "--images PICTURES"
        )
    return batches_from(model, place)


def _why(found: Agreement, where: Difference | None) -> str:
    same = f"{found.same:,} of {found.n:,} images keep their class (at least {SAME:.1%} must)"
    text = f"{same}, logits are apart by {found.largest:.1e} of the largest (at most {RELATIVE:.0e})"
    if where is None:
        return f"{text}; no layer before the last says where that begins"
    return f"{text}; the difference begins at {where.layer}, whose output is apart by {where.largest:.1e}"
