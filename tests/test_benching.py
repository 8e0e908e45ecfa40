"""What `bench` promises: every engine in turns, on the same network, and why ours takes as long as it does."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from conftest import Answer
from hypothesis import given
from tiny import TINY

from triscale.arch import to_json
from triscale.benching import Bench, bench, launching, subjects
from triscale.benching.launching import start, write_files
from triscale.benching.subjects import find_subject, lively
from triscale.engines import table
from triscale.engines.native import available
from triscale.engines.table import find_engine
from triscale.errors import TriscaleError, UserError
from triscale.exporting import export
from triscale.exporting.formats import FORMATS
from triscale.fitting import Fitted
from triscale.nn import build
from triscale.stats import Spread

needs_engine = pytest.mark.skipif(available().isa is None, reason="no native engine")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.json"
    path.write_text(to_json(TINY))
    return path


@pytest.fixture(scope="module")
def measured(network: Path) -> Bench:
    """Two batches, once for all that look at it."""
    return bench(str(network), batches=(1, 3), threads=(1,), rounds=2)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_a_spread_is_numpys_quantiles(values: list[float]) -> None:
    found = Spread.of(values)
    assert (found.p10, found.median, found.p90) == pytest.approx(np.quantile(values, (0.1, 0.5, 0.9)))
    assert found.n == len(values)


def test_a_spread_is_the_median_and_the_outer_tenths() -> None:
    assert Spread.of([float(i) for i in range(11)]) == Spread(5.0, 1.0, 9.0, 11)
    assert Spread.of([2.0]).times(1e3) == Spread(2e3, 2e3, 2e3, 1)
    assert Spread.of_ratios([2.0, 6.0], [1.0, 2.0]).median == 2.5


@needs_engine
def test_ours_and_pytorch_are_timed_and_compared(measured: Bench) -> None:
    found = measured
    assert [(case.batch, case.threads) for case in found.cases] == [(1, 1), (3, 1)]
    for case in found.cases:
        assert {"Triscale's engine fp32", "PyTorch fp32"} <= set(case.engines)
        for name, one in case.engines.items():
            seconds = case.taken[name]
            assert one.milliseconds.n == len(seconds) == 2
            assert one.milliseconds.median == pytest.approx(1e3 * float(np.median(seconds)) / case.batch)
            assert one.differs < (1e-4 if name.endswith("fp32") else 0.2)
            limit = case.limits[name.split()[-1]]
            assert one.of_limit == pytest.approx(found.macs * case.batch / float(np.median(seconds)) / limit)
        assert case.engines["Triscale's engine fp32"].compared is None
        theirs = case.engines["PyTorch fp32"].compared
        assert theirs is not None
        pairs = zip(case.taken["PyTorch fp32"], case.taken["Triscale's engine fp32"], strict=True)
        assert theirs.median == pytest.approx(float(np.median([a / b for a, b in pairs])))
    assert found.why is not None
    assert sum(found.why.shares.values()) == pytest.approx(1)
    assert "stages.0.0.depthwise" in {layer.name for layer in found.why.layers if layer.kind == "depthwise"}


@needs_engine
def test_a_new_process_tells_its_time_by_part_and_its_own_memory(measured: Bench) -> None:
    started = measured.starts
    ours, theirs = started["Triscale's engine fp32"], started["PyTorch fp32"]
    for one in (ours, theirs):
        assert set(one.seconds) == {"import", "load", "first", "whole"}
        parts = sum(one.seconds[part].p10 for part in ("import", "load", "first"))
        assert 0 < parts <= one.seconds["whole"].p90
    assert ours.memory.p90 < theirs.memory.p10  # PyTorch alone is larger than all of our engine


@needs_engine
def test_a_new_process_of_our_engine_brings_no_other(network: Path, tmp_path: Path) -> None:
    file = write_files(find_subject(str(network)), {"native"}, tmp_path)["native"]
    code = (
        "import sys; from triscale.benching.starting import main; "
        f"sys.argv = ['', 'native', 'fp32', {str(file)!r}, '1']; main(); "
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("}[]\n")


@needs_engine
def test_a_new_process_imports_nothing_of_where_one_works(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('somebody else's')")
    (tmp_path / "json.py").write_text("raise RuntimeError('somebody else's')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(launching.__file__).parents[2]))
    subject = find_subject(str(network))
    way = subject.ways(peers=False, slow=False)[0][0]
    file = write_files(subject, {"native"}, tmp_path)["native"]
    assert start(way, file, 1)["whole"] > 0


@needs_engine
def test_what_a_new_process_died_of_is_one_line(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = find_subject(str(network)).ways(peers=False, slow=False)[0][0]
    with pytest.raises(TriscaleError, match=r"no first image, .* is lost: .*missing.*plan") as caught:
        start(way, tmp_path / "missing.plan", 1)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(TriscaleError, match="ended with 1 and said nothing"):
        start(way, tmp_path / "missing.plan", 1)


def test_an_exported_file_is_timed_by_the_engines_that_read_it(fitted: Fitted, tmp_path: Path) -> None:
    file = export(fitted.run.path, out=tmp_path / "a.onnx").path
    found = bench(str(file), batches=(2,), threads=(1,), rounds=1)
    wanted = {"ONNX Runtime fp32", "OpenVINO fp32"} | ({"OpenVINO bf16"} - set(found.missing))
    assert set(found.cases[0].engines) - {"OpenVINO fp16"} == wanted
    assert found.why is None
    assert found.macs > 0


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_file_in_int8_is_called_so_and_held_against_no_limit_of_another_precision(
    fitted: Fitted, tmp_path: Path, to: str
) -> None:
    file = export(fitted.run.path, to, out=tmp_path / f"a{FORMATS[to].suffix}", int8=True, most_lost=0.2).path
    found = bench(str(file), batches=(1,), threads=(1,), rounds=1)
    names = [*found.cases[0].engines, *found.starts, *found.missing]
    assert {"ONNX Runtime int8", "OpenVINO int8"} & set(found.starts)
    assert not [name for name in names if "int8" not in name]
    assert all(one.of_limit is None for one in found.cases[0].engines.values())


def test_without_a_compiler_torch_compile_is_named_with_the_reason(
    network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    ways, missing = find_subject(str(network)).ways(peers=True)
    assert "no C++ compiler" in missing["torch.compile fp32"]
    assert all(way.engine.name != "compiled" for way in ways)


def test_nothing_is_compared_with_ours_where_ours_is_not(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(table.ENGINES["native"], refuses=lambda precision: "not on this processor")
    monkeypatch.setattr(subjects, "ENGINES", {**table.ENGINES, "native": without})
    found = bench(str(network), batches=(1,), threads=(1,), rounds=1, peers=True, slow=False)
    assert "Triscale's engine fp32" in found.missing
    assert len(found.cases[0].engines) > 2, "peers of one precision, of which none is ours"
    assert [one.compared for one in found.cases[0].engines.values()] == [None] * len(found.cases[0].engines)


def test_engines_that_are_not_here_are_named_with_the_reason(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None if name == "openvino" else True)
    ways, missing = find_subject(str(network)).ways(peers=True)
    assert "OpenVINO fp32" in missing
    assert "pip install 'triscale[export]'" in missing["OpenVINO fp32"]
    assert all(way.engine.name != "openvino" for way in ways)


def test_where_a_processor_does_not_compute_in_bf16_that_of_others_is_left_out(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for capability, without in (("AVX2", True), ("AVX512", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        ways, missing = find_subject(str(network)).ways(peers=True)
        names = {way.name for way in ways}
        for name, word in (("PyTorch bf16", "emulates"), ("torch.compile bf16", "emulates"), ("OpenVINO bf16", "fp32")):
            assert (name in missing) == without == (name not in names)
            assert not without or word in missing[name]
        assert {"PyTorch fp32", "OpenVINO fp32"} <= names
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert find_engine("torch", "bf16").name == "torch", "who asks for it gets it"
    with pytest.raises(UserError, match="OpenVINO would take fp32 and say nothing"):
        find_engine("openvino", "bf16")


def test_random_weights_are_made_lively_and_learned_ones_left_alone(fitted: Fitted, network: Path) -> None:
    lively_one, dull = lively(build(TINY)), build(TINY)
    assert not torch.equal(lively_one.stem.conv.norm.running_var, dull.stem.conv.norm.running_var)
    subject = find_subject(str(fitted.run.path))
    assert subject.network is not None
    learned, kept = fitted.model.state_dict(), subject.network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in learned.items())


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--batch", 0), "--batch 0"), (("--threads", 5000), "--threads 5000"), (("--rounds", 0), "--rounds 0")],
)
def test_mistakes_are_one_line(
    network: Path, triscale: Callable[..., Answer], words: tuple[object, ...], said: str
) -> None:
    code, answer, notes = triscale("bench", network, *words)
    assert (code, answer) == (2, "")
    assert said in notes
    assert notes.count("\n") == 1


def test_an_archive_that_may_hold_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"anything")
    with pytest.raises(UserError, match="may hold code"):
        bench(str(tmp_path / "a.pt2"))


@needs_engine
def test_the_command_answers_with_one_object_or_tables(
    network: Path, measured: Bench, triscale: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.benching.bench", lambda name, **asked: measured)
    words = ("bench", network)
    code, answer, _ = triscale(*words, "--json")
    assert code == 0
    assert json.loads(answer)["cases"][0]["batch"] == 1
    code, answer, notes = triscale(*words)
    assert code == 0
    for part in ("a new process to its first image", "where Triscale's engine spends its time", "slowest layers"):
        assert part in answer
    assert "\n\nbatch 1, threads" in answer, "an empty line before every table"
    assert "\\" not in answer
    assert "next: triscale bench" in notes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own parts
def test_all_peers_agree_on_the_same_network(network: Path) -> None:
    for case in bench(str(network), peers=True, batches=(1, 2), threads=(1,), rounds=1).cases:
        engines = case.engines
        assert {"torch.compile fp32", "ONNX Runtime fp32", "OpenVINO fp32"} <= set(engines)
        assert all(one.differs < 1e-4 for name, one in engines.items() if name.endswith("fp32"))
