"""Checkpoints: whole or not at all, checked when read; whatever happens, the last good one is there."""

import json
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triscale.errors import TriscaleError
from triscale.training import Checkpoints, InMemory
from triscale.training.checkpoints import Snapshot, read_snapshot, rows_of, to_bytes


def snapshot(number: int) -> Snapshot:
    generator = torch.Generator().manual_seed(number)
    tensors = {
        "model.a": torch.randn(3, 5, 2, 2, generator=generator).contiguous(memory_format=torch.channels_last),
        "model.count": torch.tensor(number),
        "optimizer.step.a": torch.tensor(float(number)),
        "average.half": torch.randn(7, generator=generator).bfloat16(),
        "model.none": torch.empty(0),
    }
    row = {"epoch": 1, "step": 2, "loss": 0.1 + 0.2, "rate": 1e-17, "val_accuracy": 0.5, "val_loss": 1.0}
    return Snapshot(tensors, {"number": number, "rows": [{**row, "seconds": 1.0, "images_per_second": 2.0}]})


def same(found: Snapshot | None, number: int) -> bool:
    expected = snapshot(number)
    return (
        found is not None
        and found.values == expected.values
        and found.tensors.keys() == expected.tensors.keys()
        and all(
            torch.equal(found.tensors[name], value) and found.tensors[name].dtype == value.dtype
            for name, value in expected.tensors.items()
        )
    )


def saved(folder: Path, *numbers: int) -> list[Path]:
    """The files, oldest first."""
    for number in numbers:
        Checkpoints(folder).save(snapshot(number))
    return sorted(folder.iterdir())


def test_a_snapshot_comes_back_bit_by_bit_and_never_changes_with_what_it_was_taken_from(tmp_path: Path) -> None:
    for keeper in (Checkpoints(tmp_path / "deep" / "folder"), InMemory()):
        assert keeper.newest() is None
        assert rows_of(keeper) == ()
        mine = snapshot(1)
        keeper.save(mine)
        mine.tensors["model.a"].zero_()
        assert same(keeper.newest(), 1)
        assert [row.loss for row in rows_of(keeper)] == [0.1 + 0.2]


@settings(max_examples=20)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_the_newest_and_the_one_before_are_kept(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    folder = tmp_path_factory.mktemp("kept")
    saved(folder, *numbers)
    assert len(list(folder.iterdir())) == min(2, len(numbers))
    assert same(Checkpoints(folder).newest(), numbers[-1])
    sorted(folder.iterdir())[-1].unlink()
    assert len(numbers) < 2 or same(Checkpoints(folder).newest(), numbers[-2])


SIZE = len(to_bytes(snapshot(2)))


@settings(max_examples=60)
@given(st.integers(0, SIZE - 1), st.integers(0, 7), st.sampled_from(("cut", "flipped", "torn", "longer")))
def test_a_newest_file_that_is_damaged_anywhere_is_passed_over_for_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, how: str
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    newest = saved(folder, 1, 2)[-1]
    content = bytearray(newest.read_bytes())
    assert len(content) == SIZE
    if how == "cut":
        content = content[:place]
    elif how == "flipped":
        content[place] ^= 1 << bit
    elif how == "torn":  # blocks that never reached the disk are zeros
        content[place] ^= 1
        content[place:] = bytes(len(content) - place)
    else:
        content += bytes(1 + bit)
    newest.write_bytes(content)
    told: list[str] = []
    keeper = Checkpoints(folder, told=told.append)
    assert same(keeper.newest(), 1)
    assert len(told) == 1
    assert newest.name in told[0]
    assert "\n" not in told[0]
    keeper.save(snapshot(3))
    assert same(Checkpoints(folder).newest(), 3)


def test_where_no_file_is_whole_there_is_none_and_each_is_named(tmp_path: Path) -> None:
    files = saved(tmp_path, 1, 2)
    for file in files:
        file.write_bytes(b"x")
    told: list[str] = []
    assert Checkpoints(tmp_path, told=told.append).newest() is None
    assert [any(file.name in text for text in told) for file in files] == [True, True]


def test_a_newest_file_that_cannot_be_read_is_passed_over_too(tmp_path: Path) -> None:
    newest = saved(tmp_path, 1, 2)[-1]
    newest.unlink()
    newest.mkdir()
    told: list[str] = []
    assert same(Checkpoints(tmp_path, told=told.append).newest(), 1)
    assert "cannot be read" in told[0]


def test_what_a_killed_writer_left_is_removed_and_what_is_not_its_own_stays(tmp_path: Path) -> None:
    newest = saved(tmp_path, 1, 2)[-1]
    (tmp_path / f".{newest.name}.abc12345").write_bytes(newest.read_bytes()[:100])
    (tmp_path / "start.safetensors").write_bytes(b"a model")
    (tmp_path / "scratch").mkdir()
    (tmp_path / ".mine").write_text("mine")
    keeper = Checkpoints(tmp_path)
    assert same(keeper.newest(), 2)
    keeper.save(snapshot(3))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"start.safetensors", "scratch", ".mine"} < names
    assert len(names) == 5


