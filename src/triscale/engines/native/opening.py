"""A model that was trained, ready to run without torch."""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors

from triscale.arch import Architecture, from_json
from triscale.arch.metadata import check_format, precision_of, unreadable
from triscale.arch.resolve import MODEL_FILE
from triscale.engines.native.engine import Engine
from triscale.engines.native.library import available
from triscale.engines.native.plan import KEY as PLAN
from triscale.engines.native.plan import Plan
from triscale.engines.native.program import compile_plan
from triscale.errors import UserError
from triscale.precision import Precision


def open_run(
    path: str | Path, *, precision: Precision | None = None, threads: int | None = None, streams: int = 1
) -> Engine:
    """The engine of the model in a run's directory, or of a model file that Triscale wrote; no torch is imported.

    Images are what the model's preprocessing makes of pictures: (pixels / 255 - mean) / std of what `Preprocess.fit`
    gives, (n, channels, height, width). Logits come in the order of its classes. Preprocessing and classes are in the
    file's metadata (`arch.resolve.read_metadata`). precision: if None, the half precision of which the model's run
    found that it costs less than half a point, where it is faster here than fp32; else fp32. threads, streams: see
    `Engine`. Raises `UserError` for a path that is no such model, and for a damaged one; `TriscaleError` where there
    is no native engine.
    """
    place = Path(path)
    plan, found = _compiled(place / MODEL_FILE if place.is_dir() else place)
    chosen = precision or (found if available().pays(found) else "fp32")
    return Engine(plan, precision=chosen, threads=threads, streams=streams)


def _compiled(file: Path) -> tuple[Plan, Precision]:
    """Its plan, and in which precision it answers where nobody names one.

    It is compiled anew each time. One that was kept beside the file could be taken only after the digests of both were
    computed: for millions of weights that takes longer than compiling, and for fewer there is a millisecond to gain
    (`benchmarks/opening.py`).
    """
    architecture, weights, precision = _read(file)
    try:
        return compile_plan(architecture, weights), precision
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _read(file: Path) -> tuple[Architecture, dict[str, npt.NDArray[Any]], Precision]:
    """All from one opening of the file: it may be replaced meanwhile."""
    try:
        with safetensors.safe_open(file, "numpy") as content:
            metadata = content.metadata() or {}
            check_format(metadata)
            architecture = from_json(metadata["architecture"], str(file))
            precision = precision_of(metadata)
            return architecture, {name: _tensor(content, name) for name in content.keys()}, precision  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file; name a finished run, or a model file") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; name a model file that can be read") from None
    except UserError as error:
        raise UserError(f"{error}; copy or train it again") from None
    except KeyError as error:
        if PLAN in metadata:
            raise UserError(f"{file}: a plan; open it with Engine(Plan.load(path))") from None
        raise UserError(f"{file}: no model that Triscale wrote (it does not say its {error}); name one") from None
    except (TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(unreadable(str(file), error)) from None


def _tensor(content: safetensors.safe_open, name: str) -> npt.NDArray[Any]:
    """Raises ValueError for a type that numpy does not have: bf16, and those of eight bits."""
    try:
        found: npt.NDArray[Any] = content.get_tensor(name)  # type: ignore[no-untyped-call]
    except (AttributeError, TypeError):
        kind = content.get_slice(name).get_dtype()  # type: ignore[no-untyped-call]
        raise ValueError(f"{name!r} is of {kind}") from None
    return found
