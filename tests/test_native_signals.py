"""An engine whose call a signal interrupts: the handler may call it and close it, and neither waits for the other."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import pytest
from native_program import pictures, planned
from tiny import TINY

from triscale.engines.native import Engine, available
from triscale.engines.native import engine as engine_module
from triscale.errors import UserError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}"),
]
IMAGES = pictures(TINY, 2)


@contextmanager
def handling(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


class Interrupted:
    """A lock that is interrupted the first time somebody holds it."""

    def __init__(self, lock: Any) -> None:
        self.lock, self.left = lock, 1

    def __enter__(self) -> None:
        self.lock.__enter__()
        if self.left:
            self.left -= 1
            signal.raise_signal(signal.SIGALRM)

    def __exit__(self, *how: object) -> None:
        self.lock.__exit__(*how)


def interrupted_while_computing(engine: Engine) -> None:
    run = engine._run

    def interrupted(*arguments: int) -> int:
        engine._run = run
        signal.raise_signal(signal.SIGALRM)
        return int(run(*arguments))

    engine._run = interrupted


def interrupted_while_beginning(engine: Engine) -> None:
    assert isinstance(engine._lock, type(RLock()))
    engine._lock = Interrupted(engine._lock)  # type: ignore[assignment]


PLACES = pytest.mark.parametrize("place", [interrupted_while_computing, interrupted_while_beginning])


@PLACES
def test_a_handler_may_call_the_engine_that_it_has_interrupted(place: Callable[[Engine], None]) -> None:
    found: list[bytes] = []
    with Engine(planned(TINY)[0], threads=2) as engine:
        wanted = engine(IMAGES).tobytes()
        place(engine)
        with handling(lambda: found.append(engine(IMAGES).tobytes())):
            assert engine(IMAGES).tobytes() == wanted
    assert found == [wanted]


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The engines that were given back."""
    given: list[int] = []
    destroy = engine_module._destroy

    def noted(*arguments: Any) -> None:
        given.append(arguments[1])
        destroy(*arguments)

    monkeypatch.setattr(engine_module, "_destroy", noted)
    return given


def test_what_a_handler_closes_is_freed_once_the_call_is_done(freed: list[int]) -> None:
    engine = Engine(planned(TINY)[0], threads=2)
    wanted, left = engine(IMAGES).tobytes(), []
    interrupted_while_computing(engine)
    with handling(lambda: (engine.close(), left.extend(freed))):
        assert engine(IMAGES).tobytes() == wanted
    assert (len(left), len(freed)) == (0, 1)
    with pytest.raises(UserError, match="the engine is closed"):
        engine(IMAGES)
    engine.close()
    assert len(freed) == 1


def test_a_call_that_a_handler_closes_before_it_begins_says_so(freed: list[int]) -> None:
    engine = Engine(planned(TINY)[0], threads=2)
    interrupted_while_beginning(engine)
    with handling(engine.close), pytest.raises(UserError, match="the engine is closed"):
        engine(IMAGES)
    assert len(freed) == 1


def test_a_handler_that_closes_leaves_what_goes_beyond_fp16_to_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that answers in fp32 is closed with the other, and no earlier."""
    plan, _ = planned(TINY)
    with Engine(plan, threads=1) as exact, Engine(plan, threads=1) as engine:
        wanted = exact(IMAGES)
        engine._again = lambda: Engine(plan, threads=1)
        run = engine._run

        def lost(handle: int, x: int, images: int, logits: int) -> int:
            failed = int(run(handle, x, images, logits))
            np.frombuffer((engine_module.ctypes.c_char * (images * 16)).from_address(logits), np.float32)[:] = np.inf
            signal.raise_signal(signal.SIGALRM)
            return failed

        engine._run = lost
        with handling(engine.close):
            assert engine(IMAGES).tobytes() == wanted.tobytes()
        assert engine._exact is not None
        with pytest.raises(UserError, match="closed"):
            engine._exact(IMAGES)
