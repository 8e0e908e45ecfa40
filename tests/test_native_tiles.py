"""The engine's products by matrix tiles (AMX), on processors that have none: every instruction of tiles is carried out
by `native/tiles.cpp`, which looks at each as a processor would, under the address sanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from triscale.kernels import status

TESTS = Path(__file__).parent
ROOT = TESTS.parent
NATIVE = ROOT / "src/triscale/kernels/native"
ISA = "import triscale.kernels; print(triscale.kernels.status().isa)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="no compiler here"),
    pytest.mark.skipif(
        status().isa not in ("avx512bf16", "avx512fp16", "amx"), reason="the processor lacks what goes with tiles"
    ),
]


def run(*words: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=1200, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process needs around it to have tiles."""
    # Beside the sanitizer its C++: it looks for what throws before others bring it.
    preloaded = [run("g++", f"-print-file-name={name}").stdout.strip() for name in ("libasan.so", "libstdc++.so")]
    if not all(Path(path).is_absolute() for path in preloaded):
        pytest.skip("the compiler has no sanitizers")
    build = tmp_path_factory.mktemp("build")
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    options = ["-DCMAKE_CXX_COMPILER=g++", "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-Dsanitize=address", "-Dtested=amx"]
    options += [f"-Dtiles={TESTS / 'native/tiles.cpp'}"]
    if status().isa == "avx512bf16":
        options.append(f"-Dhalves={TESTS / 'native/halves.h'}")
    found = run("cmake", "-S", NATIVE, "-B", build, *generator, *options).stdout
    if "has_tiles - Success" not in found or "has_fp16 - Success" not in found:
        pytest.skip("the compiler knows no tiles")
    run("cmake", "--build", build, "-j", os.cpu_count())
    return {
        "KERNELS": str(build / "triscale_kernels.so"),
        "PYTHONPATH": str(TESTS),
        "LD_PRELOAD": ":".join(preloaded),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TRISCALE_ISA": "amx",
        "OMP_NUM_THREADS": "1",
    }


def test_by_tiles_the_engine_keeps_what_it_promises(emulated: dict[str, str]) -> None:
    words = "-m", "pytest", "-q", "-p", "other_kernels", "-p", "no:cacheprovider", TESTS / "test_native_halves.py"
    done = run(sys.executable, *words, **emulated)
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_tiles_that_multiply_wrongly_are_not_used(emulated: dict[str, str]) -> None:
    words = sys.executable, "-c", f"import other_kernels; {ISA}"
    assert run(*words, **emulated).stdout == "amx\n"
    assert run(*words, **emulated, TILES="wrong").stdout == "avx512fp16\n"
