"""`triscale predict`."""

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.errors import UserError, no_text
from triscale.runs import write_whole

if TYPE_CHECKING:
    from triscale.models import Features, Guess, Model

ENDINGS = (".npy", ".parquet")
TOP = 5
SHOWN = 10  # classes of a picture in the table for people


def command(
    pictures: Annotated[
        list[str],
        typer.Argument(
            help="Pictures: files, folders, a manifest or IDX files. Without --model and --weights the first word is "
            "the model.",
            show_default=False,
        ),
    ],
    model: arguments.Model = None,
    weights: arguments.Weights = None,
    top: Annotated[int | None, typer.Option(help="How many classes to name.", show_default=str(TOP))] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Write what the network sees in each picture to OUT.npy or OUT.parquet.", show_default=False),
    ] = None,
    precision: arguments.Answering = None,
    stage: Annotated[
        int | None,
        typer.Option(help="With --features: of this stage, from 0.", show_default="what the linear layer sees"),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """What a model sees in pictures: classes with probabilities, or features.

    Example: triscale predict photo.jpg --model efficientnet_lite0
    """
    output = Output(as_json)
    if model is None:
        model, weights = weights, None  # weights bring their network
    name, found = arguments.model_and_pictures(model, pictures)
    if stage is not None and features is None:
        raise UserError(f"--stage {stage}: says which features to write; name a file too: --features OUT.npy")
    if precision is not None and features is not None:
        raise UserError(
            f"--precision {precision}: says how classes are computed, and --features are of fp32; leave it out"
        )
    if top is not None and features is not None:
        raise UserError(f"--top {top}: says how many classes to name, and --features names none; leave one of them out")
    if features is not None:
        _check_file(features)
        _check_names(features, found)
    from triscale.models import learned

    ready = learned(name, weights)
    arguments.tell_reading(output, ready)
    known_as = Path(weights or name)  # what alone names the model in the next command
    if features is None:
        _answer(output, ready, known_as, found, TOP if top is None else top, precision)
    else:
        _write(output, ready, known_as, found, features, stage)


def _answer(output: Output, model: "Model", name: Path, pictures: list[Path], top: int, precision: str | None) -> None:
    from triscale.models import answering, predict

    with output.progress() as bar:
        task = bar.add_task("looking at pictures", total=None)

        def told(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        chosen = answering(model, precision)
        guesses = list(predict(model, pictures, top=top, precision=chosen, progress=told))
    failed = [guess for guess in guesses if guess.error]
    if len(failed) == len(guesses):
        raise UserError(failed[0].error or "")
    values = {
        "predictions": [
            {"path": str(guess.path), "error": guess.error}
            if guess.error
            else {
                "path": str(guess.path),
                "classes": [{"name": label, "probability": share} for label, share in guess.classes],
            }
            for guess in guesses
        ],
        "precision": chosen,
    }

    output.result(values, lambda console: _show(console, [guess for guess in guesses if not guess.error]))
    if chosen != "fp32" and precision is None:
        output.notes.print(f"answered in {chosen}, as its run found sound; --precision fp32 takes longer")
    _end(output, failed, len(guesses), _look_closer(name, pictures, guesses))


def _show(console: Console, guesses: "list[Guess]") -> None:
    rows = table("picture", "class", "", "then")
    for guess in guesses:
        (label, share), *others = guess.classes[:SHOWN]
        rest = ", ".join(f"{other} {p:.1%}" for other, p in others)
        rows.add_row(str(guess.path), label, f"{share:.1%}", rest)
    print_table(console, rows)
    more = len(guesses[0].classes) - SHOWN
    if more > 0:
        console.print(f"… and {more:,} more; --json has them all")


def _look_closer(name: Path, pictures: list[Path], guesses: "list[Guess]") -> list[object]:
    """A next command that works: labelled images are evaluated, pictures that could be read are explained."""
    from triscale.models.predicting import is_labelled

    read = [guess.path for guess in guesses if not guess.error]
    for place in pictures:
        if is_labelled(place):
            skip = [] if len(read) == len(guesses) else ["--on-bad", "skip"]
            return ["triscale", "eval", name, place, *skip]
        if any(path == place or place in path.parents for path in read):
            return ["triscale", "explain", name, place]
    return ["triscale", "explain", name, read[0]]


def _end(output: Output, failed: "list[Guess]", total: int, following: list[object]) -> None:
    """What could not be read, the next command, and the exit code."""
    for guess in failed:
        output.notes.print(guess.error)
    if failed:
        output.notes.print(f"{len(failed)} of {total} pictures could not be read")
    output.next_command(*following)
    if failed:
        raise typer.Exit(1)


def _check_file(out: Path) -> None:
    """Before any picture is looked at."""
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--features {out}: ends neither in .npy nor in .parquet; these are what can be written")
    for place in (out, _paths_file(out)):
        if place.exists():
            raise UserError(f"--features {out}: {place} exists already; name another file")
    if not out.parent.is_dir():
        raise UserError(f"--features {out}: {out.parent} is no directory; make it first")
    if out.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                f"--features {out}: Parquet is written by pyarrow; pip install 'triscale[parquet]', or name a .npy file"
            ) from None


def _check_names(out: Path, pictures: list[Path]) -> None:
    """Before any picture is looked at, as their names are written in UTF-8; those in folders are checked by others."""
    for place in pictures:
        try:
            str(place).encode()
        except UnicodeEncodeError:
            wrong = no_text("is not UTF-8; rename it")
            raise UserError(f"--features {out}: the name {str(place)!r} {wrong}") from None


def _paths_file(out: Path) -> Path:
    """Which row is which picture: inside a Parquet file, beside a NumPy one."""
    return out if out.suffix.lower() == ".parquet" else out.with_suffix(".csv")


def _write(output: Output, model: "Model", name: Path, pictures: list[Path], out: Path, stage: int | None) -> None:
    from triscale.models import features

    with output.progress() as bar:
        task = bar.add_task("looking at pictures", total=None)
        found = features(model, pictures, stage=stage, progress=lambda n, of: bar.update(task, completed=n, total=of))
    if not found.paths:
        raise UserError(found.failed[0].error or "")
    if out.suffix.lower() == ".parquet":
        _write_all({out: _parquet(found)})
    else:
        _write_all({_paths_file(out): _csv(found), out: _npy(found)})
    count, width = found.values.shape
    values = {
        "features": str(out),
        "paths": str(_paths_file(out)),
        "images": count,
        "width": width,
        "failed": [{"path": str(guess.path), "error": guess.error} for guess in found.failed],
    }
    output.result(
        values,
        lambda console: console.print(
            f"{out}: {count:,} pictures, {width:,} features each; which row is which: {_paths_file(out)}"
        ),
    )
    following = ["triscale", "predict", *pictures, "--model", name]
    _end(output, list(found.failed), count + len(found.failed), following)


def _write_all(contents: dict[Path, str | bytes]) -> None:
    """All files or none: what is left of them would be in the way of the same command. Nothing lay there before."""
    begun = []
    try:
        for place, content in contents.items():
            begun.append(place)
            write_whole(place, content)
    except BaseException:
        for place in begun:
            with suppress(OSError):
                place.unlink(missing_ok=True)
        raise


def _npy(found: "Features") -> bytes:
    import numpy as np

    content = io.BytesIO()
    np.save(content, found.values, allow_pickle=False)
    return content.getvalue()


def _csv(found: "Features") -> str:
    text = io.StringIO()
    # Before Python 3.13 a carriage return alone is not quoted, and would then be read as an end of line.
    odd = any("\r" in str(path) for path in found.paths)
    rows = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    rows.writerow(["path"])
    rows.writerows([path] for path in found.paths)
    return text.getvalue()


def _parquet(found: "Features") -> bytes:
    """Columns `path` and `features`, a list of float32 of the same length in every row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.FixedSizeListArray.from_arrays(pa.array(found.values.ravel()), found.values.shape[1])
    content = io.BytesIO()
    pq.write_table(pa.table({"path": pa.array(list(map(str, found.paths))), "features": values}), content)
    return content.getvalue()
