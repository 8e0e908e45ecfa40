"""kill -9 wherever it strikes: what goes on ends in the bytes of what was never killed."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from trainings import checkpoint, command, finished, network, results, started
from waiting import until

KILLS, EARLY = 20, 3


def words(digits: Path, tiny: Path, out: Path, recipe: str) -> tuple[object, ...]:
    return (
        *("train", digits, "--architecture", tiny, "--recipe", recipe, "--epochs", "12", "--batch", "8", "--seed", "5"),
        *("--deterministic", "--checkpoint-every", "0s", "--resume", "--out", out),
    )


def _wait(process: subprocess.Popen[str], out: Path, name: str, number: int) -> None:
    """Until there is a file, and a checkpoint of that number or a later one; the first files come before any."""
    until(lambda: (out / name).exists() and (name != "run.json" or checkpoint(out) >= number), process)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["quick", "paper"])
def test_a_training_that_is_killed_at_random_moments_ends_in_the_same_bytes(
    digits: Path, tmp_path: Path, recipe: str
) -> None:
    tiny, chance = network(tmp_path), random.Random(recipe)
    whole = finished(*words(digits, tiny, tmp_path / "whole", recipe))
    assert whole.returncode == 0, whole.stderr
    last = checkpoint(tmp_path / "whole")
    assert last >= 60, "a checkpoint a step"

    out, line, struck = tmp_path / "run", command(*words(digits, tiny, tmp_path / "run", recipe)), []
    for kill in range(KILLS):
        # A few steps further each time, and some milliseconds: within steps, writes, epochs' ends.
        number = checkpoint(out) + chance.randint(1, 2 * last // KILLS) if kill >= EARLY else 0
        with started(line=line) as process:
            _wait(process, out, (".lock", "splits.csv", "run.json")[kill] if kill < EARLY else "run.json", number)
            time.sleep(chance.uniform(0, 0.04))
            process.send_signal(signal.SIGKILL)
            _, err = process.communicate()
            assert process.returncode in (-signal.SIGKILL, 0), err
            struck.append((process.returncode, checkpoint(out)))
    print(f"{recipe}: ended or killed, at checkpoint: {struck}")
    ended = finished(*words(digits, tiny, out, recipe))
    assert ended.returncode == 0, ended.stderr
    assert results(out) == results(tmp_path / "whole")
    assert sum(code != 0 for code, _ in struck) >= KILLS // 2, "most of them struck"
    assert len({number for _, number in struck}) > KILLS // 2, "and not all at one moment"
    assert not [path for path in out.rglob(".*") if path.is_file() and path.name != ".lock"], "no rest of a writer"
