"""The verb `study`: begins one, or goes on with one, with whatever carries its trials out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from triscale.data import Data, check_apart, read, read_again
from triscale.errors import UserError
from triscale.runs import RunDirectory
from triscale.studies.asked import Asked, check_same
from triscale.studies.choosing import usable_cores
from triscale.studies.listening import StudyListener
from triscale.studies.preparing import prepare_study
from triscale.studies.setup import Setup
from triscale.studies.study import Sitting, Studied, begin, go_through, opened
from triscale.training.machine import find_device
from triscale.trials import Executor, Workers


def study(data: str | Path, asked: Asked, *, out: str | Path, listener: StudyListener | None = None) -> Studied:
    """How depth, width and resolution pay off for a network on images: trains the arms of a design at equal cost, with
    seeds that all share, and says which mix is best, how sure that is, and what it cannot tell.

    data: class folders, a manifest or IDX files. asked: the baseline, the factor, the time, the design. out: a new or
    empty directory. Trials run in processes of their own: a script that calls this does so under
    ``if __name__ == "__main__":``. Raises `UserError` for what was asked wrongly, and where the time is too short for
    five arms and three seeds; `TriscaleError` where a trial fails. What is finished is kept either way.
    """
    listener = listener or StudyListener()
    check_apart(Path(data), RunDirectory.check_free(out))
    asked.fixed()
    images = read(data, seed=asked.seed, on_bad=asked.on_bad, progress=listener.reading)
    listener.read(images)
    device = find_device(asked.device)
    with _pool(images, asked, device) as (pool, keep):
        listener.measuring()
        setup = prepare_study(images, asked, pool, keep, device)
        run = RunDirectory.create(out)
        with run.alone():
            if run.begun():
                raise UserError(f"--out {out}: another process began this run meanwhile; name another directory")
            settings = begin(run, images, setup, asked)
        listener.planned(setup, run)
        with opened(run) as ledger:
            return go_through(Sitting(run, settings, setup, ledger, pool, listener), asked)


def resume(
    out: str | Path,
    *,
    data: str | Path | None = None,
    asked: Asked | None = None,
    given: frozenset[str] = frozenset(),
    workers: int | None = None,
    cluster: str | None = None,
    listener: StudyListener | None = None,
) -> Studied:
    """The study there, to its end: no trial that is in its ledger is done again.

    data: where its images are, if they have moved. asked: where the design, its seeds or the time are to be others:
    the study is extended, finished trials count; the time is that of the whole study. given: which of its fields were
    said, not taken by default. Raises `UserError` where there is no study, where another process works on it, where the
    images are others, or where what all trials share is asked to be something else.
    """
    listener, run = listener or StudyListener(), RunDirectory.open(out)
    settings, source = run.settings(), f"{run.path}/run.json"
    before = settings.get("asked", {})
    if before.get("verb") != "study":
        raise UserError(f"{run.path}: is no study; go on with it by triscale fit --resume or triscale train --resume")
    if asked is not None:
        check_same(asked, before, given, run.path)
    setup = Setup.from_json(settings["setup"], source)
    images = read_again(settings.get("data"), source, seed=setup.seed, place=data, progress=listener.reading)
    count = setup.workers if workers is None else workers
    with opened(run) as ledger:
        pool = make_executor(images, count, setup.how.threads, cluster)
        try:
            listener.planned(setup, run)
            anew = None if settings["choice"] is not None and asked is None else asked
            if anew is None and settings["choice"] is None:
                raise UserError(f"{run.path}: was ended before its design was chosen; say --time, or --seeds")
            return go_through(Sitting(run, settings, setup, ledger, pool, listener), anew)
        finally:
            pool.close()


@contextmanager
def _pool(images: Data, asked: Asked, device: torch.device) -> Iterator[tuple[Executor, Callable[[int], None]]]:
    """Who carries the trials out, and how it is left fewer places."""
    cores = 1 if device.type == "cuda" else usable_cores()
    count = asked.workers or cores
    pool = make_executor(images, count, 1, asked.cluster)

    def keep(wanted: int) -> None:
        if isinstance(pool, Workers) and asked.workers is None:
            pool.keep(wanted)

    try:
        yield pool, keep
    finally:
        pool.close()


def make_executor(images: Data, count: int, threads: int, cluster: str | None) -> Executor:
    """Processes of this machine, or a Ray cluster at an address."""
    if cluster is None:
        return Workers(images, count)
    raise UserError("--executor ray: not yet")
