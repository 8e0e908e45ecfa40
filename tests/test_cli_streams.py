"""Whatever the command line writes into: few letters, no room, nobody who reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doctored import sound

from triscale.fitting import Fitted
from triscale.kernels import status

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}


def command_line(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "triscale", *map(str, words)],
        capture_output=True,
        env={**ENVIRONMENT, **environment},
    )


@pytest.mark.skipif(status().isa is None, reason="no kernels here")
def test_what_is_slower_for_want_of_instructions_is_said_in_one_line(fitted: Fitted, digits: Path) -> None:
    picture = next(digits.rglob("*.png"))
    done = command_line("predict", picture, "--model", fitted.run.path, "--json", TRISCALE_ISA="baseline")
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode() == (
        "triscale: Triscale's own engine is not used, answering is slower: it takes AVX2 or AVX-512, which are not in "
        "use here\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use cannot be removed there")
@pytest.mark.parametrize("as_json", [False, True])
def test_a_current_directory_that_was_removed_is_one_line(tmp_path: Path, as_json: bool) -> None:
    words = " --json" if as_json else ""
    script = f"mkdir gone; cd gone; rmdir ../gone; '{sys.executable}' -m triscale predict x.png --model resnet18{words}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=ENVIRONMENT, cwd=tmp_path)
    line = "the current directory no longer exists; cd somewhere else"
    assert done.returncode == 2
    if as_json:
        assert json.loads(done.stdout) == {"error": line}
    else:
        assert (done.stdout, done.stderr.decode()) == (b"", f"triscale: {line}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 there")
def test_names_that_only_the_locale_cannot_read_are_not_called_wrong(tmp_path: Path) -> None:
    shutil.copytree(sound(tmp_path / "plain"), tmp_path / "b\u00fcr")
    (tmp_path / "plain" / "cat" / "0.png").rename(tmp_path / "plain" / "cat" / "\u00fc.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\nb\u00fcr/cat/0.png,cat\nb\u00fcr/dog/0.png,dog\n", encoding="utf-8")
    few_letters = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for place in ("b\u00fcr", "plain", "list.csv"):
        done = command_line("doctor", tmp_path / place, **few_letters)
        told = done.stdout + done.stderr
        assert done.returncode in (2, 3), told
        assert b"no name in this locale, which has names of files in ascii; export LC_ALL=C.UTF-8" in told
        assert b"rename" not in told


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_output_of_few_letters_stops_nothing(encoding: str, tmp_path: Path) -> None:
    for words in (["--help"], ["scale", "resnet18", "--steps", "0..1", "--out", tmp_path / "family"]):
        done = command_line(*words, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_is_full_is_a_failure_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "triscale", "models"], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_failure() -> None:
    script = f"'{sys.executable}' -m triscale cost efficientnet_b7 --layers | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=ENVIRONMENT)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