class Writer:
    """A file whose disk is full after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if len(data) > self.room:
            self.file.write(data[: self.room])
            self.file.flush()
            raise OSError(28, "No space left on device")
        return int(self.file.write(data))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def failing(patch: pytest.MonkeyPatch, where: str, call: int, error: BaseException, room: int) -> None:
    """From now on the call to `where` of that number fails, from 0."""
    if where == "write":
        real = os.fdopen
        patch.setattr(os, "fdopen", lambda handle, mode: Writer(real(handle, mode), room))
        return
    original: Callable[..., object] = getattr(os, where)
    calls: list[object] = []

    def fail(*args: object, **named: object) -> object:
        calls.append(args)
        if len(calls) == call + 1:
            raise error
        return original(*args, **named)

    patch.setattr(os, where, fail)


@settings(max_examples=60)
@given(
    where=st.sampled_from(("fsync", "replace", "write", "unlink", "chmod", "umask", "open")),
    call=st.integers(0, 1),
    error=st.sampled_from(
        (OSError(28, "No space left on device"), OSError(5, "Input/output error"), KeyboardInterrupt())
    ),
    room=st.integers(0, SIZE - 1),
)
def test_a_fault_wherever_it_strikes_never_costs_the_last_good_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, where: str, call: int, error: BaseException, room: int
) -> None:
    folder = tmp_path_factory.mktemp("fault")
    saved(folder, 1, 2)
    written = True
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, where, call, error, room)
        try:
            Checkpoints(folder).save(snapshot(3))
        except (TriscaleError, OSError, KeyboardInterrupt):
            written = False
    found = Checkpoints(folder).newest()
    assert same(found, 3) or (not written and same(found, 2))
    Checkpoints(folder).save(snapshot(4))
    assert same(Checkpoints(folder).newest(), 4)
    assert len(list(folder.iterdir())) == 2, "no rest"


def test_a_disk_that_refuses_is_one_line_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    failing(monkeypatch, "fsync", 0, OSError(28, "No space left on device"), 0)
    with pytest.raises(TriscaleError, match=r"000002-.*No space left on device") as caught:
        Checkpoints(tmp_path).save(snapshot(2))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_a_safetensors_file_and_reading_one_unpickles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    file = saved(tmp_path, 1)[0]
    with safetensors.safe_open(file, "pt") as opened:
        assert set(opened.keys()) == set(snapshot(1).tensors)
        assert json.loads(opened.metadata()["values"]) == snapshot(1).values
    assert same(Checkpoints(tmp_path).newest(), 1)


@given(
    st.binary(max_size=300) | st.sampled_from((to_bytes(snapshot(1))[:-1], to_bytes(snapshot(1))[:200], b"\x80\x04N."))
)
def test_bytes_that_are_no_checkpoint_are_a_clear_line(content: bytes) -> None:
    with pytest.raises(TriscaleError, match="checkpoint") as caught:
        read_snapshot(content)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_version_says_which_version_to_go_on_with() -> None:
    content = to_bytes(snapshot(1)).replace(b'"format":"1"', b'"format":"9"')
    with pytest.raises(TriscaleError, match=r"format 9; this version reads 1: .*run\.json names"):
        read_snapshot(content)


def test_values_that_are_not_finite_come_back_too(tmp_path: Path) -> None:
    mine = replace(snapshot(1), values={"losses": [float("nan"), float("inf")]})
    Checkpoints(tmp_path).save(mine)
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert math.isnan(found.values["losses"][0])
    assert math.isinf(found.values["losses"][1])


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("triscale.training.checkpoints.time", clock)
    return clock


def test_a_checkpoint_is_due_within_an_epoch_by_the_clock_and_after_every_epoch(tmp_path: Path, clock: Clock) -> None:
    keeper = Checkpoints(tmp_path, every=60)
    keeper.save(snapshot(1))
    assert keeper.due(whole=True)
    for now, due in ((59.0, False), (60.0, True), (61.0, True)):
        clock.now = now
        assert keeper.due(whole=False) == due


def test_writing_that_takes_long_is_not_done_more_often_than_a_twentieth_of_the_time(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = to_bytes

    def slow(mine: Snapshot) -> bytes:
        clock.now += 10
        return real(mine)

    monkeypatch.setattr("triscale.training.checkpoints.to_bytes", slow)
    keeper = Checkpoints(tmp_path, every=60)
    keeper.save(snapshot(1))
    for later, due in ((100, False), (199, False), (201, True)):
        clock.now = 10.0 + later
        assert keeper.due(whole=True) == due
        assert keeper.due(whole=False) == due
    always = Checkpoints(tmp_path, every=0)
    always.save(snapshot(2))
    assert always.due(whole=False), "after every step, whatever it takes"


def test_a_damaged_file_is_no_generation_and_goes_with_the_next_good_one(tmp_path: Path) -> None:
    good, damaged = saved(tmp_path, 1, 2)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    told: list[str] = []
    keeper = Checkpoints(tmp_path, told=told.append)
    assert same(keeper.newest(), 1)
    keeper.save(snapshot(3))
    assert good.exists(), "with the damaged one gone there would be a single good one"
    assert not damaged.exists()
    assert same(Checkpoints(tmp_path).newest(), 3)
    assert len(told) == 1


def test_where_no_file_is_whole_it_is_said_that_the_training_begins_again(tmp_path: Path) -> None:
    for path in saved(tmp_path, 1, 2):
        path.write_bytes(b"torn")
    told: list[str] = []
    assert Checkpoints(tmp_path, told=told.append).newest() is None
    assert "begins again" in told[-1]
