"""Persistent worker processes on this machine: each holds the images once and does one trial after the other."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic

from triscale.cores import usable_cores
from triscale.data import Data
from triscale.errors import TriscaleError
from triscale.training import Step
from triscale.trials.attempting import Pace, attempt, settle
from triscale.trials.executors import Done
from triscale.trials.failing import Cause, Failure
from triscale.trials.running import Pictures, Probe, Stopping
from triscale.trials.trial import Trial

TOLD = 1.0  # seconds between two messages of how far a trial is


@dataclass(eq=False)
class _Worker:
    """A process, the line to it, and what it does: the ticket, and how far it is."""

    process: SpawnProcess
    line: Connection
    ticket: int | None = None
    share: float = 0.0


class Workers:
    """So many processes. One that dies is replaced, and its trial is given back as lost."""

    def __init__(self, data: Data, count: int) -> None:
        self._data = data
        self._workers = [self._start() for _ in range(count)]

    @property
    def slots(self) -> int:
        """One trial a worker."""
        return len(self._workers)

    @property
    def widest(self) -> int:
        """All cores that this process may use."""
        return usable_cores()

    def submit(self, ticket: int, trial: Trial, place: Path) -> None:
        """To the first that is free."""
        worker = next(worker for worker in self._workers if worker.ticket is None)
        worker.ticket, worker.share = ticket, 0.0
        with suppress(OSError):  # it died; `wait` finds that
            worker.line.send((trial, place))

    def wait(self, seconds: float) -> list[Done]:
        """What ended since the last time, after at most so many seconds."""
        done: list[Done] = []
        until = monotonic() + seconds
        while not done and (left := until - monotonic()) > 0:
            lines = {worker.line: place for place, worker in enumerate(self._workers)}
            for line in wait(list(lines), left):
                place = lines[line]  # type: ignore[index]
                found = self._hear(place)
                if found is not None:
                    done.append(found)
        return done

    def progress(self) -> dict[int, float]:
        """Ticket → share that is done."""
        return {worker.ticket: worker.share for worker in self._workers if worker.ticket is not None}

    def measure(self, probes: Sequence[Probe]) -> list[float]:
        """Seconds an image of each, as many at once as there are workers. Raises `TriscaleError` where one fails."""
        found: list[float] = []
        for first in range(0, len(probes), len(self._workers)):
            asked = list(zip(self._workers, probes[first:], strict=False))
            for worker, probe in asked:
                with suppress(OSError):  # it died, and nothing will be heard of it
                    worker.line.send((probe, None))
            for worker, probe in asked:
                try:
                    said = worker.line.recv()
                except (EOFError, OSError):
                    said = Failure(Cause.WORKER, "its worker died")
                if not isinstance(said, Pace):
                    raise TriscaleError(f"a training step of {probe.architecture.name} cannot be measured: {said.why}")
                found.append(said.seconds)
        return found

    def keep(self, count: int) -> None:
        """Only so many workers from now on."""
        for worker in self._workers[count:]:
            worker.process.kill()
        for worker in self._workers[count:]:
            worker.process.join()
            worker.line.close()
        del self._workers[count:]

    def close(self) -> None:
        """Ends everything that still runs."""
        self.keep(0)

    @property
    def processes(self) -> list[int]:
        """Their numbers, for whoever looks at the machine."""
        return [worker.process.pid or 0 for worker in self._workers]

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, self._data, os.getpid()), daemon=True)
        with _unreached_by_interrupts():
            process.start()
        there.close()
        return _Worker(process, here)

    def _hear(self, place: int) -> Done | None:
        worker = self._workers[place]
        try:
            said = worker.line.recv()
        except (EOFError, OSError):
            return self._replace(place)
        if isinstance(said, float):
            worker.share = said
            return None
        assert worker.ticket is not None
        ticket, worker.ticket = worker.ticket, None
        return Done(ticket, said)

    def _replace(self, place: int) -> Done | None:
        worker = self._workers[place]
        worker.process.join()
        worker.line.close()
        self._workers[place] = self._start()
        if worker.ticket is None:
            return None
        return Done(worker.ticket, Failure(Cause.WORKER, _how_it_ended(worker.process.exitcode)))


@contextmanager
def _unreached_by_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole group, and the driver decides what ends: who is started in here never feels it, not
    even while Python starts; here it is felt afterwards."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # starts with the first process otherwise, and then lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{memory}"
    return f"its worker ended by itself with code {code}"


def _work(line: Connection, data: Data, parent: int) -> None:
    """A worker's life: trials come in, outcomes go out, until the line is cut."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    settle()
    pictures = Pictures(data)
    told = _Telling(line)
    while True:
        try:
            asked, place = line.recv()
        except (EOFError, OSError):
            return
        answer = attempt(asked, pictures, Stopping(lambda: os.getppid() != parent, told), place)
        if answer is None:
            return
        try:
            line.send(answer)
        except OSError:
            return


@dataclass
class _Telling:
    """Says now and then how far a trial is."""

    line: Connection
    last: float = 0.0

    def __call__(self, step: Step) -> None:
        if monotonic() - self.last > TOLD:
            self.last = monotonic()
            self.line.send(step.step / step.steps)
