"""The verb `search` for networks: begins a search on images, or goes on with one."""

import time as clock
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import torch

from triscale.arch import Architecture
from triscale.arch.resolve import sides
from triscale.asking import check_count, check_same
from triscale.data import Data, check_apart, read, read_again
from triscale.plain import from_plain
from triscale.runs import RunDirectory
from triscale.scaling.budget import limits_of
from triscale.searching.asked import Asked, by_term, check_extent
from triscale.searching.calibrating import FACTOR, calibrate, family
from triscale.searching.costs import Costs
from triscale.searching.halving import Search
from triscale.searching.listening import SearchListener
from triscale.searching.preparing import prepare_search
from triscale.searching.setup import Setup
from triscale.searching.space import Codes
from triscale.searching.strategies import find_strategy
from triscale.searching.writing import Searched, others, write_page, write_search
from triscale.training import find_recipe
from triscale.training.machine import find_device
from triscale.trials import Ended, Executor, Ledger, Progress, Timer, run_asked, time_values
from triscale.trials.beginning import begin_run, begun_by, opened
from triscale.trials.carriers import carriers, make_executor
from triscale.trials.paging import Paging
from triscale.units import format_seconds


def search_network(
    data: str | Path,
    *,
    out: str | Path,
    macs: float | None = None,
    params: float | None = None,
    activations: float | None = None,
    size: float | None = None,
    latency: float | None = None,
    memory: float | None = None,
    time: float | None = None,
    candidates: int | None = None,
    reference: str | Path | Architecture | None = None,
    space: str | Path = "around",
    objective: str = "constraint",
    exponent: float | None = None,
    calibrate: bool = False,
    strategy: str = "evolution",
    images: int | None = None,
    epochs: int | None = None,
    resolution: int | tuple[int, int] | None = None,
    recipe: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: str | None = None,
    cluster: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
    beside: Sequence[Path] = (),
    listener: SearchListener | None = None,
) -> Searched:
    """A baseline found on images, under limits: candidates from the space around a reference are trained in three rungs
    of successive halving, the best five and the reference with three seeds, and the best of those is named.

    data: class folders, a manifest or IDX files. out: a new or empty directory. macs, params, activations, size,
    latency, memory: the limits, at least one; see `fit`. time: seconds for all of it; candidates: how many are tried;
    one of both. reference: what the space lies around, scaled to the limits. space: one of `SPACES` or a JSON file.
    objective: one of `KINDS`; exponent: its w, the paper's by default; calibrate: w is
    measured. strategy: one of `STRATEGIES`. images, epochs: of a full training.
    cluster: the address of a Ray cluster, "" for one that is begun here. beside: other searches for the page. Test
    images are never looked at. Trials run in processes of their own: a script calls this under
    ``if __name__ == "__main__":``. Raises `UserError` for what was asked wrongly, `TriscaleError` where a trial fails:
    what is finished is kept, and `resume_search` goes on. `HopelessError` where that would end in the same way, as it
    does where the space has no network within the limits.
    """
    asked = Asked(
        limits=limits_of(macs=macs, params=params, activations=activations, size=size, latency=latency, memory=memory),
        reference=reference,
        space=space,
        objective=objective,
        exponent=exponent,
        calibrate=calibrate,
        strategy=strategy,
        time=time,
        candidates=candidates,
        images=images,
        epochs=epochs,
        resolution=sides(resolution),
        recipe=None if recipe is None else find_recipe(recipe),
        seed=seed,
        workers=workers,
        device=device,
        cluster=cluster,
        on_bad=on_bad,
        beside=tuple(beside),
    )
    return begin_search(data, asked, out, listener)


def begin_search(data: str | Path, asked: Asked, out: str | Path, listener: SearchListener | None = None) -> Searched:
    """The same for everything that is asked as one value."""
    listener, started = listener or SearchListener(), clock.monotonic()
    asked.check_enough()
    check_apart(Path(data), RunDirectory.check_free(out))
    asked.fixed()
    others(asked.beside, out)  # says now what is none
    images = read(data, seed=asked.seed, on_bad=asked.on_bad, progress=listener.reading)
    listener.read(images)
    device = find_device(asked.device)
    with carriers(untested(images), asked.workers, asked.cluster, device) as (pool, keep):
        listener.measuring()
        setup = prepare_search(images, asked, pool, keep, device, started)
        if asked.calibrate:
            family(setup)  # says now what cannot be
        frozen = {"asked": asked.fixed(), "setup": setup.to_json(), "finalists": None}
        run, settings = begin_run(out, images, asked.on_bad, frozen)
        listener.planned(setup, run)
        with opened(run, "search") as ledger:
            return _Sitting(run, settings, setup, ledger, pool, listener, started).go_through()


