"""What the native engine promises: PyTorch's logits, the same bits from any threads, no crash when asked wrongly."""

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from native_program import NETWORKS, answered, as_near_as_pytorch, furthest, pictures, planned, spoiled
from specs import architectures
from tiny import TINY
from waiting import LONGEST

from triscale.arch import Architecture, Conv, FusedMBConv, Head, MBConv, Stage, Stem, adapt, published
from triscale.cores import usable_cores
from triscale.engines.native import Availability, Engine, Plan, available, measure_limit
from triscale.engines.native import engine as engine_module
from triscale.engines.native import library as library_module
from triscale.engines.native.layers import NONE, Kind, Layer
from triscale.errors import TriscaleError, UserError
from triscale.precision import Precision

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}"),
]


@cache
def tiny_plan() -> Plan:
    return planned(TINY)[0]


@settings(max_examples=100)
@given(architectures(), st.integers(0, 1000), st.integers(1, 9), st.integers(1, 3))
def test_the_engine_computes_what_pytorch_does(architecture: Architecture, seed: int, n: int, threads: int) -> None:
    plan, network = planned(architecture, seed)
    x = pictures(architecture, n, seed)
    with Engine(plan, threads=threads) as engine:
        as_near_as_pytorch(engine(x), network, x)


@pytest.mark.parametrize("resolution", [(8192, 4), (4, 8192)])
@pytest.mark.parametrize("block", [Conv(1, "relu"), FusedMBConv(1, 1, 0.5, "relu"), MBConv(3, 2, 0.5, "silu")])
def test_the_sums_of_large_maps_of_one_colour_are_as_exact_as_those_of_small_ones(
    block: Conv | FusedMBConv | MBConv, resolution: tuple[int, int]
) -> None:
    """Equal values that are added up one after another are all rounded to the same side."""
    architecture = Architecture((Stage(block, 3),), Stem(3, 3, 1, "relu"), Head(4, None), resolution, 1)
    for seed, colour in enumerate((0.0, -0.37)):
        plan, network = planned(architecture, seed)
        x = np.full((1, 1, *resolution), colour, np.float32)
        with Engine(plan) as engine:
            assert furthest(engine(x), answered(network, x)) < 1e-6


