"""A Ray cluster carries trials out: as tasks, which other nodes take over where one is lost."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from math import inf
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from triscale.data import Data
from triscale.errors import TriscaleError, UserError
from triscale.trials.attempting import Pace, attempt, settle
from triscale.trials.executors import Done
from triscale.trials.failing import Cause, Failure
from triscale.trials.running import Pictures, Probe, Stopping
from triscale.trials.shipping import shipped
from triscale.trials.trial import How, Outcome, Trial

if TYPE_CHECKING:
    from ray import ObjectRef

    Task = ObjectRef[Any]

RETRIES = 2  # of a task whose node died, before the driver hears of it
ROOMLESS = 300.0  # seconds without a large enough node: one that a cluster orders anew is minutes on its way
LOOKED = 1.0  # seconds between two looks at the nodes while a pace is measured
REACHED = 10  # seconds for a first answer from an address; Ray itself would try for minutes


@dataclass(frozen=True, slots=True)
class Needs:
    """What a trial takes of a node."""

    cpus: int
    gpus: float

    def times(self, resources: dict[str, float]) -> int:
        """How many a node with these resources does at once."""
        cpus = int(resources.get("CPU", 0.0) / self.cpus + 1e-9)
        return min(cpus, int(resources.get("GPU", 0.0) / self.gpus + 1e-9)) if self.gpus else cpus

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{self.cpus} processor{'s' * (self.cpus > 1)}{gpus}"


class Cluster:
    """The nodes of a Ray cluster: as many trials at once as their processors allow, as nodes come and go.

    The images travel once to every node, as the bytes of their files; what a node needs is this version of Triscale.
    """

    def __init__(self, data: Data, address: str, threads: int = 1, gpus: float = 1.0, most: int | None = None) -> None:
        """address: host:port, "auto", or "" for the cluster of this machine, begun here where there is none. threads:
        of a trial, until one says otherwise. gpus: of a trial that computes on one; a part lets several share it.
        most: trials at once, also where there is room for more; None takes all of it.

        Raises `UserError` where Ray is not installed, no cluster answers, or no node is large enough for a trial.
        """
        images = shipped(data)
        self._ray = joined(address)
        self._running: dict[Task, int] = {}
        self._gpus, self._most = gpus, most
        self._needs = Needs(threads, 0.0)
        self._roomless: float | None = None  # since when no node has room for what is needed
        try:
            if not self._places(self._needs):
                raise UserError(f"{_named(address)}: no node has {self._needs} for a trial; add a larger node")
            self._images = self._ray.put(images)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """Trials that the nodes there are now do at once, as many as were asked for; one at least: a cluster may grow
        with what waits."""
        places = self._places(self._needs)
        return max(1, places if self._most is None else min(places, self._most))

    @property
    def widest(self) -> int:
        """The processors of the largest node: a task never spans two."""
        return max((int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]), default=1)

    def submit(self, ticket: int, trial: Trial, place: Path) -> None:
        """To whatever node has room. Nodes do not reach the place: a task that is lost begins anew."""
        self._running[self._sent(trial, trial.how)] = ticket

    def wait(self, seconds: float) -> list[Done]:
        """What ended since the last time, after at most so many seconds.

        Raises `TriscaleError` where nothing can end: for `ROOMLESS` seconds no node has had room for what runs.
        """
        if not self._running:
            time.sleep(seconds)
            return []
        if not self._any_ready(list(self._running), seconds):
            if (missing := self._missing()) is not None:
                raise TriscaleError(f"{missing}; finished trials are kept: add such a node, and go on with --resume")
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._ended(task) for task in ready]

    def progress(self) -> dict[int, float]:
        """Nothing: tasks do not say how far they are."""
        return {}

    def measure(self, probes: Sequence[Probe]) -> list[float]:
        """Seconds an image of each, as many at once as there is room and as were asked for; infinite where no node has
        so many processors.

        Raises `UserError` where none has the GPU, `TriscaleError` where one fails, or where the nodes that have room
        have left.
        """
        found: list[float] = []
        at_once = self._most or max(1, len(probes))
        for first in range(0, len(probes), at_once):
            asked = probes[first : first + at_once]
            tasks = [self._sent(probe, probe.how) if self._large_enough(probe.how) else None for probe in asked]
            found += [self._pace(probe, task) for probe, task in zip(asked, tasks, strict=True)]
        return found

    def close(self) -> None:
        """Ends what still runs, and leaves the cluster; one that was begun here ends too."""
        if not self._ray.is_initialized():
            return
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        with _own_signals():
            self._ray.shutdown()

    def _pace(self, probe: Probe, task: "Task | None") -> float:
        if task is None:
            return inf
        while not self._any_ready([task], LOOKED):
            if (missing := self._missing()) is not None:
                raise TriscaleError(f"{missing}; add such a node, and begin again")
        said = self._said(task)
        if not isinstance(said, Pace):
            why = said.why if isinstance(said, Failure) else "its node died"
            raise TriscaleError(f"a training step of {probe.architecture.name} cannot be measured: {why}")
        return said.seconds

    def _any_ready(self, tasks: list["Task"], seconds: float) -> bool:
        ready, _ = self._ray.wait(tasks, num_returns=1, timeout=seconds)
        if ready:
            self._roomless = None
        return bool(ready)

    def _missing(self) -> str | None:
        """What no node has had for too long; None while one has it, or may still come."""
        now = time.monotonic()
        if self._places(self._needs):
            self._roomless = None
        elif self._roomless is None:
            self._roomless = now
        elif now - self._roomless > ROOMLESS:
            return f"for {ROOMLESS:g} s no node of the cluster has had {self._needs} for a trial"
        return None

    def _places(self, needs: Needs) -> int:
        return sum(needs.times(node["Resources"]) for node in self._ray.nodes() if node["Alive"])

    def _large_enough(self, how: How) -> bool:
        """Whether a node is, and a task would not wait for ever."""
        needs = self._take(how)
        fits = self._places(needs) > 0
        if needs.gpus and not fits:
            raise UserError(f"--device {how.device}: no node of the cluster has {needs.gpus:g} GPUs; say --device cpu")
        return fits

    def _take(self, how: How) -> Needs:
        return Needs(how.threads, self._gpus if how.device.startswith("cuda") else 0.0)

    def _sent(self, asked: Trial | Probe, how: How) -> "Task":
        self._needs = self._take(how)
        task = self._ray.remote(_carry_out).options(
            num_cpus=self._needs.cpus, num_gpus=self._needs.gpus, max_retries=RETRIES, name=type(asked).__name__.lower()
        )
        # In a list, for Ray to pass on where the images are: a process fetches them once, not with every trial.
        sent: Task = task.remote(asked, [self._images])
        return sent

    def _ended(self, task: "Task") -> Done:
        ticket, said = self._running.pop(task), self._said(task)
        if isinstance(said, Outcome | Failure):
            return Done(ticket, said)
        return Done(ticket, Failure(Cause.WORKER, f"its node died too often: {_in_a_line(said)}"))

    def _said(self, task: "Task") -> object:
        """The task's answer; what Ray says instead where it has none."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, errors.RayError):
                return cause
            return Failure(Cause.TRIAL, f"{type(cause).__name__}: {cause}")
        except errors.RayError as error:
            return error


