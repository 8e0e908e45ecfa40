"""A search in progress: which trial is next. Successive halving in three rungs (Li et al. 2018, asynchronous: of what
ended in a rung the best third goes on to the next), then the best five with three seeds more.

Everything follows from the ledger: a search that was killed is rebuilt from it and goes on.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from statistics import fmean
from time import monotonic
from typing import Any, TypeGuard

from triscale.arch import Architecture
from triscale.errors import HopelessError
from triscale.searching.costs import Costs
from triscale.searching.networks import plainest
from triscale.searching.setup import REFERENCE, Setup
from triscale.searching.space import Codes
from triscale.searching.strategies import Known, Scored, Strategy, fresh
from triscale.trials import Cause, Ended, Entry, Failure, Outcome
from triscale.trials.pace import makespan

ETA = 3  # one of so many goes on to the next rung
FINALISTS, SEEDS = 5, 3
FINAL = range(1, 1 + SEEDS)  # seeds of the final runs: by the first one, 0, the finalists were chosen
FEWEST = 8  # candidates of a search: fewer are no search
PATIENCE = 10.0  # seconds in which one more candidate is looked for although the time is over
LOOKS = 200  # networks whose latency or memory is measured, at most, to find one that is within the limits
SPREAD = 1.15  # trials of one kind differ; the last ones decide when a search ends

Run = tuple[int, int]
"""Epochs and the position of the seed."""


@dataclass(eq=False)
class Candidate:
    """A network that was tried, and what came out so far. costs: by term."""

    codes: Codes | None
    network: Architecture
    costs: Mapping[str, float]
    order: int
    outcomes: dict[Run, Outcome] = field(default_factory=dict)
    failed: str = ""  # why, where one of its trainings did

    @property
    def label(self) -> str:
        """As people see it."""
        return REFERENCE if self.codes is None else f"candidate {self.order}"

    def rung(self, rungs: Sequence[int]) -> int:
        """The highest rung that it ended; -1 before the first."""
        return max((place for place, epochs in enumerate(rungs) if (epochs, 0) in self.outcomes), default=-1)


@dataclass(frozen=True)
class Standing:
    """Where a search stands. tried: candidates that ended the first rung. rungs: how many ended each. best: the one
    that leads, with its worth and its epochs. last: the final runs are being made. share: of all the work that is
    done; left: seconds; None where nobody can know."""

    tried: int
    rungs: tuple[int, ...]
    best: tuple[str, float, int] | None
    last: bool
    share: float = 0.0
    left: float | None = None


class Search:
    """See the module. `next` and `ended` are what `trials.run_asked` calls."""

    def __init__(
        self,
        setup: Setup,
        strategy: Strategy,
        costs: Costs,
        left: Callable[[], float],
        slots: Callable[[], int],
        choose: Callable[[Sequence[Codes]], None],
    ) -> None:
        """left: seconds until the asked time is over; infinite without one. slots: trials at once as it stands, which
        are not always those that the setup was made with, in another sitting or on a cluster. choose: told the
        finalists, once. used_up: whether it ended with time left, for nothing else was found within the limits."""
        self.setup, self.strategy, self.costs = setup, strategy, costs
        self._left, self._choose, self.slots = left, choose, slots
        self.candidates: dict[Codes, Candidate] = {}
        reference = setup.entry(None, setup.top, 0, REFERENCE).trial.architecture
        self.reference = Candidate(None, reference, costs.of(reference), -1)
        self.networks = {plainest(reference): self.reference}
        self.ends: list[tuple[Candidate, Run]] = []
        self._tried: list[Candidate] = []  # in the order in which their first rungs ended, or failed
        self.finalists: list[Candidate] | None = None
        self.calibrated: Mapping[str, Any] | None = None
        self._begun: set[tuple[Codes | None, Run]] = set()
        self._again: list[tuple[Candidate, Run]] = []
        self._expected = self._took = 0.0
        self._exhausted = self.used_up = False

    def restore(self, told: Sequence[Ended], finalists: Sequence[Codes] | None) -> None:
        """What the ledger says; what came to nothing is done before anything else, unless it would fail again."""
        for row in sorted(told, key=lambda row: row.number):  # counted as they were begun, not as they ended
            self._candidate(self.setup.codes(row.parameters), self.setup.measured(row.parameters))
        for row in told:
            candidate = self._of(self.setup.codes(row.parameters))
            run = int(row.parameters["epochs"]), int(row.parameters["seed"])
            if isinstance(row.came, Outcome):
                self._learn(candidate, run, row.came)
            elif _hopeless(row.came):
                if candidate is not self.reference:  # that is tried once more, when its turn comes
                    self._fail(candidate, row.came.why)
            elif run not in candidate.outcomes and (candidate, run) not in self._again:
                self._again.append((candidate, run))
        self._again = [(one, run) for one, run in self._again if not one.failed and run not in one.outcomes]
        self._begun |= {(candidate.codes, run) for candidate, run in self._again}
        # Finalists that the ledger does not know are of another one: they are chosen again.
        if finalists is not None and all(codes in self.candidates for codes in finalists):
            self.finalists = [self._of(codes) for codes in finalists]

    def next(self) -> tuple[Entry, float] | None:
        """See `trials.Asking`."""
        if self._again:
            return self._asked(*self._again.pop(0))
        if self.finalists is None:
            if self._time_for_more():
                found = self._promoted() or self._new()
                if found is not None:
                    return self._asked(*found)
                if self._runs():
                    return None  # what runs may be promoted yet
            if len(self._leading()) < FINALISTS and self._runs():
                return None  # they are chosen once enough have ended
            self.finalists = self._leading()
            self._choose([one.codes for one in self.finalists if one.codes is not None])
        missing = next((run for run in self._final_runs(self.finalists) if self._key(run) not in self._begun), None)
        return None if missing is None else self._asked(*missing)

    def failed(self, entry: Entry, why: str) -> bool:
        """See `trials.Asking`: a candidate that cannot be trained is worth nothing. Somebody has to be left who may
        win: without a finalist the reference, without the reference a finalist."""
        candidate = self._of(self.setup.codes(entry.parameters))
        able = [one for one in (*self.judged, self.reference) if one is not candidate and not one.failed]
        if self.finalists is not None and not able:
            return False
        self._fail(candidate, why)
        return True

    def _fail(self, candidate: Candidate, why: str) -> None:
        candidate.failed = why
        if candidate.codes is not None and candidate not in self._tried:
            self._tried.append(candidate)

    def _runs(self) -> bool:
        """Whether something that was asked for has not ended."""
        begun = ((self._of(codes), run) for codes, run in self._begun)
        return any(run not in one.outcomes and not one.failed for one, run in begun)

    def ended(self, entry: Entry, outcome: Outcome) -> None:
        """See `trials.Asking`."""
        candidate = self._of(self.setup.codes(entry.parameters))
        self._learn(candidate, (int(entry.parameters["epochs"]), int(entry.parameters["seed"])), outcome)

    def _learn(self, candidate: Candidate, run: Run, outcome: Outcome) -> None:
        candidate.outcomes[run] = outcome
        if run == (self.setup.rungs[0], 0) and candidate.codes is not None:
            self._tried.append(candidate)
        self.ends.append((candidate, run))
        self._begun.add((candidate.codes, run))
        self._took += outcome.seconds
        self._expected += self.setup.seconds(candidate.network, run[0])

    def _asked(self, candidate: Candidate, run: Run) -> tuple[Entry, float]:
        self._begun.add((candidate.codes, run))
        entry = self.setup.entry(candidate.codes, *run, candidate.label, candidate.costs)
        return entry, self.setup.seconds(candidate.network, run[0])

    def _promoted(self) -> tuple[Candidate, Run] | None:
        """Of the best third of what ended a rung the best that is not in the next; the highest rung first."""
        rungs = self.setup.rungs
        for low, high in reversed(list(pairwise(rungs))):
            ended = sorted(
                (one for one in self.candidates.values() if (low, 0) in one.outcomes and not one.failed),
                key=lambda one: (-self.value(one, (low, 0)), one.order),
            )
            for one in ended[: len(ended) // ETA]:
                if (one.codes, (high, 0)) not in self._begun:
                    return one, (high, 0)
        return None

    def _new(self) -> tuple[Candidate, Run] | None:
        """A candidate that nobody tried; the n-th draws by the n-th random numbers, whoever asks for it."""
        limit = self.setup.candidates
        if self._exhausted or (limit is not None and len(self.candidates) >= limit):
            return None
        rng = Random(f"{self.setup.seed}:{len(self.candidates)}")
        most, begun = self.costs.looks + LOOKS, monotonic()

        def stopped() -> bool:
            return self.costs.looks >= most or (self._left() <= 0 and monotonic() - begun > PATIENCE)

        def start() -> Codes | None:
            return self.setup.space.nearest(self.setup.reference)

        codes = fresh(self.strategy, self.setup.space.space, self.known(), rng, self.admissible, stopped, start)
        if codes is None:
            if not self.candidates:
                low, high = self.setup.objective.band
                raise HopelessError(  # what all trials share stands: going on with it would draw the same
                    f"no network of the space was found that uses {low:.0%} to {high:.0%} of the limits; begin another "
                    "search, in another --out, with another --reference or --space, or another limit"
                )
            self._exhausted, self.used_up = True, self._left() > 0
            return None
        return self._candidate(codes), (self.setup.rungs[0], 0)

    def admissible(self, codes: Codes) -> bool:
        """Whether a point may be a candidate: a new network, and within the limits."""
        if codes in self.candidates:
            return False
        # Regularisation, which costs nothing that is counted or measured, would take longer than all the rest here.
        if self.costs.admitted(self.setup.space.network(codes)) is None:
            return False
        return plainest(self.setup.network(codes)) not in self.networks

    def _candidate(self, codes: Codes | None, measured: Mapping[str, float] | None = None) -> Candidate:
        """measured: its costs that were measured in an earlier sitting; another measurement would be another number."""
        if codes is None:
            return self.reference
        if codes not in self.candidates:
            network, bare = self.setup.network(codes), self.setup.space.network(codes)  # which `admissible` measured
            costs = self.costs.admitted(bare) if measured is None else self.costs.known(network, measured)
            made = Candidate(codes, network, costs or self.costs.of(network), len(self.candidates))
            self.candidates[codes] = self.networks[plainest(network)] = made
        return self.candidates[codes]

    def _of(self, codes: Codes | None) -> Candidate:
        return self.reference if codes is None else self.candidates[codes]

    def known(self) -> Known:
        """What the strategy is told. A candidate that went on is worth what it reached, less what the step to those
        epochs brought on average to all that made it: so all values are those of the first rung."""
        gains, rungs = self._gains(), self.setup.rungs
        seen: list[Scored] = []
        for candidate in self._tried:
            assert candidate.codes is not None
            rung, value = candidate.rung(rungs), -math.inf
            if rung >= 0:
                value = self.value(candidate, (rungs[rung], 0)) - sum(gains[:rung])
            seen.append(Scored(candidate.codes, value))
        done = {scored.codes for scored in seen}
        return Known(seen, [codes for codes in self.candidates if codes not in done])

    def _gains(self) -> list[float]:
        rungs = self.setup.rungs
        found = []
        for low, high in pairwise(rungs):
            both = [one for one in self.candidates.values() if (high, 0) in one.outcomes and (low, 0) in one.outcomes]
            found.append(fmean(self.value(o, (high, 0)) - self.value(o, (low, 0)) for o in both) if both else 0.0)
        return found

    def value(self, candidate: Candidate, run: Run) -> float:
        """What a run says the candidate is worth."""
        return self.setup.objective.value(candidate.outcomes[run].selection, candidate.costs)

    def _leading(self) -> list[Candidate]:
        """The best five by the highest rung that each ended."""
        rungs = self.setup.rungs
        tried = [one for one in self.candidates.values() if one.rung(rungs) >= 0 and not one.failed]
        place = {one.order: one.rung(rungs) for one in tried}
        tried.sort(key=lambda one: (-place[one.order], -self.value(one, (rungs[place[one.order]], 0)), one.order))
        return tried[:FINALISTS]

    def _final_runs(self, finalists: Sequence[Candidate]) -> Iterator[tuple[Candidate, Run]]:
        """The reference's too: a search that found nothing better has to say so."""
        able = [one for one in (*finalists, self.reference) if not one.failed]
        return ((one, (self.setup.top, seed)) for seed in FINAL for one in able)

    def _key(self, asked: tuple[Candidate, Run]) -> tuple[Codes | None, Run]:
        return asked[0].codes, asked[1]

    def _time_for_more(self) -> bool:
        """Whether another trial fits before the final runs have to begin. The fewest candidates are always tried."""
        left = self._left()
        if left == math.inf or len(self.candidates) < FEWEST:
            return True
        ahead = [one for one in self._final_runs(self._leading()) if one[1] not in one[0].outcomes]
        pace = self._pace
        final = makespan((self.setup.seconds(one.network, run[0]) for one, run in ahead), self.slots())
        full = self.setup.seconds(self.reference.network, self.setup.top)
        return left > pace * SPREAD * (final + full)

    @property
    def judged(self) -> list[Candidate]:
        """Who may win: the finalists, and those before them, which had all their final runs when more was asked for."""
        finalists, top = self.finalists or [], self.setup.top
        before = (one for one in self.candidates.values() if all((top, seed) in one.outcomes for seed in FINAL))
        return [*finalists, *(one for one in before if one not in finalists)]

    @property
    def _pace(self) -> float:
        """Real seconds for an expected one."""
        return self._took / self._expected if self._expected else 1.0

    @property
    def standing(self) -> Standing:
        """For whoever watches."""
        rungs = self.setup.rungs
        ended = tuple(sum((r, 0) in one.outcomes for one in self.candidates.values()) for r in rungs)
        leading = self._leading()[:1]
        best = [(one.label, self.value(one, (e, 0)), e) for one in leading for e in (rungs[one.rung(rungs)],)]
        share, left = self._ahead(ended)
        return Standing(ended[0], ended, best[0] if best else None, self.finalists is not None, share, left)

    def _ahead(self, ended: Sequence[int]) -> tuple[float, float | None]:
        """The share of the work that is done, and seconds that are left: by the clock where a time was asked for, else
        by the candidates that are still to be tried."""
        setup, left = self.setup, self._left()
        if setup.time is not None:
            return min(1.0, max(0.0, 1 - left / setup.time)), max(0.0, left)
        wanted, ahead = float(setup.candidates or 0), 0.0
        for count, epochs in zip(ended, setup.rungs, strict=True):
            ahead += max(0.0, wanted - count) * setup.seconds(self.reference.network, epochs)
            wanted /= ETA
        leading = self._leading() or [self.reference]
        final = (run for run in self._final_runs(leading) if run[1] not in run[0].outcomes)
        ahead += sum(setup.seconds(one.network, run[0]) for one, run in final)
        pace = self._pace
        done = self._took / pace
        return done / max(1e-9, done + ahead), pace * ahead / self.slots()


def _hopeless(came: Failure | None) -> TypeGuard[Failure]:
    return came is not None and came.cause is Cause.TRIAL