@pytest.mark.parametrize("resolution", [(64, 64), (57, 40)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_computes_published_networks(name: str, resolution: tuple[int, int]) -> None:
    architecture = adapt(published(name), resolution=resolution, classes=11)
    plan, network = planned(architecture)
    x = pictures(architecture, 3)
    with Engine(plan, threads=2) as engine:
        as_near_as_pytorch(engine(x), network, x)


@settings(max_examples=30)
@given(architectures(), st.integers(1, 9))
def test_bits_depend_on_neither_threads_nor_company(architecture: Architecture, n: int) -> None:
    plan, _ = planned(architecture)
    x = pictures(architecture, n)
    with Engine(plan, threads=1) as engine:
        wanted = engine(x)
        assert all(engine(x[i : i + 1]).tobytes() == wanted[i].tobytes() for i in range(n))
    for threads in (2, 3):
        with Engine(plan, threads=threads) as engine:
            assert engine(x).tobytes() == wanted.tobytes()
            assert engine(x).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("streams", [1, 3])
def test_many_callers_at_once_get_the_bits_of_one(streams: int) -> None:
    architecture = adapt(published("efficientnet_b0"), resolution=(32, 32), classes=10)
    plan, _ = planned(architecture)
    pieces = [pictures(architecture, 1 + seed % 4, seed) for seed in range(8)]
    with Engine(plan, threads=2, streams=streams) as engine, ThreadPoolExecutor(8) as pool:
        wanted = [engine(x).tobytes() for x in pieces]
        together = Barrier(len(pieces))

        def ask(x: Any) -> list[bytes]:
            together.wait()
            return [engine(x).tobytes() for _ in range(6)]

        assert list(pool.map(ask, pieces)) == [[bits] * 6 for bits in wanted]


def test_no_images_have_no_logits() -> None:
    with Engine(tiny_plan()) as engine:
        found = engine(pictures(TINY, 0))
    assert found.shape == (0, 4)
    assert found.dtype == np.float32


IMAGES = pictures(TINY, 2)
WRONG: list[tuple[Any, str]] = [
    (IMAGES.tolist(), "of float32, not a list"),
    (IMAGES.astype(np.float64), "of float32, not an array of float64"),
    (IMAGES.astype(">f4"), "of float32, not an array of >f4"),
    (IMAGES[0], r"\(n, 1, 16, 16\), not \(1, 16, 16\)"),
    (IMAGES[:, :, :8], r"\(n, 1, 16, 16\), not \(2, 1, 8, 16\)"),
    (IMAGES.transpose(0, 1, 3, 2), "np.require"),
    (np.zeros((2, 1, 16, 32), np.float32)[..., ::2], "np.require"),
    (np.frombuffer(bytes(1025), np.float32, 256, 1).reshape(1, 1, 16, 16), "np.require"),
]


@pytest.mark.parametrize(("x", "said"), WRONG)
def test_what_is_no_batch_of_images_is_refused(x: Any, said: str) -> None:
    with Engine(tiny_plan()) as engine, pytest.raises(UserError, match=said):
        engine(x)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "int8"}, "'int8' is none of fp32, bf16, fp16"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1,024, not 0"),
        ({"threads": True}, "not True"),
        ({"streams": 1025}, "streams must be"),
        ({"streams": 1.0}, "streams must be"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Engine(tiny_plan(), **options)


def test_an_engine_takes_all_cores_unless_told() -> None:
    with Engine(tiny_plan()) as engine:
        assert (engine.threads, engine.streams, engine.precision) == (usable_cores(), 1, "fp32")


def test_a_closed_engine_says_so() -> None:
    engine = Engine(tiny_plan())
    engine.close()
    engine.close()
    for images in (IMAGES, IMAGES[:0]):
        with pytest.raises(UserError, match="closed"):
            engine(images)


class Library:
    """The compiled library, but for functions of the engine that a test puts in their place."""

    def __init__(self, **instead: Callable[..., object]) -> None:
        self.real = library_module.library()
        self.__dict__.update({f"triscale_engine_{name}": function for name, function in instead.items()})

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


class AlarmError(BaseException):
    """A signal's handler raises it, wherever the program is."""


def alarmed(*_: object) -> None:
    raise AlarmError


def test_an_interruption_anywhere_in_a_call_leaves_nothing_that_closing_would_wait_for() -> None:
    before = signal.signal(signal.SIGALRM, alarmed)
    try:
        for n in range(300):
            engine = Engine(tiny_plan(), threads=1)
            with suppress(AlarmError):
                signal.setitimer(signal.ITIMER_REAL, 5e-4 + 1e-6 * (n % 50))
                while True:
                    engine(IMAGES)
            closing = Thread(target=engine.close, daemon=True)
            closing.start()
            closing.join(LONGEST)
            assert not closing.is_alive()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_is_handled_between_the_pieces_of_a_large_call(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def interrupted(handle: int, x: int, images: int, logits: int) -> int:
        sizes.append(images)
        if len(sizes) == 3:
            signal.raise_signal(signal.SIGALRM)
        return library.real.triscale_engine_run(handle, x, images, logits)

    library = Library(run=interrupted)
    monkeypatch.setattr(engine_module, "PIECE", 0.0)
    monkeypatch.setattr(engine_module, "library", lambda: library)
    with Engine(tiny_plan(), threads=1) as engine:
        before = signal.signal(signal.SIGALRM, alarmed)
        try:
            with pytest.raises(AlarmError):
                engine(np.repeat(IMAGES, 50, 0))
        finally:
            signal.signal(signal.SIGALRM, before)
        assert sizes == [engine_module.EACH] * 3


@pytest.mark.parametrize("piece", [0.0, 1e-5, 1e-4, 10.0])
def test_the_pieces_of_a_call_give_the_bits_of_one_call_for_each_image(
    piece: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PIECE", piece)
    x = pictures(TINY, 67)
    with Engine(tiny_plan(), threads=2) as engine:
        alone = np.concatenate([engine(x[n : n + 1]) for n in range(len(x))])
        for _ in range(3):
            assert engine(x).tobytes() == alone.tobytes()


def test_a_plan_that_was_changed_after_its_check_is_refused() -> None:
    for plan in (pickle.loads(pickle.dumps(tiny_plan())), copy.deepcopy(tiny_plan())):
        assert np.array_equal(plan.layers, tiny_plan().layers)
        plan.layers[-1, Layer._fields.index("outputs")] = 100_000
        with pytest.raises(ValueError, match="the layers are not those of"):
            Engine(plan)


def test_an_engine_is_not_copied() -> None:
    with Engine(tiny_plan()) as engine:
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied; make another of the plan"):
                copied(engine)


def test_closing_waits_for_who_is_at_work() -> None:
    architecture = adapt(published("efficientnet_b0"), resolution=(64, 64), classes=10)
    plan, _ = planned(architecture)
    x = pictures(architecture, 8)
    with Engine(plan, threads=1) as engine:
        wanted = engine(x).tobytes()
    for _ in range(5):
        engine = Engine(plan, threads=2)
        together = Barrier(5)

        def ask(engine: Engine = engine, together: Barrier = together) -> bytes | str:
            together.wait()
            try:
                return engine(x).tobytes()
            except UserError as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask) for _ in range(4)]
            together.wait()
            engine.close()
        assert {one.result() for one in asked} <= {wanted, "efficientnet_b0: the engine is closed; make another"}


def test_an_engine_that_nobody_has_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[int] = []

    def noted(handle: int) -> None:
        freed.append(handle)
        library.real.triscale_engine_destroy(handle)

    library = Library(destroy=noted)
    monkeypatch.setattr(engine_module, "library", lambda: library)
    engine = Engine(tiny_plan())
    engine(IMAGES)
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    assert len(freed) == 1


def test_an_engine_of_another_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(tiny_plan()) as engine:
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: -1)
            with pytest.raises(UserError, match="another process's; make one in this process"):
                engine(IMAGES)
        assert engine(IMAGES).shape == (2, 4)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_call_that_only_its_parent_will_end(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go = Event(), Event()

    def held(*call: int) -> int:
        entered.set()
        assert go.wait(LONGEST)
        return library.real.triscale_engine_run(*call)

    library = Library(run=held)
    monkeypatch.setattr(engine_module, "library", lambda: library)
    with Engine(tiny_plan()) as engine, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(engine, IMAGES)
        assert entered.wait(LONGEST)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            with suppress(UserError):
                engine(IMAGES)
            engine.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        go.set()
        assert answer.result().shape == (2, 4)


def test_an_engine_needs_its_plan_no_more() -> None:
    plan = tiny_plan()
    with Engine(plan) as first:
        wanted = first(IMAGES)
    blob = plan.blob.copy()
    engine = Engine(Plan(TINY, plan.layers, blob))
    blob[:] = np.nan
    with engine:
        assert engine(IMAGES).tobytes() == wanted.tobytes()


@settings(max_examples=300)
@given(st.data())
def test_a_plan_that_says_anything_is_refused_or_runs(data: st.DataObject) -> None:
    """No number in a plan makes the engine read or write beyond its memory: that would end the process."""
    plan = tiny_plan()
    row, field = data.draw(st.integers(0, len(plan.layers) - 1)), data.draw(st.integers(0, 24))
    near = st.integers(-3, 40) | st.sampled_from([1 << 20, 1 << 31, 1 << 62, -(1 << 63), (1 << 63) - 1])
    value = data.draw(near)
    try:
        engine = Engine(spoiled(plan, row, field, value), threads=2)
    except (TriscaleError, ValueError) as error:
        assert "no engine could be made: " in str(error) or "the layers are not" in str(error)  # noqa: PT017
        return
    with engine:
        engine(IMAGES)


@pytest.mark.parametrize("field", ["input", "residual", "gate", "sums"])
def test_no_layer_names_a_buffer_that_there_is_not(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where its kind uses none."""
    plan = tiny_plan()
    buffers = plan.buffers
    monkeypatch.setattr(engine_module, "count_buffers", lambda layers: buffers)
    for row in range(len(plan.layers)):
        with pytest.raises(TriscaleError, match="no engine could be made: "):
            Engine(spoiled(plan, row, Layer._fields.index(field), buffers + 1000))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit that the system holds")
def test_threads_that_the_system_refuses_are_an_error(tmp_path: Path) -> None:
    tiny_plan().save(tmp_path / "plan")
    code = (
        "import resource, sys\n"
        "from triscale.engines.native import Engine, Plan\n"
        "plan = Plan.load(sys.argv[1])\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + (128 << 20),) * 2)\n"
        "try:\n"
        "    Engine(plan, threads=200)\n"
        "except Exception as error:\n"
        "    print(error)\n"
        "print(Engine(plan, threads=2).threads)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "plan"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "no more threads" in ran.stdout.splitlines()[0]
    assert ran.stdout.splitlines()[1] == "2"


def gated(side: int) -> Architecture:
    """A network whose gates reach a map of few pixels or, where there are many, the weights behind it."""
    block = MBConv(3, 1, squeeze_excite=0.5)
    stages = (Stage(block, 8, 1), Stage(replace(block, expansion=3), 40, 2))
    return replace(TINY, stages=stages, resolution=(side, side + 3))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("side", [3, 5, 12, 40])
def test_gates_reach_small_maps_and_the_weights_behind_large_ones(side: int, precision: Precision) -> None:
    if precision not in available().precisions:
        pytest.skip(f"this processor does not multiply {precision}")
    architecture = gated(side)
    plan, network = planned(architecture)
    x = pictures(architecture, 4)
    answers = []
    for threads in (1, 2, 5):
        with Engine(plan, precision=precision, threads=threads) as engine:
            answers += [engine(x), np.concatenate([engine(x[i : i + 1]) for i in range(4)])]
    assert all(answer.tobytes() == answers[0].tobytes() for answer in answers)
    if precision == "fp32":
        as_near_as_pytorch(answers[0], network, x)
    else:
        assert furthest(answers[0], answered(network, x)) < 0.05


def test_a_map_that_gates_change_is_read_by_nobody_else() -> None:
    plan, _ = planned(replace(gated(5), stages=gated(5).stages[:1]))
    layers = [Layer(Kind(row[0]), *row[1:]) for row in plan.layers.tolist()]
    project = next(row for row, one in enumerate(layers) if one.gate != NONE)
    pool = next(row for row, one in enumerate(layers) if one.kind is Kind.MEAN)
    wrong = (project, "residual", "a shortcut that the gates change"), (pool, "input", "an input that is not there")
    for row, field, said in wrong:
        with pytest.raises(TriscaleError, match=said):
            Engine(spoiled(plan, row, Layer._fields.index(field), layers[project].input))


def test_where_there_is_no_library_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "_opened", lambda: (None, Availability(None, why="they were not compiled")))
    assert available() == Availability(None, why="they were not compiled")
    with pytest.raises(TriscaleError, match="no native engine here: they were not compiled; run the model by PyTorch"):
        Engine(tiny_plan())


def test_the_limit_counts_products_and_refuses_those_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    count = library_module.library().triscale_engine_limit
    assert count(0, 30) == 3 * count(0, 10) > 0
    assert measure_limit(threads=2) > 0
    with pytest.raises(UserError, match="'int8' is none of fp32, bf16, fp16"):
        measure_limit("int8")  # type: ignore[arg-type]
    monkeypatch.setattr(library_module, "available", lambda: Availability("avx2", ("fp32",)))
    with pytest.raises(UserError, match="does not multiply bf16; take 'fp32'"):
        measure_limit("bf16")
