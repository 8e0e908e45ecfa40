"""Ray as `Cluster` uses it, in this process: nodes that come and go by a word, tasks that end at once or never, and a
clock that runs only while somebody waits."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from triscale.trials import Outcome, Probe, Trial, cluster
from triscale.trials.attempting import Pace


class Task:
    def __init__(self, answer: Outcome | Pace | None) -> None:
        self.answer = answer


class FakeRay:
    """processors: of each node. answer: what a task gives; None where it never ends. leaving: all nodes go as soon as
    somebody waits in vain. most: tasks at once, so far."""

    def __init__(self, processors: list[int], answer: Callable[[Trial | Probe], Outcome | Pace | None]) -> None:
        self.processors, self.answer = processors, answer
        self.leaving, self.most, self.now = False, 0, 0.0
        self.exceptions = SimpleNamespace(RayTaskError=RuntimeError, RayError=RuntimeError)
        self._begun = False
        self._open: set[Task] = set()

    def init(self, **_: object) -> None:
        self._begun = True

    def is_initialized(self) -> bool:
        return self._begun

    def shutdown(self) -> None:
        self._begun = False
        self._open.clear()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(count)}} for count in self.processors]

    def put(self, value: object) -> object:
        return value

    def remote(self, _: object) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._begin))

    def wait(self, tasks: list[Task], *, num_returns: int, timeout: float) -> tuple[list[Task], list[Task]]:
        ready = [task for task in tasks if task.answer is not None][:num_returns]
        if not ready:
            self.now += timeout
            if self.leaving:
                self.processors.clear()
        return ready, [task for task in tasks if task not in ready]

    def get(self, task: Task) -> object:
        self._open.discard(task)
        return task.answer

    def cancel(self, task: Task, *, force: bool) -> None:
        self._open.discard(task)

    def _begin(self, asked: Trial | Probe, _: object) -> Task:
        task = Task(self.answer(asked))
        self._open.add(task)
        self.most = max(self.most, len(self._open))
        return task


def install(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Whoever imports Ray gets this one, and the cluster's clock is its own."""
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: ray.now))
    return ray
