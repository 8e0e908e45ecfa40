"""The whole paper in one run: a baseline searched, its coefficients measured, the network grown, trained and tested,
beside networks of the zoo at the same MACs.

The time that is asked is for the first three. The model and the page are there when they are done; the zoo comes after.
"""

import json
import math
import time as clock
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from triscale.arch import ZOO as NETWORKS
from triscale.arch import Architecture, adapt
from triscale.arch import resolve as resolve_network
from triscale.arch.resolve import FOUND, MODEL_FILE
from triscale.asking import check_same, check_seed, check_time
from triscale.costing import cost
from triscale.data import Data, check_apart, check_still_there, own_pixels, read
from triscale.errors import HopelessError, TooShortError, UserError
from triscale.evaluating import compare
from triscale.fitting.carrying import How
from triscale.fitting.fit import fit
from triscale.fitting.fitted import Fitted
from triscale.fitting.listening import Listener
from triscale.fitting.resume import resume
from triscale.plain import read_json
from triscale.reporting.card import card
from triscale.reporting.whole import write_whole_page
from triscale.runs import RunDirectory, write_whole
from triscale.runs.directory import ALL_STAGES, CARD, LAST_STAGE, SETTINGS
from triscale.scaling import RULES, Capped, Power, Rule, find_rule
from triscale.searching import SearchListener, resume_search, search_network
from triscale.searching.references import usual
from triscale.searching.writing import RESULT as SEARCHED
from triscale.studies import StudyListener, Wanted, resume_study, study
from triscale.studies.growing import roomy_resolution, slimmest
from triscale.studies.writing import BASELINE, COEFFICIENTS
from triscale.studies.writing import RESULT as STUDIED
from triscale.training.asking import check_training
from triscale.training.machine import find_device
from triscale.trials import LEDGER, Ledger
from triscale.units import format_count

WHOLE, SEARCH, STUDY, FIT, ZOO = ALL_STAGES, "search", "study", LAST_STAGE, "zoo"
BESIDE = ("efficientnet_b0", "mobilenet_v2", "resnet18")  # of the zoo, scaled to the same MACs
EACH = 1 - 0.05 / len(BESIDE)  # the confidence in each difference, so that all hold in 95 % (Bonferroni)
PAPER = RULES["compound"]  # where no coefficients were found
STUDIED_ALONE = "efficientnet_b0"  # where there is no search, and no baseline is named
MARGIN = 1.2  # of a time that was measured while others were measured, too
GROWTH = 4.0  # from the baseline to the budget: two steps of φ, the study's factor twice
SHARES: Mapping[str, float] = {SEARCH: 0.3, STUDY: 0.25, FIT: 0.45}  # of the time, as far as a stage is asked for


@dataclass(frozen=True)
class Whole:
    """What is asked of all stages. search, study: whether there is that stage. baseline: what the search lies around,
    or, without one, what is studied; None for what is usual."""

    macs: float
    time: float
    search: bool
    study: bool
    baseline: str | None = None
    seed: int = 0
    device: str | None = None
    on_bad: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not self.macs > 0:
            raise UserError(f"--macs {self.macs:g} is not positive; write for example 10M")
        check_time(self.time, "2h")
        check_seed(self.seed)
        if self.baseline is not None:
            resolve_network(self.baseline)
        check_training(self.device)


@dataclass(frozen=True)
class Listeners:
    """Who is told what the stages do."""

    search: SearchListener = field(default_factory=SearchListener)
    study: StudyListener = field(default_factory=StudyListener)
    fit: Listener = field(default_factory=Listener)
    stage: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, eq=False)
class Grown:
    """A finished run of all stages. fitted: the network that came out; values: what whole.json holds."""

    out: Path
    fitted: Fitted
    values: Mapping[str, Any]


def fit_whole(data: str | Path, asked: Whole, out: str | Path, listeners: Listeners | None = None) -> Grown:
    """All stages in a new directory: OUT/search, OUT/study, OUT/fit, OUT/zoo, and the model and the page in OUT itself.

    data: class folders, a manifest or IDX files. Raises `UserError` where something lies in OUT, and where the time is
    too short for a stage; what is finished is kept, and `resume_whole` goes on.
    """
    place = RunDirectory.check_free(out)
    check_apart(Path(data), place)
    listeners = listeners or Listeners()
    images = read(data, seed=asked.seed, on_bad=asked.on_bad, progress=listeners.fit.reading)  # says now what is wrong
    resolution = roomy_resolution(images, GROWTH)
    _check_reach(asked, images, resolution)
    place.mkdir(parents=True, exist_ok=True)
    values = {
        "triscale": version("triscale"),
        "asked": asdict(asked),
        "data": str(Path(data).resolve()),
        "pixels": list(own_pixels(images)),
        "seconds": {},
    }
    with RunDirectory(place).alone():
        return _Stages(place, Path(data), asked, values, listeners).go_through(resolution)


