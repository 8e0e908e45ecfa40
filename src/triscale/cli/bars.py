"""A bar where a person watches, for whoever shows work as it goes."""

from typing import Self

from rich.progress import TaskID

from triscale.cli.console import Output


class Bar:
    """One line of progress on standard error; a context, because it has to be taken down again."""

    def __init__(self, output: Output) -> None:
        self._bar = output.progress()
        self._notes = self._bar.console
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, what: str, done: float, total: float) -> None:
        if self._task is None:
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, description=what, completed=done, total=total)
        if done >= total:
            self._bar.remove_task(self._task)
            self._task = None
