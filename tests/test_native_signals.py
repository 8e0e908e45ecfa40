"""An engine whose call a signal interrupts: the handler may call it and close it, and neither waits for the other."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, get_ident
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


def interrupted_while_computing(engine: Engine, _: pytest.MonkeyPatch | None = None) -> None:
    run = engine._run

    def interrupted(*arguments: int) -> int:
        engine._run = run
        signal.raise_signal(signal.SIGALRM)
        return int(run(*arguments))

    engine._run = interrupted


def interrupted_while_beginning(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        monkeypatch.setattr(engine_module, "get_ident", get_ident)
        signal.raise_signal(signal.SIGALRM)
        return get_ident()

    monkeypatch.setattr(engine_module, "get_ident", interrupted)


PLACES = pytest.mark.parametrize("place", [interrupted_while_computing, interrupted_while_beginning])


@PLACES
def test_a_handler_may_call_the_engine_that_it_has_interrupted(
    place: Callable[[Engine, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bytes] = []
    with Engine(planned(TINY)[0], threads=2) as engine:
        wanted = engine(IMAGES).tobytes()
        place(engine, monkeypatch)
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


def test_a_call_that_a_handler_closes_before_it_begins_says_so(
    freed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(planned(TINY)[0], threads=2)
    interrupted_while_beginning(engine, monkeypatch)
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
        with pytest.raises(UserError, match="closed"):
            engine._instead["fp32"](IMAGES)


def test_a_handler_closes_while_two_threads_need_what_answers_in_fp32() -> None:
    """The one that is interrupted makes it; the other waits for nothing that the first one holds."""
    plan, _ = planned(TINY)
    engine = Engine(plan, threads=1)
    wanted, found, computing = engine(IMAGES).tobytes(), dict[str, bytes](), Event()
    run, exact = engine._run, iter([True])

    def lost(handle: int, x: int, images: int, logits: int) -> int:
        if current_thread() is other:
            computing.set()
        failed = int(run(handle, x, images, logits))
        np.frombuffer((engine_module.ctypes.c_char * (images * 16)).from_address(logits), np.float32)[:] = np.inf
        return failed

    def again() -> Engine:
        if next(exact, False):
            other.start()
            computing.wait()
            signal.raise_signal(signal.SIGALRM)
        return Engine(plan, threads=1)

    engine._run, engine._again = lost, again
    other = Thread(target=lambda: found.update(other=engine(IMAGES).tobytes()), daemon=True)
    with handling(engine.close):
        found["first"] = engine(IMAGES).tobytes()
    other.join()
    assert found == {"first": wanted, "other": wanted}