def resume_search(
    out: str | Path,
    *,
    data: str | Path | None = None,
    time: float | None = None,
    candidates: int | None = None,
    named: Mapping[str, Any] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    beside: Sequence[Path] = (),
    listener: SearchListener | None = None,
) -> Searched:
    """The search there, to its end: no trial that is in its ledger is done again.

    data: where its images are, if they have moved. time, candidates: where they are to be others, of the whole search:
    it is extended, by what is named alone. named: of what all trials share, that which somebody says once more
    (`Asked.named`). beside: other searches that its page shows. Raises `UserError` where there is no search, where
    another process works on it, where the images are others, or where what all trials share is named as something else.
    """
    check_count("workers", workers)
    started = clock.monotonic()  # reading counts
    listener, run = listener or SearchListener(), RunDirectory.open(out)
    settings, source = begun_by("search", run), f"{run.path}/run.json"
    setup = Setup.from_json(settings.get("setup", {}), source)
    in_effect: dict[str, Any] = {
        "images": setup.images,
        "epochs": setup.top,
        "resolution": list(setup.reference.resolution),
        "device": torch.device(setup.how.device).type,
    }
    check_same(named or {}, by_term(settings["asked"]), in_effect, run.path, because=", and all trials share it")
    _finalists(settings, source)  # says now what is none
    if time is not None or candidates is not None:
        check_extent(time, candidates)
        # Of the two, one that is not named any more no longer holds: it would end what the other one extends.
        setup = replace(setup, time=time, candidates=candidates)
        settings |= {"finalists": None, "used_up": False}
    if beside:
        others(beside, out)
        setup = replace(setup, beside=tuple(str(path.resolve()) for path in beside))
    again = f"triscale search DATA --resume --out {quote(str(run.path))}"
    images = read_again(
        settings.get("data"), source, seed=setup.seed, place=data, progress=listener.reading, again=again
    )
    with opened(run, "search") as ledger:
        settings |= {"setup": setup.to_json()}
        run.write_settings(settings)
        count = workers or setup.workers
        with closing(make_executor(untested(images), count, setup.how.threads, cluster, most=workers)) as pool:
            listener.planned(replace(setup, workers=pool.slots), run)
            spent = sum(one.seconds for one in ledger.sittings())
            if time is not None and time <= spent:
                took = f"the search has taken {format_seconds(spent)} already"
                listener.note(
                    f"--time {format_seconds(time)}: {took}, and --time is that of all sittings: none is left"
                )
            return _Sitting(run, settings, setup, ledger, pool, listener, started).go_through()


def _finalists(settings: Mapping[str, Any], source: str) -> tuple[Codes, ...] | None:
    """Those that were chosen, if they were. Raises `UserError`."""
    found = settings.get("finalists")
    return None if found is None else from_plain(tuple[Codes, ...], found, source, "finalists")


def untested(images: Data) -> Data:
    """The same without its test images: a search that cannot see them cannot choose by them."""
    return replace(images, test=images.test.select([]))


@dataclass(eq=False)
class _Sitting:
    """A search in progress, and who carries its trials out and who is told."""

    run: RunDirectory
    settings: dict[str, Any]
    setup: Setup
    ledger: Ledger
    pool: Executor
    listener: SearchListener
    started: float
    timer: Timer = field(init=False)
    paging: Paging = field(default_factory=Paging)

    def go_through(self) -> Searched:
        """To the end, from wherever the ledger stands."""
        self.ledger.requeue()
        self.timer = Timer(self.ledger, self.pool.slots, self.started)
        with self.timer.working():
            search = self._search()
        self.timer.keep()
        spent = self.ledger.sittings()
        trials, trained = sum(one.trials for one in spent), sum(one.fresh for one in spent)
        return write_search(self.run, search, time_values(spent, trials, trained))

    def _search(self) -> Search:
        self._calibrate()
        told = [_as_reference(row) for row in self.ledger.ended() if row.parameters.get(FACTOR, 1.0) == 1.0]
        device = torch.device(self.setup.how.device)
        costs = Costs(self.setup.objective, self.setup.reference, device, self.setup.quiet)
        search = Search(
            self.setup,
            find_strategy(self.setup.strategy),
            costs,
            self._left,
            lambda: self.pool.slots,
            lambda chosen: self._choose(chosen, used_up=search.used_up),
        )
        search.calibrated = self.settings.get("calibrated")
        search.restore(told, _finalists(self.settings, f"{self.run.path}/run.json"))
        search.used_up = search.finalists is not None and bool(self.settings.get("used_up"))

        def heard(progress: Progress) -> None:
            self.timer.tick()
            self.listener.progress(progress, search.standing)
            if self.paging.due(len(search.ends)):
                with self.paging.making(len(search.ends)):
                    write_page(self.run, search)

        run_asked(self.ledger, self.pool, search, heard)
        if search.used_up:
            self.listener.note(
                f"no further network of the space was found within the limits: {len(search.candidates)} were tried; "
                "--resume with --time or --candidates looks once more, and another --space or --reference has others"
            )
        return search

    def _calibrate(self) -> None:
        """Where it is asked for: w by measurement, frozen before the first candidate."""
        if not self.settings["asked"].get("calibrate") or self.settings.get("calibrated") is not None:
            return

        def heard(progress: Progress) -> None:
            self.timer.tick()
            self.listener.calibrating(progress)

        found = calibrate(self.setup, self.ledger, self.pool, heard)
        objective = replace(self.setup.objective, exponent=max(-10.0, min(0.0, found.exponent)))
        self.setup = replace(self.setup, objective=objective)
        self.settings |= {"calibrated": found.to_json(), "setup": self.setup.to_json()}
        self.run.write_settings(self.settings)
        self.listener.calibrated(found)

    def _left(self) -> float:
        """Seconds of the asked time, which is that of all sittings."""
        if self.setup.time is None:
            return float("inf")
        return 0.95 * self.setup.time - self.timer.earlier - (clock.monotonic() - self.started)

    def _choose(self, finalists: Sequence[Codes], *, used_up: bool) -> None:
        self.settings |= {"finalists": [list(codes) for codes in finalists], "used_up": used_up}
        self.run.write_settings(self.settings)


def _as_reference(row: Ended) -> Ended:
    """A trial of the calibration at the limit itself is one of the reference, and counts as its final run."""
    return replace(row, parameters={name: value for name, value in row.parameters.items() if name != FACTOR})
