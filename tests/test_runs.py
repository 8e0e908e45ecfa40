import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from triscale.arch.resolve import FOUND
from triscale.errors import TriscaleError, UserError
from triscale.fitting.whole import WHOLE
from triscale.runs import RunDirectory, write_whole
from triscale.searching.writing import RESULT as SEARCHED
from triscale.searching.writing import SPACE
from triscale.studies.writing import BASELINE, COEFFICIENTS, FASTEST
from triscale.studies.writing import RESULT as STUDIED


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "file.json"
    write_whole(place, "old")
    write_whole(place, b"new")
    assert place.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [place]


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from triscale.errors import TriscaleError; from triscale.runs import write_whole\n"
        "try: write_whole(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except TriscaleError as error: print(error); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 7, done.stderr
    assert "unchanged" in done.stdout
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def forced(handle: int) -> None:
        size = os.fstat(handle).st_size
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{size} bytes")
        fsync(handle)

    def renamed(*paths: Path) -> None:
        done.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "replace", renamed)
    write_whole(tmp_path / "file", b"x" * 1234)
    assert done == ["1234 bytes", "name", "folder"]


def test_writing_where_no_directory_is_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(TriscaleError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "file", "x")


def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "whole", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_run_is_never_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="taken"):
        RunDirectory.create(tmp_path / "taken")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file"):
        RunDirectory.create(tmp_path / "file")
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_an_empty_directory_becomes_a_run(tmp_path: Path) -> None:
    assert RunDirectory.create(tmp_path).path == tmp_path


def test_metrics_survive_a_torn_last_line(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_metrics([{"epoch": 1}, {"epoch": 2}])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert [row["epoch"] for row in run.metrics()] == [1, 2]


def test_splits_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_splits([("ä, b/猫.png", "test", "00ff"), ('quo"te.png', "train", "aa")])
    assert run.splits() == {"ä, b/猫.png": ("test", "00ff"), 'quo"te.png': ("train", "aa")}


@pytest.mark.parametrize("name", ["cat\r/1.png", "\r", "a\r\nb,c.png", "a\nb.png"])
def test_splits_come_back_where_a_name_holds_an_end_of_line(tmp_path: Path, name: str) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_splits(iter([(name, "train", "00ff"), ("b.png", "test", "aa")]))
    assert run.splits() == {name: ("train", "00ff"), "b.png": ("test", "aa")}


@pytest.mark.parametrize("row", ["cat\r/1.png,train,00ff", "cat.png", "cat.png,train", "cat.png,train,00ff,more"])
def test_splits_with_a_row_of_another_length_are_refused(tmp_path: Path, row: str) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / "splits.csv").write_bytes(f"name,split,sha256\nb.png,test,aa\n{row}\n".encode())
    with pytest.raises(UserError, match=r"splits\.csv: not readable"):
        run.splits()


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json"):
        RunDirectory.open(tmp_path)


def test_an_interruption_while_writing_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "x").write_text("old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_run_needs_a_name_that_is_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text"):
        RunDirectory.check_free(tmp_path / "bad\udcff")


def test_the_other_runs_of_a_directory_are_found(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        RunDirectory.create(tmp_path / name).write_settings({"name": name})
    (tmp_path / "no-run").mkdir()
    assert [run.path.name for run in RunDirectory.open(tmp_path / "b").beside()] == ["a", "c"]


def test_what_the_clock_says_stands_apart_and_is_read_with_the_rest(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    rows = [{"epoch": 1, "loss": 2.0, "seconds": 3.0}, {"epoch": 2, "loss": 1.0, "seconds": 4.0}]
    run.write_metrics(rows, ("seconds",))
    assert "seconds" not in (run.path / "metrics.jsonl").read_text()
    assert "loss" not in (run.path / "timings.jsonl").read_text()
    assert list(run.metrics()) == rows


def test_only_one_process_works_on_a_run(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with run.alone(), pytest.raises(UserError, match="another process works on this run"), run.alone():
        pass
    with run.alone():
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_disk_knows_no_locks_a_run_is_worked_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    run = RunDirectory.create(tmp_path / "run")
    with run.alone():
        run.write_settings({"a": 1})
    assert run.settings() == {"a": 1}


@pytest.mark.parametrize("name", [WHOLE, FOUND, SEARCHED, SPACE, STUDIED, BASELINE, COEFFICIENTS, FASTEST])
def test_what_stages_did_not_write_to_its_end_is_removed_and_in_nobodys_way(tmp_path: Path, name: str) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / f".{name}.ab12_3cd").write_text("half")
    assert RunDirectory.check_free(tmp_path) == tmp_path
    with RunDirectory(tmp_path).alone():
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("left", [(), ("start.safetensors",), (".start.safetensors.ab12_3cd",)])
def test_a_fit_killed_after_it_wrote_its_start_is_begun_anew_without_that_start(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "checkpoints").mkdir()
    for name in left:
        (tmp_path / "checkpoints" / name).write_text("of other weights")
    with RunDirectory.create(tmp_path).alone():
        assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_start_of_a_run_that_has_a_plan_stays(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_settings({})
    run.checkpoints.mkdir()
    run.start.write_text("weights")
    with run.alone():
        assert run.start.read_text() == "weights"


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", "splits.csv"), (".lock", ".run.json.ab12_3cd")])
def test_what_a_writer_left_that_was_killed_before_there_was_a_plan_is_begun_anew(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    place = tmp_path / "run"
    place.mkdir()
    for name in left:
        (place / name).write_text("half")
    run = RunDirectory.take_over(place)
    assert not run.begun()
    with run.alone():
        assert {path.name for path in place.iterdir()} <= {".lock", "splits.csv"}


@pytest.mark.parametrize("mine", ["mine.txt", "checkpoints/best.pt", ".run.json.of-mine"])
@pytest.mark.parametrize("lock", [False, True])
def test_what_is_no_run_is_not_taken_over(tmp_path: Path, mine: str, lock: bool) -> None:
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text("mine")
    (tmp_path / "splits.csv").write_text("mine too")
    if lock:
        (tmp_path / ".lock").touch()
    with pytest.raises(UserError, match="something lies there"):
        RunDirectory.take_over(tmp_path)
    assert (tmp_path / mine).read_text() == "mine"
    assert (tmp_path / "splits.csv").read_text() == "mine too"


def test_a_run_whose_writer_still_works_on_its_plan_is_not_taken_from_it(tmp_path: Path) -> None:
    first = RunDirectory.create(tmp_path / "run")
    with first.alone():
        second = RunDirectory.take_over(tmp_path / "run")
        with pytest.raises(UserError, match="another process"), second.alone():
            pass


def test_files_that_a_killed_process_did_not_write_to_their_end_are_removed(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_settings({})
    for name in (".metrics.jsonl.abcd_123", ".model.safetensors.00000000", ".mine"):
        (run.path / name).write_text("half")
    with run.alone():
        assert sorted(path.name for path in run.path.iterdir()) == [".lock", ".mine", "run.json"]


def test_a_run_that_was_begun_is_taken_over_as_it_is(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run").write_settings({"a": 1})
    assert RunDirectory.take_over(tmp_path / "run").settings() == {"a": 1}
