"""The driver: wanted trials go to whoever carries them out, outcomes into the ledger."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from triscale.errors import HopelessError, TriscaleError
from triscale.trials.executors import Executor
from triscale.trials.failing import Cause, Failure
from triscale.trials.keeping import forget, forget_finished, place_of
from triscale.trials.ledger import Entry, Ledger
from triscale.trials.trial import Outcome

ATTEMPTS = 3  # of a trial that another attempt may help
IN_A_ROW = 8  # trials that come to nothing: then it is not for what they are
LOOKED = 1.0  # seconds between two looks at how far it is


@dataclass(frozen=True)
class Progress:
    """How far a set of trials is.

    done, running, wanted: counts. share: of the expected work that is done. left: seconds, as it goes now; None before
    that is known. last: the newest outcome with its label; key: of its trial.
    """

    done: int
    running: int
    wanted: int
    share: float
    left: float | None
    last: tuple[str, Outcome] | None = None
    key: str = ""


OnProgress = Callable[[Progress], None]


@dataclass
class Effort:
    """Expected seconds of each trial, corrected by what finished ones took."""

    expected: dict[str, float]
    started: float = field(default_factory=monotonic)
    known: float = 0.0
    took: float = 0.0

    def finished(self, key: str, seconds: float) -> None:
        """A trial took so long."""
        self.known += self.expected[key]
        self.took += seconds

    @property
    def pace(self) -> float | None:
        """Real seconds for an expected one; None before that is known."""
        return self.took / self.known if self.known else None


@dataclass
class Underway:
    """When a running trial was first heard of, and how far it was then: one that goes on does not begin at 0."""

    since: float
    share: float


def run_trials(
    ledger: Ledger, executor: Executor, entries: Sequence[Entry], expected: dict[str, float], told: OnProgress
) -> dict[str, Outcome]:
    """Key → outcome of every entry: those that the ledger knows, and the others carried out now, the longest first.

    A trial whose worker dies is begun again, twice; one that takes minutes goes on from the end of an epoch. expected:
    seconds of each, by key. told: after everything that happens, and once a second. Raises `TriscaleError` where a
    trial fails by itself; what is finished is kept.
    """
    known = ledger.finished()
    forget_finished(ledger.path, known)
    wanted = {entry.trial.key: entry for entry in entries}
    missing = sorted((e for key, e in wanted.items() if key not in known), key=lambda e: -expected[e.trial.key])
    ledger.want(missing)
    waiting = {entry.trial.key: entry for entry in missing}
    state = _State(ledger, executor, waiting, Effort(expected), told, len(wanted))
    state.found = {key: known[key] for key in wanted if key in known}
    state.tell()
    while state.waiting or state.running:
        while state.waiting and len(state.running) < executor.slots:
            state.begin()
        for ticket, came in _ended(executor):
            if isinstance(came, Outcome):
                state.finish(ticket, came)
            else:
                state.fail(ticket, came)
        state.tell()
    return state.found


def _ended(executor: Executor) -> Iterator[tuple[int, Outcome | Failure]]:
    """Ticket and what came of it. Outcomes first: a failure may end the set, and what is finished is kept before."""
    done = sorted(executor.wait(LOOKED), key=lambda done: isinstance(done.came, Failure))
    return ((one.ticket, one.came) for one in done)


class Asking(Protocol):
    """Decides which trial is next by what came out of others: a search."""

    def next(self) -> tuple[Entry, float] | None:
        """A trial that the ledger does not know, and its expected seconds; None where there is none now."""

    def ended(self, entry: Entry, outcome: Outcome) -> None:
        """What came out of one that it asked for."""

    def failed(self, entry: Entry, why: str) -> bool:
        """One cannot be carried out. Whether the others go on without it."""


def run_asked(ledger: Ledger, executor: Executor, asking: Asking, told: OnProgress) -> None:
    """Carries out what is asked for, one trial after the other in every slot, until nothing is and nothing runs.

    One that ends its worker three times comes to nothing as one that fails by itself does; so many in a row end the
    set, for then the recipe or the machine are at fault. What the surroundings do to a trial is never held against it.
    `Progress.wanted` counts what was asked for so far. Raises as `run_trials` does.
    """
    forget_finished(ledger.path, ledger.finished())
    state, in_a_row = _State(ledger, executor, {}, Effort({}), told, 0), 0
    while True:
        while len(state.running) < executor.slots and (asked := asking.next()) is not None:
            state.want(*asked)
            state.begin()
        if not state.running:
            return
        for ticket, came in _ended(executor):
            entry = state.running[ticket]
            if isinstance(came, Outcome):
                in_a_row = 0
                state.finish(ticket, came)
                asking.ended(entry, came)
            elif state.helped(entry, came):
                state.fail(ticket, came)
                state.begin()  # before anything else
            elif came.cause is Cause.SURROUNDINGS:
                state.fail(ticket, came)
            else:
                in_a_row += 1
                if in_a_row >= IN_A_ROW:
                    why = f"{IN_A_ROW} trials in a row came to nothing, the last of them: {entry.label}: {came.why}"
                    state.leave(ticket, why)
                    raise TriscaleError(why)
                if asking.failed(entry, came.why):
                    state.leave(ticket, came.why)
                else:
                    state.fail(ticket, came)
        state.tell()


@dataclass
class _State:
    """Where a set of trials stands."""

    ledger: Ledger
    executor: Executor
    waiting: dict[str, Entry]
    effort: Effort
    told: OnProgress
    total: int
    running: dict[int, Entry] = field(default_factory=dict)
    found: dict[str, Outcome] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    heard: dict[int, Underway] = field(default_factory=dict)
    last: tuple[str, Outcome] | None = None
    newest: str = ""

    def want(self, entry: Entry, seconds: float) -> None:
        self.effort.expected[entry.trial.key] = seconds
        self.ledger.want([entry])
        self.waiting[entry.trial.key] = entry
        self.total += 1

    def begin(self) -> None:
        begun = self.ledger.start(self.waiting)
        if begun is None:
            raise TriscaleError(f"{self.ledger.path}: another process writes here; end it, and go on with --resume")
        number, entry = begun
        key = entry.trial.key
        del self.waiting[key]
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self.running[number] = entry
        self.executor.submit(number, entry.trial, place_of(self.ledger.path, key))

    def finish(self, number: int, outcome: Outcome) -> None:
        entry = self.running.pop(number)
        key = entry.trial.key
        self.ledger.finish(number, outcome)
        forget(place_of(self.ledger.path, key))
        self.found[key], self.last, self.newest = outcome, (entry.label, outcome), key
        self.effort.finished(key, outcome.seconds)

    def helped(self, entry: Entry, failure: Failure) -> bool:
        """Whether another attempt may help."""
        return failure.cause is not Cause.TRIAL and self.attempts[entry.trial.key] < ATTEMPTS

    def fail(self, number: int, failure: Failure) -> None:
        """The trial waits again where another attempt may help. Raises `TriscaleError` where none does, which ends the
        set."""
        entry = self.running.pop(number)
        self.ledger.fail(number, failure)
        if self.helped(entry, failure):
            self.ledger.want([entry])
            self.waiting[entry.trial.key] = entry
            return
        why = f"trial {entry.label}: {failure.why}"
        if failure.cause is Cause.TRIAL:
            forget(place_of(self.ledger.path, entry.trial.key))
            raise HopelessError(why)
        raise TriscaleError(why)

    def leave(self, number: int, why: str) -> None:
        """The set goes on without a trial that cannot be carried out."""
        entry = self.running.pop(number)
        forget(place_of(self.ledger.path, entry.trial.key))
        self.ledger.fail(number, Failure(Cause.TRIAL, why))
        self.total -= 1

    def tell(self) -> None:
        shares = self.executor.progress()
        expected, here = self.effort.expected, 0.0
        ahead = sum(expected[key] for key in self.waiting)
        for number, entry in self.running.items():
            here += expected[entry.trial.key] * shares.get(number, 0.0)
            ahead += expected[entry.trial.key] * (1 - shares.get(number, 0.0))
        done = sum(expected[key] for key in self.found) + here
        pace = self.effort.pace or self.pace_of_running(shares)
        at_once = max(1, min(self.executor.slots, len(self.waiting) + len(self.running)))
        left = None if pace is None else ahead * pace / at_once
        share = done / max(1e-9, done + ahead)
        self.told(Progress(len(self.found), len(self.running), self.total, share, left, self.last, self.newest))

    def pace_of_running(self, shares: dict[int, float]) -> float | None:
        """As `Effort.pace`, by what runs: all there is to go by before a first trial has ended."""
        now, took, known = monotonic(), 0.0, 0.0
        for number in self.running.keys() & {number for number, share in shares.items() if share > 0}:
            begun = self.heard.setdefault(number, Underway(now, shares[number]))
            took += now - begun.since
            known += self.effort.expected[self.running[number].trial.key] * (shares[number] - begun.share)
        return took / known if known > 0 else None
