"""What a run of `fit` was begun with may be said once more where it goes on, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from triscale.arch import resolve, to_dict, to_json
from triscale.fitting import Asked, Fitted, fit
from triscale.fitting.train import Asked as Training
from triscale.scaling import RULES

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(fitted: Fitted, tmp_path: Path) -> Path:
    place = tmp_path / "run"
    shutil.copytree(fitted.run.path, place)
    return place


@pytest.mark.parametrize(
    "words",
    [
        ["--macs", "400k"],
        ["--macs", "0.4M", "--epochs", "5", "--seed", "3", "--on-bad", "error"],
        [
            word
            for name in ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet18")
            for word in ("--baseline", name)
        ],
    ],
)
def test_what_it_was_begun_with_may_be_said_once_more(triscale: Run, run: Path, digits: Path, words: list[str]) -> None:
    code, _, err = triscale("fit", digits, "--resume", "--out", run, *words)
    assert code == 0, err
    assert "its model is tested once more" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--macs", "5M"], "--macs 5M: {} was begun with 400k; leave --macs out to go on, or name another --out"),
        (["--params", "1M"], "--params 1M: {} was begun with none; leave --params out"),
        (["--epochs", "6"], "--epochs 6: {} was begun with 5;"),
        (["--time", "10m"], "--time 600s: {} was begun with none;"),
        (["--seed", "0"], "--seed 0: {} was begun with 3;"),
        (["--balance"], "--balance: {} was begun without it;"),
        (["--baseline", "resnet18"], "--baseline: {} was begun with another one;"),
        (["--rule", "width"], "--rule width: {} was begun with none;"),
        (["--weights", "runs/other"], "--weights runs/other: {} was begun with none;"),
        (["--no-scratch"], "--no-scratch: {} was begun without it; leave --no-scratch out"),
        (["--weights", "runs/other", "--baseline", "resnet18"], "fix the network, so there is nothing to scale"),
        (["--dry-run"], "--dry-run: {} goes on as it was begun; leave it out"),
        (["--study"], "--study: {} goes on as it was begun; leave it out"),
    ],
)
def test_anything_else_is_refused_and_leaves_the_run_as_it_is(
    triscale: Run, run: Path, words: list[str], said: str
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, _, err = triscale("fit", "--resume", "--out", run, *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert said.format(run) in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_networks_and_rules_of_the_library_are_kept_by_what_they_are(
    digits: Path, tmp_path: Path, triscale: Run
) -> None:
    network, place = resolve("resnet18"), tmp_path / "run"
    fit(digits, out=place, macs=3e6, epochs=1, baseline=network, rule=RULES["width"])
    asked = json.loads((place / "run.json").read_text())["asked"]
    assert (asked["verb"], asked["macs"], asked["rule"]) == ("fit", 3e6, "width")
    (tmp_path / "mine.json").write_text(to_json(network))
    words = ["--baseline", tmp_path / "mine.json", "--rule", "width"]
    code, _, err = triscale("fit", "--resume", "--out", place, *words)
    assert code == 0, err


@pytest.mark.parametrize("verb", ["search", "study", "train"])
def test_a_run_of_another_verb_is_sent_to_it_before_anything_is_compared(triscale: Run, run: Path, verb: str) -> None:
    settings = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(settings | {"asked": {"verb": verb, "epochs": 9}}))
    code, _, err = triscale("fit", "--resume", "--out", run, "--epochs", "3")
    assert code == 2
    assert f"{run}: was begun by {verb}; go on with: triscale {verb} --resume --out {run}" in err


def test_what_was_asked_is_what_was_read_before_planning(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text(to_json(resolve("resnet18")))
    wish = Asked({"macs": 1e6}, baseline=mine).wish()
    mine.write_text(to_json(resolve("mobilenet_v2")))
    assert wish.asked["baseline"] == [to_dict(one) for one in wish.baselines] == [to_dict(resolve("resnet18"))]
    training = Training(architecture=mine).complete()
    mine.unlink()
    assert training.values()["architecture"] == to_dict(resolve("mobilenet_v2"))


@pytest.mark.parametrize("result", [{"steps": 3}, {"half": None}, {"scratch": 1}])
def test_a_result_that_another_version_wrote_is_one_line(triscale: Run, run: Path, result: dict[str, object]) -> None:
    settings = json.loads((run / "run.json").read_text())
    settings["result"] |= result
    (run / "run.json").write_text(json.dumps(settings))
    code, _, err = triscale("fit", "--resume", "--out", run)
    assert code == 2
    assert "its result is not one that this version reads" in err
    assert "Traceback" not in err
