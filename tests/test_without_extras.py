"""An installation without the extra `export`: what needs none of its packages works, the rest says what is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TINY

from triscale.arch import to_json
from triscale.fitting import Fitted

HIDDEN = """
import sys
from importlib.machinery import PathFinder

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        hidden = name.split(".")[0] in ("onnx", "onnxruntime", "openvino")
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
CLI = HIDDEN + "from triscale.cli.main import main\nmain()\n"


def triscale(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CLI, *map(str, words)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.json"
    path.write_text(to_json(TINY))
    return path


def test_bench_times_the_engines_that_are_there(network: Path) -> None:
    done = triscale("bench", network, "--peers", "--rounds", 1, "--batch", 1, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    engines = json.loads(done.stdout)["cases"][0]["engines"]
    assert any(name.startswith("PyTorch") for name in engines)
    assert not any(name.startswith(("ONNX", "OpenVINO")) for name in engines)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_export_says_what_to_install(fitted: Fitted, tmp_path: Path, to: str) -> None:
    done = triscale("export", fitted.run.path, "--to", to, "--out", tmp_path / "m")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "is not installed; pip install 'triscale[export]'" in done.stderr


def test_a_run_is_opened_to_be_served(fitted: Fitted) -> None:
    code = (
        HIDDEN + "from triscale.serving.opening import opened\nwith opened(sys.argv[1]) as served:\n    print(served)\n"
    )
    words = [sys.executable, "-c", code, fitted.run.path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