def _check_reach(asked: Whole, images: Data, resolution: tuple[int, int]) -> None:
    """Raises `UserError` where the stages would have no network to begin with: not even the smallest form of the
    baseline has as few MACs as are left to grow it from."""
    if asked.baseline is not None:
        named = resolve_network(asked.baseline)
    elif asked.search:
        named = usual("around", resolution)
    else:
        named = resolve_network(STUDIED_ALONE)
    # A study alone leaves a network of one's own its pixels.
    keeps = not asked.search and asked.baseline not in (None, *NETWORKS)
    first = adapt(
        named, resolution=None if keeps else resolution, channels=images.channels, classes=len(images.classes)
    )
    smallest = min(cost(first).macs, cost(slimmest(first)).macs)
    if smallest > asked.macs / GROWTH:
        height, width = first.resolution
        raise UserError(
            f"--macs {format_count(asked.macs)}: a baseline gets 1/{GROWTH:g} of it, to be grown from there, and the "
            f"smallest form of {first.name} at {height}×{width} pixels has {format_count(smallest)} MACs; give about "
            f"{format_count(GROWTH * smallest * 1.05)}, or a smaller --baseline"
        )


def resume_whole(
    out: str | Path,
    data: str | Path | None = None,
    listeners: Listeners | None = None,
    time: float | None = None,
    named: Mapping[str, Any] | None = None,
) -> Grown:
    """The run there, to its end. data: where its images are, if they have moved. time: seconds for all of it, where it
    is to be another. named: fields of `Whole` that somebody says once more. Raises `UserError` where there is no such
    run, where another process works on it, and where it was begun with something else than is named."""
    place = Path(out)
    values = read_json((place / WHOLE).read_bytes(), str(place / WHOLE))
    try:
        asked = Whole(**values["asked"])
        images = Path(data if data is not None else values["data"])
        values["seconds"] = {stage: float(values["seconds"][stage]) for stage in values["seconds"]}
        height, width = values["pixels"]
        values["pixels"] = [int(height), int(width)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place / WHOLE}: not a run that this version can go on with ({error!r})") from None
    check_same(named or {}, asdict(asked), {"device": find_device(asked.device).type}, place)
    if data is None:
        check_still_there(images, f"triscale fit DATA --resume --out {quote(str(place))}")
    if time is not None:
        asked = replace(asked, time=time)
        values["asked"] = asdict(asked)
    with RunDirectory(place).alone():
        return _Stages(place, images, asked, values, listeners or Listeners(), retimed=time is not None).go_through()


