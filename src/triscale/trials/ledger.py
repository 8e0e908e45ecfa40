"""The ledger: which trials there are and what came out, as an Optuna study in SQLite beside the run.

Whoever knows Optuna knows how to read it, and its dashboard shows it while it grows: the file is in WAL mode, where
readers do not stop the writer. There is one writer, the driver, which holds the run's lock.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from triscale.errors import UserError
from triscale.plain import from_plain
from triscale.trials.failing import Cause, Failure
from triscale.trials.trial import Outcome, Trial

LEDGER = "ledger.db"
LOCKED = 60  # seconds to wait for somebody who reads
INPUTS, OUTCOME, WHY, KEY, CAUSE, SITTING = "trial", "outcome", "why", "key", "cause", "sitting"
PARAMETER = FloatDistribution(0.0, 1e10)  # of whatever is told to Optuna: shares, factors, seeds


@dataclass(frozen=True)
class Entry:
    """A trial that is wanted, and what people and Optuna call it: its parameters by name."""

    trial: Trial
    label: str
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Ended:
    """What the ledger knows of a trial that has ended. number: counts as trials begin. came: None where nobody could
    say, since the driver ended."""

    number: int
    parameters: Mapping[str, float]
    came: Outcome | Failure | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a sitting took. seconds: of all of it; busy: of those in which trials ran. trials: that it carried out;
    fresh: their seconds, added up. slots: how many at once."""

    seconds: float
    busy: float
    trials: int
    fresh: float
    slots: int


