"""The installation of the kernels: a wheel that carries them, one without a compiler, sanitizers over the kernels."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from triscale.kernels import status
from triscale.kernels.library import ISAS

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "src/triscale/kernels/native"
BACKEND = "scikit-build-core"

pytestmark = pytest.mark.slow

LEFTOVERS = (
    "triscale_kernels.so", "CMakeCache.txt", "CMakeInit.txt", "CMakeFiles/rules.ninja", "build.ninja", "Makefile",
    "cmake_install.cmake", "install_manifest.txt", ".ninja_log", ".ninja_deps", ".skbuild-info.json",
    "__pycache__/x.cpython-311.pyc",
)  # fmt: skip

USED = """
import torch
import triscale.kernels as kernels
from triscale.nn import build
from triscale.arch import adapt, published
network = build(adapt(published("efficientnet_b0"), resolution=(32, 32), classes=10)).train()
network.use(network.with_kernels())
network(torch.randn(2, 3, 32, 32)).sum().backward()
print(kernels.status().isa, kernels.__file__)
"""


def run(*command: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXX", "CC")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python with what builds wheels, its own compiler settings untouched."""
    place = tmp_path_factory.mktemp("builder")
    venv.create(place, with_pip=True)
    python = place / "bin/python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", BACKEND, "cmake", "ninja"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no package index to take {BACKEND} from")
    return python


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which somebody has worked: with a library that was compiled before, of another interface."""
    place = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, place)
    native = NATIVE.relative_to(ROOT)

    def built(folder: str, names: list[str]) -> list[str]:
        top = Path(folder) == NATIVE
        return [name for name in names if name == "__pycache__" or (top and not own(Path(name)))]

    shutil.copytree(ROOT / "src", place / "src", ignore=built)
    for name in LEFTOVERS:
        (place / native / name).parent.mkdir(exist_ok=True)
        (place / native / name).write_text(f"{ROOT}: from before")
    return place


def own(file: Path) -> bool:
    """Whether it is a source of the kernels, rather than what CMake leaves beside them."""
    return file.suffix in (".cpp", ".h") or file.name in ("CMakeLists.txt", "inference")


def installed(wheel: Path, place: Path) -> Path:
    """Python of a new environment with the wheel in it, and PyTorch from this one."""
    venv.create(place, with_pip=True)
    python = place / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    packages = next((place / "lib").glob("python*/site-packages"))
    # A .pth file comes after the environment's own packages.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def test_a_source_distribution_holds_the_sources_and_nothing_that_was_built(
    builder: Path, sources: Path, tmp_path: Path
) -> None:
    run(builder, "-c", f"import scikit_build_core.build as b; b.build_sdist({str(tmp_path)!r})", cwd=sources)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        found = {Path(*Path(name).parts[1:]) for name in tar.getnames()}
    files = {path.relative_to(sources) for path in sources.rglob("*") if path.is_file()}
    left = {NATIVE.relative_to(ROOT) / name for name in LEFTOVERS}
    assert left <= files
    assert found == files - left | {Path("PKG-INFO")}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_a_source_distribution_of_a_checkout_is_what_is_tracked(builder: Path, tmp_path: Path) -> None:
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")
    for place in ("runs", "site", ".venv/lib", "src/triscale/__pycache__"):
        (tmp_path / "clone" / place).mkdir(parents=True)
        (tmp_path / "clone" / place / "x").write_text("no source")
    run(builder, "-c", f"import scikit_build_core.build as b; b.build_sdist({str(tmp_path)!r})", cwd=tmp_path / "clone")
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        found = {str(Path(*Path(name).parts[1:])) for name in tar.getnames()}
    assert found == {*run("git", "ls-files", cwd=tmp_path / "clone").stdout.splitlines(), "PKG-INFO"}


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler here")
def test_a_wheel_carries_the_kernels_and_needs_no_compiler(builder: Path, sources: Path, tmp_path: Path) -> None:
    run(builder, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, sources)
    (wheel,) = tmp_path.glob("*.whl")
    python = installed(wheel, tmp_path / "clean")
    isa, place = run(python, "-c", USED, cwd=tmp_path, PATH=str(tmp_path)).stdout.split()
    assert isa != "None"
    assert Path(place).is_relative_to(tmp_path)
    files = run(python, "-m", "pip", "show", "-f", "triscale", cwd=tmp_path).stdout
    for name in ("triscale_kernels.so", "report.html.j2", "catalogue.json", "named/quick.json", "imagenet.txt"):
        assert name in files
    with zipfile.ZipFile(wheel) as archive:
        native = [name for name in archive.namelist() if "kernels/native/" in name]
    assert native == ["triscale/kernels/native/triscale_kernels.so"]


def test_without_a_compiler_the_package_installs_trains_and_says_so_once(
    builder: Path, sources: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sh", "uname", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    build = (builder, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, sources)
    run(*build, PATH=str(tmp_path / "bin"))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "kernels/native/" in name]
    python = installed(wheel, tmp_path / "clean")
    done = run(python, "-c", USED + "network.use(['stem.conv.norm'])", cwd=tmp_path)
    assert done.stdout.startswith("None ")
    assert done.stderr.count("training is slower: they were not compiled") == 1


DRIVER = """
import sys, random, torch
sys.path[:0] = [{source!r}]
import triscale.kernels.library as library
library._FILE = {library!r}
from triscale.kernels import depthwise, norm, norm_depthwise, norm_excite, pointwise, squeeze_excite, status
from triscale.kernels.library import ACTIVATIONS
from triscale.kernels.twins import Window
assert status().isa is not None, status()
chance = random.Random(0)
for turn in range({turns}):
    torch.set_num_threads(chance.choice((1, 2)))
    small = tuple(chance.randint(1, most) for most in (6, 40, 20, 20))
    # Large enough for strips of an image, and small and many enough for several images at once.
    n, c, h, w = chance.choice([small] * 8 + [(1, 40, 70, 67), (33, 8, 5, 6)])
    dtype, k, s = chance.choice((torch.float32, torch.bfloat16)), chance.choice((3, 5, 7)), chance.choice((1, 2))
    x = torch.randn(n + 1, c, h, w).to(dtype).requires_grad_()
    top, left = chance.randint(0, k - 1), chance.randint(0, k - 1)
    y = depthwise(x, torch.randn(c, 1, k, k, requires_grad=True), s, top, left, -(-h // s), -(-w // s))
    y = norm(y, torch.ones(c, requires_grad=True), torch.zeros(c), 1e-3, chance.choice(ACTIVATIONS))[0]
    layers = torch.randn(3, c), torch.randn(3), torch.randn(c, 3), torch.randn(c)
    y = squeeze_excite(y, *layers, "silu")
    scale, bias, taps = torch.ones(c, requires_grad=True), torch.zeros(c), torch.randn(c, 1, k, k, requires_grad=True)
    where = Window(s, top, left, -(-y.shape[2] // s), -(-y.shape[3] // s))
    y = norm_depthwise(y, scale, bias, 1e-3, chance.choice(ACTIVATIONS), taps, where)[0]
    y = norm_excite(y, scale, bias, 1e-3, chance.choice(ACTIVATIONS), layers)[0]
    y = pointwise(y, torch.randn(chance.randint(1, 70), c, 1, 1, requires_grad=True))
    y.float().sum().backward()
print("sound", status().isa)
"""

# Of GCC 9.
OLD = """#!/bin/sh
for word; do
  case "$word" in -mavx512bf16|-mavx512fp16) echo "error: unrecognized command line option '$word'" >&2; exit 1;; esac
done
exec g++ "$@"
"""


@pytest.mark.skipif(shutil.which("g++") is None or shutil.which("cmake") is None, reason="needs cmake and g++")
def test_a_compiler_that_knows_no_bf16_compiles_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "g++-9").write_text(OLD)
    (tmp_path / "g++-9").chmod(0o755)
    place = tmp_path / "build"
    # Not optimised: that takes a compiler minutes.
    options = f"-DCMAKE_CXX_COMPILER={tmp_path / 'g++-9'}", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"
    run("cmake", "-S", NATIVE, "-B", place, *options)
    run("cmake", "--build", place, "-j", os.cpu_count())
    code = DRIVER.format(source=str(ROOT / "src"), library=str(place / "triscale_kernels.so"), turns=10)
    assert run(sys.executable, "-c", code).stdout.startswith("sound ")


ENGINE = """
import sys, random
sys.path[:0] = [{source!r}, {tests!r}]
import triscale.kernels.library as library
library._FILE = {library!r}
from native_program import pictures, planned
from tiny import TINY
from test_native_engine import NETWORKS, spoiled
from triscale.arch import adapt, published
from triscale.engines.native import Engine, available
from triscale.errors import TriscaleError
assert available().isa is not None, available()
chance, precisions = random.Random(0), available().precisions
for name in NETWORKS:
    network = adapt(published(name), resolution=(chance.randint(33, 70), chance.randint(33, 70)), classes=7)
    plan, _ = planned(network)
    for precision in precisions:
        with Engine(plan, precision=precision, threads=chance.randint(1, 3)) as engine:
            engine(pictures(network, chance.randint(1, 5)))
plan, _ = planned(TINY)
x, refused = pictures(TINY, 2), 0
for turn in range({turns}):
    value = chance.choice((chance.randint(-3, 40), 1 << chance.randint(5, 62), -1 << 63))
    row, field = chance.randrange(len(plan.layers)), chance.randrange(25)
    try:
        with Engine(spoiled(plan, row, field, value), precision=chance.choice(precisions)) as engine:
            engine(x)
    except (TriscaleError, ValueError):
        refused += 1
assert 0 < refused < {turns}
print("sound", available().isa)
"""


def sanitized() -> list[str]:
    """The instruction sets of this processor, each of which takes a compiler a minute; without avx512 where there is
    more, as those that add bf16 and fp16 have all of its source."""
    here = ISAS[: ISAS.index(status().isa or "baseline") + 1]
    return [isa for isa in here if isa != "avx512" or isa == here[-1]]


@pytest.mark.skipif(shutil.which("g++") is None or shutil.which("cmake") is None, reason="needs cmake and g++")
def test_sanitizers_find_nothing_in_the_kernels_and_the_engine(tmp_path: Path) -> None:
    isas, runtimes = sanitized(), []
    for name in ("libasan.so", "libubsan.so"):
        found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        runtimes.append(found.stdout.strip())
    if not all(Path(path).is_absolute() for path in runtimes):
        pytest.skip("the compiler has no sanitizers")
    # -O1: what the sanitizers add makes optimising take minutes.
    options = "-Dsanitize=address,undefined", "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DCMAKE_CXX_COMPILER=g++"
    # Ninja keeps to the order of CMakeLists.txt, which has the longest first.
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    run("cmake", "-S", NATIVE, "-B", tmp_path, *generator, f"-Dtested={';'.join(isas)}", *options)
    run("cmake", "--build", tmp_path, "-j", os.cpu_count())
    places = {
        "source": str(ROOT / "src"),
        "tests": str(ROOT / "tests"),
        "library": str(tmp_path / "triscale_kernels.so"),
    }
    codes = DRIVER.format(**places, turns=150), ENGINE.format(**places, turns=400)

    def sound(isa: str, code: str) -> None:
        # Python and PyTorch keep memory to the end; that is not what is asked.
        done = run(
            sys.executable, "-c", code, TRISCALE_ISA=isa, LD_PRELOAD=":".join(runtimes),
            ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        )  # fmt: skip
        assert done.stdout == f"sound {isa}\n"
        assert "runtime error" not in done.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(sound, *zip(*product(isas, codes), strict=True)))
