"""Several processes train one network: as one alone would, and also where one of them is killed."""

import csv
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CPU, LOOK, TINY, some_digits
from trainings import checkpoint, finished, network, results, started
from waiting import LONGEST, until

from triscale.data import prepare
from triscale.evaluating import predict_images
from triscale.fitting.judging import judge, predict_together
from triscale.models.model import new
from triscale.training import Processes, named
from triscale.training.recipes import to_json

Rows = list[npt.NDArray[np.float32]]


class Told(Processes):
    """One of several that hears from the others what is given here."""

    rows: Rows = []  # noqa: RUF012

    def gather(self, rows: npt.NDArray[np.float32]) -> Rows:
        return self.rows


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(2, 5))
def test_each_image_is_looked_at_once_however_many_there_are_and_all_know_the_whole(images: int, world: int) -> None:
    model, split = new(TINY, ("0", "1", "2", "3"), LOOK), prepare(some_digits(images), LOOK)
    alone = predict_images(model, split)
    shares = [predict_images(model, split, rank=rank, world=world) for rank in range(world)]
    assert sorted(name for share in shares for name in share.names) == sorted(alone.names)
    Told.rows = [share.probabilities for share in shares]
    for rank in range(world):
        found = predict_together(model, split, processes=Told(rank, world))
        assert found.names == alone.names
        np.testing.assert_array_equal(found.labels, alone.labels)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, rtol=1e-4, atol=1e-6)
        verdict, expected = judge(model, split, CPU, Told(rank, world)), judge(model, split, CPU)
        assert (verdict.accuracy, verdict.loss) == pytest.approx((expected.accuracy, expected.loss), rel=1e-4)


def torchrun(*words: object) -> list[str]:
    """Two processes on this machine, started again when one dies."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "--max-restarts", "3", "--monitor-interval", "0.1", "-m", "triscale", *map(str, words)]


def words(digits: Path, tiny: Path, recipe: Path | str, out: Path, epochs: int) -> tuple[object, ...]:
    return (
        *("train", digits, "--architecture", tiny, "--recipe", recipe, "--epochs", epochs, "--batch", "8"),
        *("--seed", "7", "--deterministic", "--checkpoint-every", "0s", "--out", out),
    )


def together(*asked: object) -> str:
    with started(line=torchrun(*asked)) as process:
        _, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, err
    return err


def worker(parent: int, rank: int) -> int:
    """The process of that rank; 0 where there is none yet."""
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and f"\nPPid:\t{parent}\n" in (place / "status").read_text():
                variables = (place / "environ").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in variables:
                    return int(place.name)
        except OSError:
            continue
    return 0


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without chance: how pictures are shared out must make no difference."""
    return network(tmp_path_factory.mktemp("still"), replace(TINY, name="still"))


@pytest.fixture(scope="module")
def odd(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of images: 9 to validate with and 11 to test with, which two processes cannot share evenly."""
    lines = ["path,label,split"]
    for index, picture in enumerate(sorted(digits.rglob("*.png"))):
        split = "val" if index % 20 < 3 else "test" if index % 20 < (6 if index > 40 else 7) else "train"
        lines.append(f"{picture},{picture.parent.name},{split}")
    place = tmp_path_factory.mktemp("odd") / "list.csv"
    place.write_text("\n".join([*lines, ""]))
    return place


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_no_image_counts_twice(odd: Path, still: Path, tmp_path: Path) -> None:
    quick = named("quick")
    recipe = replace(quick.recipe, frozen_norm=True, average=0.9, augment=replace(quick.recipe.augment, mixup=0.2))
    (tmp_path / "frozen.json").write_text(to_json(replace(quick, recipe=recipe)))
    runs = [tmp_path / "alone", tmp_path / "together"]
    alone = finished(*words(odd, still, tmp_path / "frozen.json", runs[0], 4))
    assert alone.returncode == 0, alone.stderr
    err = together(*words(odd, still, tmp_path / "frozen.json", runs[1], 4))
    assert err.count("epoch 4: loss") == 1, "only the first process speaks"
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    assert [row["epoch"] for row in rows[1]] == [1, 2, 3, 4]
    for one, other in zip(*rows, strict=True):
        for key in ("loss", "val_loss", "rate"):
            assert other[key] == pytest.approx(one[key], abs=1e-4), key
        assert other["step"] == one["step"]
    tables = [list(csv.DictReader((run / "predictions.csv").read_text().splitlines())) for run in runs]
    assert [row["name"] for row in tables[1]] == [row["name"] for row in tables[0]]
    assert len({row["name"] for row in tables[1]}) == len(tables[1]) == 11
    for row in rows[1]:
        assert row["val_accuracy"] * 9 == pytest.approx(round(row["val_accuracy"] * 9), abs=1e-9)


@pytest.fixture(scope="module")
def undisturbed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network with chance in it, and a run of two processes that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    tiny = network(folder)
    together(*words(digits, tiny, "quick", folder / "run", 12))
    return tiny, folder / "run"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_of_two_is_killed_both_go_on_to_the_same_bytes(
    digits: Path, undisturbed: tuple[Path, Path], tmp_path: Path, rank: int
) -> None:
    tiny, whole = undisturbed
    out = tmp_path / "run"
    with started(line=torchrun(*words(digits, tiny, "quick", out, 12))) as process:
        assert until(lambda: checkpoint(out) >= 20, process)
        os.kill(worker(process.pid, rank), signal.SIGKILL)
        _, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, err
    assert "going on with" in err
    assert results(out) == results(whole)


@pytest.mark.slow
def test_processes_that_are_asked_to_stop_keep_what_they_have_and_go_on_to_the_same_bytes(
    digits: Path, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    tiny, whole = undisturbed
    out = tmp_path / "run"
    with started(line=torchrun(*words(digits, tiny, "quick", out, 12))) as process:
        assert until(lambda: checkpoint(out) >= 10, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LONGEST)
        assert process.returncode != 0
    assert "which is kept; go on with: triscale train" in err
    together("train", "--resume", "--out", out)
    assert results(out) == results(whole)


@pytest.mark.slow
def test_a_batch_too_small_for_the_processes_is_one_line(digits: Path, still: Path, tmp_path: Path) -> None:
    asked = [*words(digits, still, "quick", tmp_path / "run", 2)]
    asked[asked.index("8")] = "3"
    line = torchrun(*asked)
    line[line.index("3", line.index("--max-restarts"))] = "0"
    with started(line=line) as process:
        _, err = process.communicate(timeout=LONGEST)
        assert process.returncode != 0
    told = [line for line in err.splitlines() if line.startswith("triscale: ")]
    assert told == ["triscale: --batch 3: 2 processes need at least two images each; raise it"]


@pytest.mark.slow
def test_processes_find_each_other_whatever_an_earlier_attempt_left_in_their_store(tmp_path: Path) -> None:
    """torchrun keeps one store over restarts; in it lie the addresses of processes that are dead."""
    script = tmp_path / "attempts.py"
    script.write_text(
        "import os, sys, time, torch\n"
        "from triscale.training import joined\n"
        "with joined() as processes:\n"
        "    total = float(processes.sum(torch.tensor([1.0 + processes.rank])))\n"
        "    if processes.restarts < 3:\n"
        "        os._exit(9) if processes.rank == processes.restarts % 2 else time.sleep(60)\n"
        "    if processes.leads:\n"
        "        print('total', total, 'after', processes.restarts)\n"
    )
    line = torchrun()
    with started(line=[*line[: line.index("-m", 3)], str(script)]) as process:
        out, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, err
    assert out == "total 3.0 after 3\n"
