"""Ctrl-C, SIGTERM and a full disk in the middle of a training: nothing is lost, and the way on is said and works."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_switch import switch_kernels
from trainings import ENVIRONMENT, checkpoint, command, network, plan, results, started
from waiting import LONGEST, until

import triscale as package
from triscale.kernels import library
from triscale.training import Step

WHOLE = {"epochs": 6, "batch": 8, "seed": 1, "deterministic": True}
WORDS = ("--epochs", "6", "--batch", "8", "--seed", "1", "--deterministic")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def whole(digits: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A run that nothing disturbed, with the threads of those that other processes begin."""
    out = tmp_path_factory.mktemp("whole") / "run"
    package.train(digits, out=out, architecture=tiny, **WHOLE)  # type: ignore[arg-type]
    return out


def on(err: str) -> list[str]:
    """The command that a last line says to go on with, as words after `triscale`."""
    line = err.strip().splitlines()[-1]
    assert line.startswith("triscale: "), err
    words = shlex.split(line.split("go on with: ")[1])
    assert words[0] == "triscale"
    return words[1:]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_in_training_keeps_what_there_is_and_names_the_command_that_goes_on_to_the_same_bytes(
    digits: Path,
    tiny: Path,
    whole: Path,
    tmp_path: Path,
    triscale,  # noqa: ANN001
    number: signal.Signals,
    code: int,
) -> None:
    out = tmp_path / "a run"
    words = ("train", digits, "--architecture", tiny, *WORDS, "--out", out, "--checkpoint-every", "0s")
    with started(*words) as process:
        assert until(lambda: checkpoint(out) >= 4, process)
        process.send_signal(number)
        stdout, err = process.communicate(timeout=LONGEST)
    assert process.returncode == code, err
    assert stdout == ""
    assert "Traceback" not in err
    assert re.search(r"stopped after step \d+ of 30, which is kept", err.splitlines()[-1])
    assert not (out / "model.safetensors").exists()
    ended, _, err = triscale(*on(err))
    assert ended == 0, err
    assert results(out) == results(whole)


def signalled(monkeypatch: pytest.MonkeyPatch, numbers: list[signal.Signals], at: int) -> None:
    """From now on a training in this process gets these signals after so many steps."""
    from triscale.cli import watching

    real = watching.Watcher.step

    def step(watcher: watching.Watcher, step: Step) -> None:
        real(watcher, step)
        if step.step == at:
            for number in numbers:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(watching.Watcher, "step", step)


