import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from triscale.errors import TriscaleError, UserError
from triscale.runs import RunDirectory, write_whole


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
    run.add_metrics({"epoch": 1})
    run.add_metrics({"epoch": 2})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert [row["epoch"] for row in run.metrics()] == [1, 2]


def test_splits_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_splits([("ä, b/猫.png", "test", "00ff"), ('quo"te.png', "train", "aa")])
    assert run.splits() == {"ä, b/猫.png": ("test", "00ff"), 'quo"te.png': ("train", "aa")}


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