class _Stages:
    """A run in progress: every stage is a run of its own, done once, and gone on with where it was ended."""

    def __init__(
        self, out: Path, data: Path, asked: Whole, values: dict[str, Any], listeners: Listeners, retimed: bool = False
    ) -> None:
        """retimed: another time is asked for than the stages were begun with."""
        self.out, self.data, self.asked, self.values, self.listeners = out, data, asked, values, listeners
        self.retimed = retimed
        self.seconds: dict[str, float] = values["seconds"]

    def go_through(self, resolution: tuple[int, int] | None = None) -> Grown:
        """All that is not finished yet. resolution: of a baseline with pixels to gain, where the images were read."""
        self._count_sittings()
        self._write()
        baseline = self._searched(resolution) if self.asked.search else None
        rule = self._studied(baseline) if self.asked.study else None
        fitted = self._fitted(baseline, rule)
        self._took_at_least(FIT, fitted.seconds)
        write_whole(self.out / MODEL_FILE, fitted.run.model.read_bytes())
        write_whole(self.out / CARD, card(fitted.run))
        self._report(fitted, {})
        self._zoo(fitted)
        return Grown(self.out, fitted, self.values)

    def _report(self, fitted: Fitted, zoo: Mapping[str, Fitted]) -> None:
        """What there is so far; a run that is gone on with keeps the page that shows more until there is as much."""
        shown = self.values.get("result", {}).get("networks", ())
        if 1 + len(zoo) < len(shown):
            return
        self.values["result"] = self._result(fitted, zoo)
        self._write()
        searched, studied = self._of(SEARCH, SEARCHED), self._of(STUDY, STUDIED)
        to_come = [name for name in BESIDE if name not in zoo and name not in self.values.get("left_out", {})]
        write_whole_page(self.out / "report.html", self.values, searched, studied, to_come)

    def _searched(self, resolution: tuple[int, int] | None) -> Path:
        place, asked = self.out / SEARCH, self.asked
        if not (place / SEARCHED).is_file():
            with self._stage(SEARCH):
                if (place / SETTINGS).is_file():
                    time = self._time(SEARCH) if self.retimed else None
                    resume_search(place, data=self.data, time=time, listener=self.listeners.search)
                else:
                    if resolution is None:
                        images = read(self.data, seed=asked.seed, on_bad=asked.on_bad)
                        resolution = roomy_resolution(images, GROWTH)
                    search_network(
                        self.data,
                        out=place,
                        macs=asked.macs / GROWTH,
                        time=self._time(SEARCH),
                        reference=asked.baseline,
                        resolution=resolution,
                        seed=asked.seed,
                        device=asked.device,
                        on_bad=asked.on_bad,
                        listener=self.listeners.search,
                    )
        return place / FOUND

    def _studied(self, baseline: Path | None) -> Path | None:
        """The rule; None where the study could not fit a surface."""
        place, asked = self.out / STUDY, self.asked
        if not (place / STUDIED).is_file():
            with self._stage(STUDY):
                if (place / SETTINGS).is_file():
                    chosen = RunDirectory(place).settings().get("choice") is not None
                    changes = None if chosen and not self.retimed else Wanted(time=self._time(STUDY))
                    resume_study(place, data=self.data, changes=changes, listener=self.listeners.study)
                else:
                    study(
                        self.data,
                        out=place,
                        baseline=baseline or asked.baseline or STUDIED_ALONE,
                        macs=asked.macs / GROWTH,
                        time=self._time(STUDY),
                        seed=asked.seed,
                        device=asked.device,
                        on_bad=asked.on_bad,
                        listener=self.listeners.study,
                    )
        rule = place / COEFFICIENTS
        return rule if rule.is_file() else None

    def _fitted(self, baseline: Path | None, rule: Path | None) -> Fitted:
        studied = self.out / STUDY / BASELINE
        start = baseline or (studied if studied.is_file() else self.asked.baseline or STUDIED_ALONE)
        if self.retimed and (self.out / FIT / SETTINGS).is_file():
            self.listeners.fit.note("the training was planned before, and keeps its plan: --time does not change it")
        with self._stage(FIT):
            named = PAPER if isinstance(start, Path) else None  # from its own pixels, also without coefficients
            within = self._within_pixels(named if rule is None else find_rule(str(rule)), resolve_network(start))
            return self._run(self.out / FIT, start, rule=within, time=self._time(FIT))

    def _within_pixels(self, rule: Rule | None, baseline: Architecture) -> Rule | None:
        """The rule, up to the pixels that the images have: enlarging them shows a network nothing new, and no study
        from fewer pixels measured it."""
        if not isinstance(rule, Power):
            return rule
        shown = zip(self.values["pixels"], baseline.resolution, strict=True)
        return Capped(rule, max(1.0, min(own / used for own, used in shown)))

    def _zoo(self, fitted: Fitted) -> None:
        """Each for as many epochs as the network that was grown made in its time."""
        found, left_out = {}, self.values.setdefault("left_out", {})
        epochs = max(1, round(fitted.plan.recipe.epochs * fitted.steps / fitted.plan.steps))
        self.listeners.stage(ZOO)
        for name in BESIDE:
            try:
                with self._counted(ZOO):
                    found[name] = self._run(self.out / ZOO / name, name, epochs=epochs)
                self._took_at_least(ZOO, sum(one.seconds for one in found.values()))
                left_out.pop(name, None)
            except (UserError, HopelessError) as error:  # the model that was wanted is there without it
                left_out[name] = str(error)
                self.listeners.fit.note(f"{name} is left out of the comparison: {error}")
            self._report(fitted, found)

    def _run(
        self,
        place: Path,
        baseline: str | Path,
        *,
        rule: Rule | None = None,
        time: float | None = None,
        epochs: int | None = None,
    ) -> Fitted:
        """A fit at the budget in a directory of its own, begun or gone on with."""
        if (place / SETTINGS).is_file():
            fitted = resume(place, How(self.listeners.fit), self.data)
            assert fitted is not None  # alone, this process leads
            return fitted
        return fit(
            self.data,
            out=place,
            macs=self.asked.macs,
            baseline=baseline,
            seed=self.asked.seed,
            device=self.asked.device,
            on_bad=self.asked.on_bad,
            listener=self.listeners.fit,
            rule=rule,
            time=time,
            epochs=epochs,
        )

    def _time(self, stage: str) -> float:
        """A stage's share of what is left of the time, among those that are still to come."""
        spent, share = self._share(stage)
        return max(1.0, (self.asked.time - spent) * share)

    def _share(self, stage: str) -> tuple[float, float]:
        """Seconds that the stages before it took, and its part of the others'."""
        wanted = {SEARCH: self.asked.search, STUDY: self.asked.study, FIT: True}
        ahead = [one for one in SHARES if wanted[one]]
        ahead = ahead[ahead.index(stage) :]
        spent = sum(self.seconds.get(one, 0.0) for one in SHARES if one not in ahead)
        return spent, SHARES[stage] / sum(SHARES[one] for one in ahead)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """It is said to have begun, and its seconds are counted. A time that is too short for it is that of all
        stages."""
        self.listeners.stage(name)
        try:
            with self._counted(name):
                yield
        except TooShortError as error:
            spent, share = self._share(name)
            # This attempt was time, too; and the next one measures anew.
            needed = math.ceil(spent + self.seconds[name] + MARGIN * error.least / share)
            raise TooShortError(
                f"{error.what} of its share of the time",
                f"for all stages take --time {needed}s or more; a smaller --macs takes another --out",
                needed,
            ) from None

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Seconds of a stage, however it ends."""
        started = clock.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + clock.monotonic() - started
            self._write()

    def _count_sittings(self) -> None:
        """Of a search and a study also those that were killed, which came to no end that is counted here."""
        for stage in (SEARCH, STUDY):
            place = self.out / stage / LEDGER
            if place.is_file():
                # One that is no ledger is named by its stage, if that is not finished.
                with suppress(UserError), closing(Ledger(place, stage)) as ledger:
                    self._took_at_least(stage, sum(one.seconds for one in ledger.sittings()))

    def _took_at_least(self, stage: str, seconds: float) -> None:
        """As its own run knows of all its sittings."""
        self.seconds[stage] = max(self.seconds.get(stage, 0.0), seconds)

    def _write(self) -> None:
        write_whole(self.out / WHOLE, json.dumps(self.values, indent=1) + "\n")

    def _of(self, stage: str, name: str) -> Mapping[str, Any] | None:
        place = self.out / stage / name
        found: Mapping[str, Any] | None = read_json(place.read_bytes(), str(place)) if place.is_file() else None
        return found

    def _result(self, fitted: Fitted, zoo: Mapping[str, Fitted]) -> dict[str, Any]:
        rows = [_row("grown", fitted, None)]
        for name, one in zoo.items():
            found = compare(fitted.run.path, one.run.path).difference
            low, high = found.interval(EACH)
            # Not -found.value: of none, that is -0.0, and people would see its sign.
            rows.append(_row(name, one, [0.0 - found.value, 0.0 - high, 0.0 - low]))
        return {"networks": rows, "epochs": fitted.plan.recipe.epochs * fitted.steps / fitted.plan.steps}


def _row(name: str, fitted: Fitted, apart: list[float] | None) -> dict[str, Any]:
    """A network: its test accuracy with its 95 % interval. apart: its paired difference to the grown one,
    and the bounds, which hold for all networks of the zoo at once."""
    top, total = fitted.test.top(), fitted.plan.scaled.cost
    return {
        "name": name,
        "architecture": fitted.plan.architecture.name,
        "resolution": list(fitted.plan.architecture.resolution),
        "test": [top.value, *top.interval()],
        "images": top.n,
        "macs": total.macs,
        "params": total.params,
        "latency": fitted.latency.median,
        "seconds": fitted.seconds,
        "steps": fitted.steps,
        "apart": apart,
    }
