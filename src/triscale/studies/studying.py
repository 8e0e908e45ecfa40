"""The verb `study`: begins one, or goes on with one, with whatever carries its trials out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import Any, Literal

import torch

from triscale.arch import Architecture
from triscale.arch.resolve import sides
from triscale.asking import check_count, check_same
from triscale.data import check_apart, read, read_again
from triscale.errors import TooShortError, UserError
from triscale.plain import from_plain, to_plain
from triscale.runs import RunDirectory
from triscale.studies.asked import Asked
from triscale.studies.designs import Design
from triscale.studies.listening import StudyListener
from triscale.studies.preparing import prepare_study
from triscale.studies.setup import Choice, Setup
from triscale.studies.study import Sitting, Studied, go_through
from triscale.studies.wanted import Wanted, make_designs
from triscale.studies.writing import write_study
from triscale.training import find_recipe
from triscale.training.machine import find_device
from triscale.trials.beginning import begin_run, begun_by, opened
from triscale.trials.carriers import carriers, make_executor


def study(
    data: str | Path,
    *,
    out: str | Path,
    baseline: str | Path | Architecture = "efficientnet_b0",
    factor: float = 2.0,
    time: float | None = None,
    design: str | Path | Design | None = None,
    arms: Sequence[Path] = (),
    seeds: int | None = None,
    again: bool | None = None,
    images: int | None = None,
    epochs: int | None = None,
    macs: float | None = None,
    resolution: int | tuple[int, int] | None = None,
    recipe: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: str | None = None,
    cluster: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
    listener: StudyListener | None = None,
) -> Studied:
    """How depth, width and resolution pay off for a network on images: trains the arms of a design at equal cost, with
    seeds that all share, and says which mix is best, how sure that is, and what it cannot tell.

    data: class folders, a manifest or IDX files. out: a new or empty directory. factor: times the baseline's MACs that
    every arm costs. time: seconds for all of it, which decide what is not said. design: one of `DESIGNS` or a JSON
    file; arms: JSON files of more. again: the best arms at the squared factor too. images, epochs: of a trial. macs: of
    the baseline. cluster: the address of a Ray cluster, "" for one that is begun here. Trials run in processes of their
    own: a script calls this under ``if __name__ == "__main__":``. Raises `UserError` for what was asked wrongly, and
    where the time is too short for five arms and three seeds; `TriscaleError` where a trial fails. What is finished is
    kept either way; `resume_study` goes on.
    """
    named, more = make_designs(design, arms)
    asked = Asked(
        baseline=baseline,
        wanted=Wanted(time, named, more, seeds, again),
        factor=factor,
        images=images,
        epochs=epochs,
        macs=macs,
        resolution=sides(resolution),
        recipe=None if recipe is None else find_recipe(recipe),
        seed=seed,
        workers=workers,
        device=device,
        cluster=cluster,
        on_bad=on_bad,
    )
    return begin_study(data, asked, out, listener)


def begin_study(data: str | Path, asked: Asked, out: str | Path, listener: StudyListener | None = None) -> Studied:
    """The same for everything that is asked as one value."""
    listener, started = listener or StudyListener(), monotonic()
    asked.check_enough()
    check_apart(Path(data), RunDirectory.check_free(out))
    asked.fixed()
    images = read(data, seed=asked.seed, on_bad=asked.on_bad, progress=listener.reading)
    listener.read(images)
    device = find_device(asked.device)
    with carriers(images, asked.workers, asked.cluster, device) as (pool, keep):
        listener.measuring()
        setup = prepare_study(images, asked, pool, keep, device, started)
        frozen = {"asked": asked.fixed(), "wanted": to_plain(asked.wanted), "setup": setup.to_json()}
        run, settings = begin_run(out, images, asked.on_bad, {**frozen, "choice": None, "again": None})
        listener.planned(setup, run)
        with opened(run, "study") as ledger:
            return write_study(
                go_through(Sitting(run, settings, setup, ledger, pool, listener, started=started), asked.wanted)
            )


def resume_study(
    out: str | Path,
    *,
    data: str | Path | None = None,
    changes: Wanted | None = None,
    named: Mapping[str, Any] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    listener: StudyListener | None = None,
) -> Studied:
    """The study there, to its end: no trial that is in its ledger is done again.

    data: where its images are, if they have moved. changes: where the design, its seeds or the time are to be others:
    the study is extended, finished trials count. named: of what all trials share, that which somebody says once
    more (`Asked.named`). Raises `UserError` where there is no study, where another process works on it,
    where the images are others, or where what all trials share is named as something else.
    """
    check_count("workers", workers)
    started = monotonic()  # reading counts
    listener, run = listener or StudyListener(), RunDirectory.open(out)
    settings, source = begun_by("study", run), f"{run.path}/run.json"
    setup = Setup.from_json(settings.get("setup", {}), source)
    in_effect: dict[str, Any] = {
        "images": setup.fidelity.images,
        "epochs": setup.fidelity.epochs,
        "resolution": list(setup.baseline.resolution),
        "device": torch.device(setup.how.device).type,
    }
    check_same(named or {}, settings["asked"], in_effect, run.path, because=", and all trials share it")
    wished = from_plain(Wanted, settings.get("wanted", {}), source, "wanted")
    wanted = _wanted(settings, wished, changes, source)
    if wanted is not None:
        _ = wanted.rungs  # says now what does not go together
    again = f"triscale study DATA --resume --out {quote(str(run.path))}"
    images = read_again(
        settings.get("data"), source, seed=setup.seed, place=data, progress=listener.reading, again=again
    )
    with (
        opened(run, "study") as ledger,
        closing(make_executor(images, workers or setup.workers, setup.how.threads, cluster, most=workers)) as pool,
    ):
        listener.planned(setup, run)
        sitting = Sitting(run, settings, setup, ledger, pool, listener, started=started)
        with _wishing(sitting, wished, changes):
            return write_study(go_through(sitting, wanted))


@contextmanager
def _wishing(sitting: Sitting, before: Wanted, changes: Wanted | None) -> Iterator[None]:
    """What is wished for from now on is kept with the choice, and before there is one at once, for it may take long to
    come to it. A time that is refused changes nothing."""
    sitting.wished = before if changes is None else before.changed(changes)
    waits = sitting.settings.get("choice") is None
    if waits:
        sitting.freeze(wanted=to_plain(sitting.wished))
    try:
        yield
    except TooShortError:
        if waits:
            sitting.freeze(wanted=to_plain(before))
        raise


def _wanted(settings: Mapping[str, Any], wished: Wanted, changes: Wanted | None, source: str) -> Wanted | None:
    """What decides the choice where it is still to be made, or is to be made anew; None where it stands. What is not
    named stays: as it was asked for; or, where no time is named, as it was chosen by the time."""
    if settings.get("choice") is None:
        found = wished if changes is None else wished.changed(changes)
        if found.time is None and found.seeds is None:
            raise UserError(f"{source}: its design is not chosen yet, and it does not say by what; give it a --time")
        return found
    if changes is None:
        return None
    if changes.time is not None:
        return wished.changed(changes)
    choice = Choice.from_json(settings["choice"], source)
    return Wanted(design=choice.design, seeds=choice.seeds, again=choice.twice).changed(changes)