def _carry_out(asked: Trial | Probe, images: list["Task"]) -> Outcome | Pace | Failure | None:
    """The task, on a node."""
    here = version("triscale")
    if isinstance(asked, Trial) and asked.version != here:
        why = f"{socket.gethostname()} has Triscale {here}, not {asked.version}; install the same on every node"
        return Failure(Cause.SURROUNDINGS, why)
    settle()
    return attempt(asked, _pictures(images[0]), Stopping(lambda: False))


@lru_cache(maxsize=1)
def _pictures(images: "Task") -> Pictures:
    """The images of a study in this process: their pixels are decoded once, not with every trial."""
    import ray

    return Pictures(ray.get(images))


def joined(address: str) -> ModuleType:
    """Ray, connected. Raises `UserError`."""
    ray = import_ray()
    if ray.is_initialized():
        raise UserError("this process is connected to a Ray cluster already; leave that by ray.shutdown()")
    _check_reached(address)
    try:
        with _own_signals():
            ray.init(address=address or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise _unreached(address, _in_a_line(error)) from None
    return ray


def import_ray() -> ModuleType:
    """Ray, so set that it is quiet. Raises `UserError` where it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what it hears of nodes it would print on standard output
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later versions do; without it Ray warns
    try:
        import ray
    except ImportError:
        raise UserError("a cluster takes Ray, which is not installed: pip install 'triscale[ray]'") from None
    return ray


def _check_reached(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        return  # "auto" and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED).close()
    except (OSError, OverflowError) as error:
        raise _unreached(address, getattr(error, "strerror", None) or str(error)) from None


def _unreached(address: str, why: str) -> UserError:
    return UserError(
        f"{_named(address)}: no cluster answers ({why}); begin one there by `ray start --head`, or leave --address out "
        "for one on this machine"
    )


def _in_a_line(said: object) -> str:
    return " ".join(str(said).split())[:200]


def _named(address: str) -> str:
    return f"--address {address}" if address not in ("", "local") else "the cluster of this machine"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; afterwards it is again what it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
