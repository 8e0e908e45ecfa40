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
from types import ModuleType
from typing import TYPE_CHECKING, Any

from triscale.data import Data
from triscale.errors import TriscaleError, UserError
from triscale.trials.attempting import Pace, attempt, settle
from triscale.trials.executors import Done
from triscale.trials.running import Pictures, Probe, Stopping
from triscale.trials.shipping import shipped
from triscale.trials.trial import How, Outcome, Trial

if TYPE_CHECKING:
    from ray import ObjectRef

    Task = ObjectRef[Any]

RETRIES = 2  # of a task whose node died, before the driver hears of it
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


class Cluster:
    """The nodes of a Ray cluster: as many trials at once as their processors allow, as nodes come and go.

    The images travel once to every node, as the bytes of their files; what a node needs is this version of Triscale.
    """

    def __init__(self, data: Data, address: str, threads: int = 1, gpus: float = 1.0) -> None:
        """address: host:port, "auto", or "" for the cluster of this machine, begun here where there is none. threads:
        of a trial, until one says otherwise. gpus: of a trial that computes on one; a part lets several share it.

        Raises `UserError` where Ray is not installed, no cluster answers, or no node is large enough for a trial.
        """
        images = shipped(data)
        self._ray = _joined(address)
        self._running: dict[Task, int] = {}
        self._gpus = gpus
        self._needs = Needs(threads, 0.0)
        try:
            if not self._places(self._needs):
                raise UserError(f"{_named(address)}: no node has {threads} processors for a trial; add a larger node")
            self._images = self._ray.put(images)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """Trials that the nodes there are now do at once; one at least: a cluster may grow with what waits."""
        return max(1, self._places(self._needs))

    @property
    def widest(self) -> int:
        """The processors of the largest node: a task never spans two."""
        return max((int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]), default=1)

    def submit(self, ticket: int, trial: Trial) -> None:
        """To whatever node has room."""
        self._running[self._sent(trial, trial.how)] = ticket

    def wait(self, seconds: float) -> list[Done]:
        """What ended since the last time, after at most so many seconds."""
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._ended(task) for task in ready]

    def progress(self) -> dict[int, float]:
        """Nothing: tasks do not say how far they are."""
        return {}

    def measure(self, probes: Sequence[Probe]) -> list[float]:
        """Seconds an image of each, as many at once as there is room; infinite where no node has so many processors.

        Raises `UserError` where none has the GPU, `TriscaleError` where one fails.
        """
        tasks = [self._sent(probe, probe.how) if self._large_enough(probe.how) else None for probe in probes]
        found = []
        for probe, task in zip(probes, tasks, strict=True):
            said = Pace(inf) if task is None else self._said(task)
            if not isinstance(said, Pace):
                why = said if isinstance(said, str) else "its node died"
                raise TriscaleError(f"a training step of {probe.architecture.name} cannot be measured: {why}")
            found.append(said.seconds)
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
        if isinstance(said, Outcome):
            return Done(ticket, outcome=said)
        if isinstance(said, str):
            return Done(ticket, failed=said)
        return Done(ticket, lost=f"its node died too often: {_in_a_line(said)}")

    def _said(self, task: "Task") -> object:
        """The task's answer; what Ray says instead where it has none."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            cause = error.cause
            return cause if isinstance(cause, errors.RayError) else f"{type(cause).__name__}: {cause}"
        except errors.RayError as error:
            return error


def _carry_out(asked: Trial | Probe, images: list["Task"]) -> Outcome | Pace | str | None:
    """The task, on a node."""
    here = version("triscale")
    if isinstance(asked, Trial) and asked.version != here:
        return f"{socket.gethostname()} has Triscale {here}, not {asked.version}; install the same on every node"
    settle()
    return attempt(asked, _pictures(images[0]), Stopping(lambda: False))


@lru_cache(maxsize=1)
def _pictures(images: "Task") -> Pictures:
    """The images of a study in this process: their pixels are decoded once, not with every trial."""
    import ray

    return Pictures(ray.get(images))


def _joined(address: str) -> ModuleType:
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
    return f"--address {address}" if address else "the cluster of this machine"


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