class Ledger:
    """The trials of one run directory. Raises `UserError` where the file is no ledger."""

    def __init__(self, path: Path, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own lines would stand between ours
        try:
            _check(path, name)
            with closing(_connected(path)) as file:
                file.execute("PRAGMA journal_mode=WAL")
            # An address cannot hold every path: what follows a "?" in a name would be options.
            storage = optuna.storages.RDBStorage(f"sqlite:///{LEDGER}", {"creator": partial(_connected, path)})
            self._engine = storage.engine
            self._study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a ledger ({error}); name another --out, or put the file back") from None
        except Exception as error:
            unknown = type(error) is RuntimeError  # Optuna's word for another version's tables
            if not unknown and type(error).__module__.partition(".")[0] not in ("sqlalchemy", "alembic", "optuna"):
                raise
            raise UserError(f"{path}: not a ledger of this version ({type(error).__name__})") from None
        self.path = path
        self._sitting: int | None = None
        self._slots = 0

    def requeue(self) -> int:
        """What a driver that is gone left running is closed as failed; tells how many. Who wants them queues them."""
        left = self._trials(TrialState.RUNNING)
        for trial in left:
            if OUTCOME in trial.user_attrs:  # it was finished, and its driver ended before that was told
                outcome = Outcome.from_json(trial.user_attrs[OUTCOME], f"{self.path}: trial {trial.number}")
                self._study.tell(trial.number, outcome.selection)
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)
        return len(left)

    def finished(self) -> dict[str, Outcome]:
        """Key → outcome of every finished trial. Raises `UserError` where one is not readable."""
        return {
            trial.user_attrs[KEY]: Outcome.from_json(trial.user_attrs[OUTCOME], f"{self.path}: trial {trial.number}")
            for trial in self._trials(TrialState.COMPLETE)
            if OUTCOME in trial.user_attrs
        }

    def want(self, entries: Sequence[Entry]) -> None:
        """They stand in the ledger as waiting, in this order, behind those that wait already; none twice."""
        waiting = {trial.user_attrs.get(KEY) for trial in self._trials(TrialState.WAITING)}
        for entry in entries:
            if entry.trial.key not in waiting:
                attributes = {"label": entry.label, KEY: entry.trial.key, INPUTS: entry.trial.to_json()}
                ranges: dict[str, BaseDistribution] = dict.fromkeys(entry.parameters, PARAMETER)
                # With its parameters, in one transaction: Optuna's enqueueing takes one for each as the trial is begun.
                waiting_trial = create_trial(
                    state=TrialState.WAITING,
                    params=dict(entry.parameters),
                    distributions=ranges,
                    user_attrs=attributes,
                )
                self._study.add_trial(waiting_trial)

    def start(self, entries: Mapping[str, Entry]) -> tuple[int, Entry] | None:
        """The first that waits is begun: its number, and which of the entries (by key) it is. What an earlier driver
        wanted and this one does not is closed. None where nothing waits."""
        while self._trials(TrialState.WAITING):
            trial = self._study.ask()
            entry = entries.get(trial.user_attrs.get(KEY, ""))
            if entry is not None:
                if self._sitting is not None:
                    trial.set_user_attr(SITTING, self._sitting)
                return trial.number, entry
            self._study.tell(trial.number, state=TrialState.FAIL)
        return None

    def finish(self, number: int, outcome: Outcome) -> None:
        """What came out, for good."""
        trial = optuna.trial.Trial(self._study, self._id(number))
        trial.set_user_attr(OUTCOME, outcome.to_json())
        self._study.tell(number, outcome.selection)

    def fail(self, number: int, failure: Failure) -> None:
        """It came to nothing."""
        trial = optuna.trial.Trial(self._study, self._id(number))
        trial.set_user_attr(WHY, failure.why)
        trial.set_user_attr(CAUSE, failure.cause.value)
        self._study.tell(number, state=TrialState.FAIL)

    def counts(self) -> dict[str, int]:
        """How many trials are in each state, by Optuna's words."""
        found = dict.fromkeys((state.name for state in TrialState), 0)
        for trial in self._study.get_trials(deepcopy=False):
            found[trial.state.name] += 1
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Every trial that was wanted: number, state, label, key, outcome, why it failed. For comparing ledgers."""
        return [
            {
                "number": trial.number,
                "state": trial.state.name,
                "label": trial.user_attrs.get("label"),
                "key": trial.user_attrs.get(KEY),
                "outcome": json.loads(json.dumps(trial.user_attrs.get(OUTCOME))),
                "why": trial.user_attrs.get(WHY),
            }
            for trial in self._study.get_trials(deepcopy=False)
        ]

    def ended(self) -> list[Ended]:
        """Every trial that was begun and has ended, in the order of their ends. For whoever goes on with a search."""
        ended = [t for t in self._trials(TrialState.COMPLETE) if OUTCOME in t.user_attrs]
        ended += self._trials(TrialState.FAIL)
        ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        return [Ended(trial.number, trial.params, self._came(trial)) for trial in ended]

    def sit(self, slots: int) -> None:
        """A sitting begins: what is begun from now on is of it."""
        self._sitting = len(self.sittings())
        self._slots = slots
        self.spend(0.0, 0.0)

    def spend(self, seconds: float, busy: float) -> None:
        """What the sitting took so far, in place of what was said before."""
        times = {"seconds": seconds, "busy": busy, "slots": self._slots}
        self._study.set_user_attr(f"{SITTING} {self._sitting}", times)

    def sittings(self) -> tuple[Spent, ...]:
        """What every one took, also one that was killed, until shortly before. Raises `UserError`."""
        said = self._study.user_attrs
        rows = [said[f"{SITTING} {n}"] for n in range(sum(name.startswith(f"{SITTING} ") for name in said))]
        fresh: list[list[float]] = [[] for _ in rows]
        for trial in self._trials(TrialState.COMPLETE):
            if isinstance(came := self._came(trial), Outcome) and SITTING in trial.user_attrs:
                fresh[trial.user_attrs[SITTING]].append(came.seconds)
        return tuple(
            from_plain(Spent, row | {"trials": len(of_it), "fresh": sum(of_it)}, f"{self.path}", f"sitting {n}")
            for n, (row, of_it) in enumerate(zip(rows, fresh, strict=True))
        )

    def close(self) -> None:
        """Lets go of the file, which then is one file again."""
        self._engine.dispose()

    def _came(self, trial: FrozenTrial) -> Outcome | Failure | None:
        said = trial.user_attrs
        if trial.state is TrialState.COMPLETE and OUTCOME in said:
            return Outcome.from_json(said[OUTCOME], f"{self.path}: trial {trial.number}")
        return Failure(Cause(said[CAUSE]), str(said.get(WHY, ""))) if said.get(CAUSE) in list(Cause) else None

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _id(self, number: int) -> int:
        return next(trial._trial_id for trial in self._study.get_trials(deepcopy=False) if trial.number == number)


def _connected(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=LOCKED, check_same_thread=False)
    # In WAL mode that is safe for the file, whoever is killed; the disk is waited for at checkpoints only.
    file.execute("PRAGMA synchronous=NORMAL")
    return file


def _check(path: Path, name: str) -> None:
    """Raises `sqlite3.DatabaseError` for somebody else's database, before anything is written into it."""
    if not path.exists():
        return
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCKED)) as file:
        tables = {row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        studies = {row[0] for row in file.execute("SELECT study_name FROM studies")} if tables else set()
    if studies - {name}:  # none at all where the first driver was killed as it began
        raise sqlite3.DatabaseError(f"it holds {', '.join(sorted(studies))}")