@pytest.mark.parametrize("at", [1, 5, 29])
def test_a_signal_after_any_step_loses_none(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalled(patch, [signal.SIGTERM], at)
        code, _, err = triscale("train", digits, "--architecture", tiny, *WORDS, "--out", out)
    assert code == 143
    assert f"stopped after step {at} of 30" in err
    assert triscale(*on(err))[0] == 0
    assert results(out) == results(whole)


def test_a_second_control_c_ends_at_once_and_what_there_is_goes_on(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalled(patch, [signal.SIGINT, signal.SIGINT], 13)
        code, _, err = triscale("train", digits, "--architecture", tiny, *WORDS, "--out", out)
    assert code == 130
    assert "interrupted; the last checkpoint is kept" in err.splitlines()[-1]
    assert triscale(*on(err))[0] == 0
    assert results(out) == results(whole)


def test_a_signal_before_there_is_a_plan_says_that_nothing_was_changed(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triscale.cli.watching.Watcher.read", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    code, out, err = triscale("train", digits, "--architecture", tiny, *WORDS, "--out", tmp_path / "run")
    assert (code, out) == (143, "")
    assert err.splitlines()[-1] == "triscale: interrupted; your images are as they were"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_goes_on_as_it_says(
    triscale,  # noqa: ANN001
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalled(patch, [number], 3)
        words = ("fit", digits, "--macs", "400k", "--epochs", "3", "--baseline", "resnet18", "--out", out)
        code, _, err = triscale(*words)
    assert code == 128 + number
    again = on(err)
    assert again == ["fit", "--resume", "--out", str(out)]
    before = plan(out)
    code, answer, err = triscale(*again, "--json")
    assert code == 0, err
    values = json.loads(answer)
    assert values["steps"]["made"] == before["steps"]
    assert [row["epoch"] for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())] == [1, 2, 3]
    assert plan(out) == before, "nothing is measured or decided again"
    assert triscale("eval", out, "--json")[0] == 0


def test_an_interrupted_fit_goes_on_in_whichever_of_its_two_trainings_it_was(
    triscale,  # noqa: ANN001
    digits: Path,
    tmp_path: Path,
    fitted,  # noqa: ANN001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With weights, the network is trained from scratch too: the first training must not be made again."""
    out = tmp_path / "run"
    words = ("fit", digits, "--weights", fitted.run.path, "--epochs", "2", "--out", out)
    with monkeypatch.context() as patch:
        from triscale.cli.watching import Watcher

        real = Watcher.scratch

        def scratch(watcher: Watcher) -> None:
            real(watcher)
            signalled(patch, [signal.SIGTERM], 3)

        patch.setattr(Watcher, "scratch", scratch)
        code, _, err = triscale(*words)
    assert code == 143, err
    number, model = checkpoint(out), (out / "model.safetensors").read_bytes()
    code, answer, err = triscale(*on(err), "--json")
    assert code == 0, err
    assert "epoch 1:" not in err.split("now the same network from scratch")[0], "not trained again"
    assert checkpoint(out) == number
    assert (out / "model.safetensors").read_bytes() == model
    assert json.loads(answer)["scratch"]["epochs"] == 2


@pytest.mark.skipif(library.status().isa is None, reason="no compiled kernels")
def test_a_training_that_goes_on_with_other_kernels_says_so_and_its_run_and_card_name_all(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, first = tmp_path / "run", library.status().isa

    def kernels() -> str:
        return json.loads((out / "run.json").read_text())["versions"]["kernels"]

    with monkeypatch.context() as patch:
        signalled(patch, [signal.SIGTERM], 3)
        code, _, err = triscale("train", digits, "--architecture", tiny, *WORDS, "--out", out)
    assert code == 143
    assert plan(out)["machine"]["kernels"]  # type: ignore[index]
    assert kernels() == first
    off = "none: TRISCALE_KERNELS is off"
    with monkeypatch.context() as patch:
        switch_kernels(patch, "off")
        signalled(patch, [signal.SIGTERM], 9)
        code, _, err = triscale(*on(err))
    assert code == 143
    said = [line for line in err.splitlines() if "kernels were" in line]
    assert said == [
        f"{out}: kernels were {first}, now {off}; its bytes may differ from those of a run with the same throughout"
    ]
    assert kernels() == f"{first}, then {off}"
    with monkeypatch.context() as patch:
        switch_kernels(patch, "off")
        signalled(patch, [signal.SIGTERM], 12)
        code, _, err = triscale(*on(err))
    assert code == 143
    assert "kernels were" not in err, "the same as before"
    code, _, err = triscale(*on(err))
    assert code == 0, err
    assert err.count("kernels were") == 1
    assert kernels() == f"{first}, then {off}, then {first}"
    assert f"own kernels: {kernels()}" in (out / "MODEL.md").read_text().replace("\\", "")
    assert triscale("eval", out, "--json")[0] == 0


@pytest.mark.skipif(library.status().isa is None, reason="no compiled kernels")
def test_a_training_without_own_kernels_goes_on_without_a_word_of_them(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        switch_kernels(patch, "off")
        signalled(patch, [signal.SIGTERM], 3)
        code, _, err = triscale("train", digits, "--architecture", tiny, *WORDS, "--out", out)
    assert code == 143
    code, _, err = triscale(*on(err))
    assert code == 0, err
    assert "kernels were" not in err
    assert json.loads((out / "run.json").read_text())["versions"]["kernels"] == "none: TRISCALE_KERNELS is off"


def test_resuming_a_fit_that_is_none_says_what_is_missing(triscale, tmp_path: Path) -> None:  # noqa: ANN001
    for words, named in ((("--resume",), "--out RUN"), (("--resume", "--out", tmp_path), "no run")):
        code, _, err = triscale("fit", *words)
        assert code == 2
        assert named in err


def test_a_disk_that_is_full_ends_in_one_line_and_the_training_goes_on_to_the_same_bytes(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    words = command("train", digits, "--architecture", tiny, *WORDS, "--out", out, "--checkpoint-every", "0s")
    # A limit on the size of files is a disk that is full for checkpoints and not for small files. The first checkpoint
    # has no optimizer state yet, so it is smaller than those that follow.
    largest = max(path.stat().st_size for path in (whole / "checkpoints").iterdir())
    script = (
        "import resource, sys, runpy\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest - 5000},) * 2)\n"
        f"sys.argv = {['triscale', *words[3:]]!r}\n"
        "runpy.run_module('triscale', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=LONGEST
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "could not be written (File too large); what was there before is unchanged" in last
    assert checkpoint(out) == 1
    assert not [path for path in (out / "checkpoints").iterdir() if path.name.startswith(".")]
    assert triscale(*on(done.stderr))[0] == 0
    assert results(out) == results(whole)


def test_a_training_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    triscale,  # noqa: ANN001
    digits: Path,
    tiny: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalled(patch, [signal.SIGTERM], 23)
        triscale("train", digits, "--architecture", tiny, *WORDS, "--out", out, "--checkpoint-every", "0s")
    newest = sorted((out / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    code, _, err = triscale("train", "--resume", "--out", out)
    assert code == 0, err
    assert f"{newest.name} is damaged; going on from the checkpoint before" in err
    assert results(out) == results(whole)
