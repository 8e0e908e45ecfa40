"""The verbs that answer for networks without training one: `cost`, `scale`, `models`."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from triscale.arch import from_dict, load, published, to_json
from triscale.arch.resolve import EXPORTED
from triscale.exporting import FORMATS
from triscale.fitting import Fitted

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}


def test_what_a_network_was_adapted_to_is_repeated_in_the_next_command(triscale) -> None:  # noqa: ANN001
    _, _, err = triscale("cost", "resnet18", "--resolution", "32x48", "--channels", "1")
    assert err.strip() == "next: triscale scale resnet18 --resolution 32x48 --channels 1 --macs 1.664G"
    *_, words = err.strip().partition("triscale ")
    code, out, _ = triscale(*shlex.split(words), "--json")
    assert code == 0
    assert json.loads(out)["architecture"]["channels"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cost", "a.onnx"], ["a.onnx", "only `serve` and `bench`", "the run it came from"]),
        (["predict", "photo.png", "--model", "a.xml"], ["a.xml", "only `serve` and `bench`"]),
        (["eval", "a.pt2"], ["a.pt2", "an exported file", "the run it came from"]),
        (["predict", "photo.png", "a.onnx"], ["photo.png: a picture", "--model"]),
    ],
)
def test_a_file_that_is_no_network_is_named_as_what_it_is(
    triscale,  # noqa: ANN001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "a.xml", "a.pt2", "photo.png"):
        (tmp_path / name).write_bytes(b"\x80")
    code, _, err = triscale(*words)
    assert code == 2
    for part in said:
        assert part in err


def test_every_exported_file_is_known_by_its_ending() -> None:
    assert set(EXPORTED) == {kind.suffix for kind in FORMATS.values()}


def test_cost_has_the_promised_keys(triscale) -> None:  # noqa: ANN001
    code, out, err = triscale("cost", "efficientnet_b0", "--json")
    values = json.loads(out)
    assert code == 0
    assert err == ""
    assert {"params", "macs", "activations", "memory", "size", "layers"} <= set(values)
    assert (values["params"], values["macs"]) == (5_288_548, 385_814_752)
    assert from_dict(values["architecture"]) == published("efficientnet_b0")


def test_cost_of_a_users_own_file_a_run_and_its_model_agree(triscale, fitted: Fitted, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "own.json").write_text(to_json(fitted.plan.architecture))
    answers = [
        json.loads(triscale("cost", name, "--json")[1])["macs"]
        for name in (tmp_path / "own.json", fitted.run.path, fitted.run.model)
    ]
    assert answers == [fitted.plan.scaled.cost.macs] * 3


def test_cost_is_answered_without_torch_and_numpy() -> None:
    code = (
        "import sys; sys.argv = ['triscale', 'cost', 'efficientnet_b7']\n"
        "from triscale.cli.main import run; assert run() == 0; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "66,347,960" in done.stdout


def test_importing_triscale_imports_no_torch() -> None:
    code = "import sys, triscale; assert 'torch' not in sys.modules; triscale.fit; assert 'torch' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    import triscale

    for name in triscale.__all__:
        assert getattr(triscale, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = triscale.nothing_of_this_name


@pytest.mark.parametrize("how", [["--macs", "1G", "--rule", "compound"], ["--phi", "3"], ["--factor", "4"]])
def test_scale_answers_with_the_promised_keys(triscale, how: list[str]) -> None:  # noqa: ANN001
    code, out, _ = triscale("scale", "efficientnet_b0", *how, "--json")
    values = json.loads(out)
    assert code == 0
    promised = {"multipliers", "asked", "nominal", "realised", "trim", "cost", "architecture"}
    assert promised <= set(values)
    assert values["realised"] == pytest.approx(values["cost"]["macs"] / 385_814_752)


def test_scale_to_a_budget_ends_just_below_it(triscale) -> None:  # noqa: ANN001
    _, out, _ = triscale("scale", "efficientnet_b0", "--macs", "1G", "--json")
    assert 0.99e9 <= json.loads(out)["cost"]["macs"] <= 1e9


def test_a_scaled_network_is_written_and_read_by_its_path(triscale, tmp_path: Path) -> None:  # noqa: ANN001
    place = tmp_path / "net.json"
    _, out, _ = triscale("scale", "mobilenet_v2", "--macs", "500M", "--out", place, "--json")
    assert load(place) == from_dict(json.loads(out)["architecture"])
    code, _, err = triscale("scale", "mobilenet_v2", "--macs", "400M", "--out", place)
    assert code == 2
    assert "exists already" in err


def test_a_family_is_a_file_a_step(triscale, tmp_path: Path) -> None:  # noqa: ANN001
    code, out, _ = triscale("scale", "efficientnet_b0", "--steps", "0..7", "--out", tmp_path / "family", "--json")
    family = json.loads(out)["family"]
    assert code == 0
    assert [member["phi"] for member in family] == list(range(8))
    assert [load(Path(member["file"])) for member in family] == [from_dict(m["architecture"]) for m in family]
    assert family[0]["cost"]["macs"] == 385_814_752
    costs = [member["cost"]["macs"] for member in family]
    assert costs == sorted(costs)


def test_a_family_overwrites_nothing(triscale, tmp_path: Path) -> None:  # noqa: ANN001
    words = ("scale", "mobilenet_v2", "--steps", "0..0", "--out", tmp_path)
    assert triscale(*words)[0] == 0
    code, _, err = triscale(*words)
    assert code == 2
    assert "mobilenet_v2-phi0.json: exists already; name another directory" in err


def test_coefficients_come_from_a_file(triscale, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "mine.json").write_text('{"alpha": 1.3, "beta": 1.1, "gamma": 1.05, "note": "measured"}')
    _, out, _ = triscale("scale", "efficientnet_b0", "--phi", "2", "--rule", tmp_path / "mine.json", "--json")
    assert json.loads(out)["multipliers"]["depth"] == pytest.approx(1.69)


def test_models_lists_the_zoo(triscale) -> None:  # noqa: ANN001
    _, out, _ = triscale("models", "--json")
    listed = json.loads(out)["models"]
    assert listed["resnet50"]["params"] == 25_557_032
    assert all(entry["source"] for entry in listed.values())
