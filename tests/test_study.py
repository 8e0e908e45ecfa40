"""`triscale study` as a person or a script meets it: one small study, made once, and what can go wrong."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import study_values
from pictures import digit_folder
from shapes import differing_keys

from triscale.arch import Architecture, resolve, to_json
from triscale.data import read
from triscale.errors import UserError
from triscale.scaling import find_rule
from triscale.scaling.multipliers import Exponents
from triscale.studies import StudyListener, Wanted, resume_study, study
from triscale.studies.designs import COMPOUND, FITTED, FIVE
from triscale.studies.setup import Setup
from triscale.trials import Progress

Run = Callable[..., tuple[int, str, str]]
BASELINES = Path(__file__).parent.parent / "examples" / "baselines"
FEW = ("--seeds", "3", "--epochs", "1", "--no-again", "--workers", "2")


def tiny() -> Architecture:
    mini = resolve(BASELINES / "efficientnet_mini.json")
    stages = tuple(replace(stage, channels=8) for stage in mini.stages[:2])
    return replace(mini, name="tiny", stages=stages, resolution=(10, 10), stem=replace(mini.stem, channels=8))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "tiny.json"
    path.write_text(to_json(tiny()))
    return path


class Listening(StudyListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.progressed: list[Progress] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def progress(self, stage: str, progress: Progress) -> None:
        self.progressed.append(progress)


@pytest.fixture(scope="module")
def heard() -> Listening:
    return Listening()


@pytest.fixture(scope="module")
def studied(digits: Path, baseline: Path, heard: Listening, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of five arms and three seeds, and the best of them again."""
    out = tmp_path_factory.mktemp("study") / "study"
    study(
        digits,
        out=out,
        baseline=baseline,
        seeds=3,
        epochs=1,
        design=FIVE,
        again=True,
        workers=2,
        listener=heard,
    )
    return out


def rows(out: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(out / "ledger.db") as ledger:
        return ledger.execute("SELECT number, state FROM trials").fetchall()


def test_a_study_leaves_its_answer_its_page_and_coefficients_that_are_rules(studied: Path) -> None:
    values = json.loads((studied / "study.json").read_text())
    assert values["finished"]
    first, again = values["factors"]
    assert (first["factor"], again["factor"]) == (2, 4)
    assert {name for arm in first["arms"] for name in arm["names"]} == {arm.name for arm in FIVE.arms}
    assert {FITTED, COMPOUND} <= {name for arm in again["arms"] for name in arm["names"]}
    for arm in (*first["arms"], *again["arms"]):
        assert len(arm["selection"]) == len(arm["test"]) == 3
        assert arm["latency"]["median"] > 0
        assert arm["test_mean"][1] <= arm["test_mean"][0] <= arm["test_mean"][2]
    surface = values["surface"]
    rule = find_rule(str(studied / "coefficients.json"))
    found = rule.at_factor(2.0)
    assert (found.depth, found.width, found.resolution) == pytest.approx(
        (surface["alpha"], surface["beta"], surface["gamma"])
    )
    assert find_rule(str(studied / "coefficients-fastest.json")).at_factor(2.0).factor == pytest.approx(2)
    assert "<html" in (studied / "report.html").read_text()


def test_pages_of_studies_are_tested_with_the_keys_that_a_study_writes(studied: Path) -> None:
    assert differing_keys(json.loads((studied / "study.json").read_text()), study_values.study()) == []


def test_arms_share_seeds_recipe_and_images(studied: Path) -> None:
    with sqlite3.connect(studied / "ledger.db") as ledger:
        query = "SELECT value_json FROM trial_user_attributes WHERE key = 'trial'"
        trials = [json.loads(text) for (text,) in ledger.execute(query)]
    assert len({json.dumps([t["recipe"], t["data"], t["images"], t["how"]], sort_keys=True) for t in trials}) == 1
    seeds: dict[str, list[int]] = {}
    for trial in trials:
        seeds.setdefault(trial["architecture"]["name"], []).append(trial["seed"])
    assert all(sorted(found) == [0, 1, 2] for found in seeds.values())


def test_going_on_with_a_finished_study_trains_nothing(studied: Path) -> None:
    before, values = rows(studied), json.loads((studied / "study.json").read_text())
    again = resume_study(studied)
    assert rows(studied) == before
    assert again.spent[-1].trials == 0
    found = {arm.name: arm.test.tolist() for at in again.found.factors for arm in at.arms if arm.test is not None}
    assert found == {arm["name"]: arm["test"] for at in values["factors"] for arm in at["arms"]}


def test_a_study_is_extended_by_seeds_and_arms_and_keeps_what_it_has(
    triscale: Run, studied: Path, baseline: Path, tmp_path: Path
) -> None:
    more = {"schema": 1, "arms": [{"name": "mine", "depth": 0, "width": 0.5, "resolution": 0.5}]}
    (tmp_path / "more.json").write_text(json.dumps(more))
    before = len(rows(studied))
    # What is not named stays as it was: the design, and how much a trial trains.
    words = ("--resume", "--out", studied, "--arms", tmp_path / "more.json", "--seeds", 4, "--no-again")
    code, out, err = triscale("study", *words, "--json")
    assert code == 0, err
    values = json.loads(out)
    assert {name for arm in values["factors"][0]["arms"] for name in arm["names"]} >= {"mine", "compound"}
    assert all(len(arm["selection"]) == 4 for arm in values["factors"][0]["arms"])
    distinct = len(values["factors"][0]["arms"])
    assert len(rows(studied)) - before <= distinct + 3 + 1  # the fourth seed of all, the first three of the new one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--factor", "3"), "--factor 3.0: {} was begun with 2.0"),
        (("--epochs", "9"), "--epochs 9: {} was begun with 1"),
        (("--resolution", "12"), "--resolution 12x12: {} was begun with 10x10"),
        (("--baseline", "resnet18"), "--baseline: {} was begun with another one"),
        (("--macs", "2M"), "--macs 2M: {} was begun with none"),
        (("--seed", "9"), "--seed 9: {} was begun with 0"),
    ],
)
def test_what_all_trials_share_cannot_be_changed_later(
    triscale: Run, studied: Path, words: tuple[str, str], said: str
) -> None:
    code, _, err = triscale("study", "--resume", "--out", studied, "--time", "9h", *words)
    assert code == 2
    assert said.format(studied) in err


class Stopping(StudyListener):
    """Ends the work with the first trial."""

    def progress(self, stage: str, progress: Progress) -> None:
        if progress.last is not None:
            raise KeyboardInterrupt(stage)


@pytest.fixture
def interrupted(digits: Path, baseline: Path, tmp_path: Path) -> Path:
    """A study that was ended while its baseline was trained: nothing is chosen yet."""
    asked = {"baseline": baseline, "seeds": 3, "epochs": 1, "design": FIVE, "again": False, "workers": 2}
    with pytest.raises(KeyboardInterrupt, match="baseline"):
        study(digits, out=tmp_path / "study", time=3600, listener=Stopping(), **asked)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "study" / "run.json").read_text())["choice"] is None
    return tmp_path / "study"


def test_a_study_that_ended_before_it_chose_goes_on_as_it_was_asked_for(triscale: Run, interrupted: Path) -> None:
    code, out, err = triscale("study", "--resume", "--out", interrupted, "--json")
    assert code == 0, err
    (at,) = json.loads(out)["factors"]
    assert {name for arm in at["arms"] for name in arm["names"]} == {arm.name for arm in FIVE.arms}
    assert all(len(arm["selection"]) == 3 for arm in at["arms"])


def test_what_is_named_anew_before_the_choice_changes_that_alone(
    triscale: Run, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ended again at once: what was named is not forgotten.
    with pytest.raises(KeyboardInterrupt):
        resume_study(interrupted, changes=Wanted(seeds=4, time=7200.0), listener=Stopping())
    code, out, err = triscale("study", "--resume", "--out", interrupted, "--json")
    assert code == 0, err
    (at,) = json.loads(out)["factors"]
    assert {name for arm in at["arms"] for name in arm["names"]} == {arm.name for arm in FIVE.arms}
    assert all(len(arm["selection"]) == 4 for arm in at["arms"])
    assert json.loads((interrupted / "run.json").read_text())["wanted"]["time"] == 7200


def test_a_time_that_is_too_short_for_the_choice_is_told_with_the_command_that_goes_on(
    triscale: Run, digits: Path, interrupted: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(digits, tmp_path / "moved")
    code, _, err = triscale("study", moved, "--resume", "--out", interrupted, "--time", "1s")
    assert code == 2
    assert f"go on with: triscale study {moved} --resume --out {interrupted} --time" in err
    code, _, err = triscale("study", "--resume", "--out", interrupted, "--time", "1s")
    assert code == 2
    told = re.search(rf"then go on with: triscale study --resume --out {interrupted} --time (\d+)s\n", err)
    assert told is not None
    assert "--macs" not in err  # its baseline is no longer to be chosen
    code, _, err = triscale("study", "--resume", "--out", interrupted, "--time", f"{int(told[1]) + 5}s")
    assert code == 0, err


def test_a_time_that_is_refused_changes_nothing_and_the_command_repeats_what_was_typed(
    triscale: Run, interrupted: Path, studied: Path, tmp_path: Path
) -> None:
    finished = shutil.copytree(studied, tmp_path / "finished")
    for place in (interrupted, finished):
        before = json.loads((place / "run.json").read_text())
        code, _, err = triscale("study", "--resume", "--out", place, "--seeds", "100", "--no-again", "--time", "1s")
        assert code == 2
        assert re.search(rf"triscale study --resume --out {place} --seeds 100 --no-again --time \d+s\n", err)
        assert json.loads((place / "run.json").read_text()) == before
        code, _, err = triscale("study", "--resume", "--out", place)
        assert code == 0, err


def test_what_extends_a_study_without_a_time_leaves_what_was_asked_for(
    triscale: Run, studied: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(studied, tmp_path / "study")
    before = json.loads((place / "run.json").read_text())["wanted"]
    code, _, err = triscale("study", "--resume", "--out", place, "--seeds", "4")
    assert code == 0, err
    kept = json.loads((place / "run.json").read_text())
    assert kept["wanted"] == before | {"seeds": 4}
    assert kept["choice"]["seeds"] == 4


def test_more_images_than_there_are_may_be_named_again_either_way(
    triscale: Run, digits: Path, baseline: Path, tmp_path: Path
) -> None:
    words = ("--baseline", baseline, *FEW, "--images", "1000", "--design", "five")
    with pytest.raises(KeyboardInterrupt):
        study(
            digits,
            out=tmp_path / "study",
            baseline=baseline,
            seeds=3,
            epochs=1,
            images=1000,
            workers=2,
            listener=Stopping(),
        )
    count = json.loads((tmp_path / "study" / "run.json").read_text())["setup"]["fidelity"]["images"]
    assert count < 1000
    code, _, err = triscale(
        "study", "--resume", "--out", tmp_path / "study", "--images", count, *FEW, "--design", "five"
    )
    assert code == 0, err
    code, _, err = triscale("study", digits, "--resume", "--out", tmp_path / "study", *words)
    assert code == 0, err


def test_networks_that_memory_could_not_train_are_refused_before_anything_is_there(
    triscale: Run, digits: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.training.budgets.total_memory", lambda _: 10**6)
    code, _, err = triscale("study", digits, "--baseline", baseline, *FEW, "--out", tmp_path / "study")
    assert code == 2
    assert re.search(r"training \S+ on batches of \d+ takes about \S+ MB of memory, 2 trainings at once, and", err)
    assert not (tmp_path / "study").exists()


def test_another_device_cannot_be_named_later_and_the_same_can(triscale: Run, studied: Path, tmp_path: Path) -> None:
    place = shutil.copytree(studied, tmp_path / "study")
    code, _, err = triscale("study", "--resume", "--out", place, "--device", "cpu")
    assert code == 0, err
    text = (place / "run.json").read_text()
    (place / "run.json").write_text(text.replace('"device": "cpu"', '"device": "cuda"'))
    code, _, err = triscale("study", "--resume", "--out", place, "--device", "cpu")
    assert code == 2
    assert f"--device cpu: {place} was begun with cuda" in err


def test_other_images_are_refused(triscale: Run, studied: Path, tmp_path: Path) -> None:
    other = digit_folder(tmp_path / "other", each=12)
    code, _, err = triscale("study", other, "--resume", "--out", studied)
    assert code == 2
    assert "not the images that the run was begun with" in err


def test_where_the_images_have_moved_it_says_how_to_name_the_place(
    triscale: Run, studied: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(studied, tmp_path / "copy")
    settings = json.loads((place / "run.json").read_text())
    settings["data"]["path"] = str(tmp_path / "gone")
    (place / "run.json").write_text(json.dumps(settings))
    code, _, err = triscale("study", "--resume", "--out", place)
    assert code == 2
    again = f"triscale study DATA --resume --out {place}"
    assert f"/gone' does not exist any more; put it back, or name where it is now: {again}" in err


def test_a_study_is_no_fit_and_a_fit_no_study(triscale: Run, studied: Path, fitted: object) -> None:
    code, _, err = triscale("fit", "--resume", "--out", studied)
    assert code == 2
    assert f"triscale study --resume --out {studied}" in err
    code, _, err = triscale("study", "--resume", "--out", fitted.run.path)  # type: ignore[attr-defined]
    assert code == 2
    assert "is no study" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say where the study shall lie"),
        (("--out", "S"), "say how long it may take: --time 1h"),
        (("--out", "S", "--time", "1h", "--factor", "1"), "--factor 1:"),
        (("--out", "S", "--time", "soon"), "--time: 'soon'"),
        (("--out", "S", "--time", "1h", "--design", "six"), "--design 'six'"),
        (("--out", "S", "--time", "1h", "--seeds", "2"), "--seeds 2: a study takes at least 3"),
        (("--out", "S", "--time", "1h", "--executor", "spark"), "--executor 'spark'"),
        (("--out", "S", "--time", "1h", "--address", "auto"), "--address auto: of a Ray cluster"),
        (("--out", "S", "--time", "1h", "--baseline", "b0"), "b0"),
        (("--out", "S", "--time", "1h", "--images", "0"), "--images 0"),
        (("--out", "S", "--time", "1h", "--images", "1"), "--images 1: at least 2"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_leaves_nothing(
    triscale: Run, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = triscale("study", digits, *words)
    assert code == 2
    assert said in err.strip().splitlines()[-1]
    assert out == ""
    assert not (tmp_path / "S").exists()


@pytest.mark.slow
def test_too_little_time_is_refused_with_what_the_least_study_takes(
    triscale: Run, digits: Path, tmp_path: Path
) -> None:
    code, out, err = triscale("study", digits, "--time", "1s", "--out", tmp_path / "study")
    assert (code, out) == (2, "")
    assert "--time" in err
    assert "the least study, 5 arms × 3 seeds of" in err
    assert not (tmp_path / "study").exists()


def test_the_example_of_the_help_names_what_there_is(triscale: Run) -> None:
    told = " ".join(triscale("study", "--help")[1].split())
    assert "Example: triscale study IMAGES --baseline mobilenet_v2 --factor 2 --time 1h --out STUDY" in told


def test_the_setup_and_the_choice_survive_run_json(studied: Path) -> None:
    settings = json.loads((studied / "run.json").read_text())
    setup = Setup.from_json(settings["setup"], "run.json")
    assert json.loads(json.dumps(setup.to_json())) == settings["setup"]
    assert setup.data == settings["data"]["fingerprint"]
    assert setup.baseline == tiny() or setup.baseline.classes == 3


def test_a_damaged_run_json_is_one_line(tmp_path: Path, studied: Path) -> None:
    settings = json.loads((studied / "run.json").read_text())
    del settings["setup"]["how"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="not a study that this version can go on with"):
        resume_study(tmp_path / "run")


def test_images_without_more_pixels_are_said_to_show_nothing_new(studied: Path, heard: Listening) -> None:
    assert any("more resolution shows nothing new" in text for text in heard.said)
    assert any("resolution ×2 asks for" in text for text in heard.said)


def test_a_person_can_watch(studied: Path, heard: Listening) -> None:
    assert heard.progressed[-1].done == heard.progressed[-1].wanted
    assert 1 <= max(progress.running for progress in heard.progressed) <= 2
    assert any(progress.left is not None and progress.last is not None for progress in heard.progressed)
    assert all(0 <= progress.share <= 1 for progress in heard.progressed)


def test_the_fingerprint_of_the_images_is_part_of_a_trial(digits: Path, studied: Path) -> None:
    data = read(digits, seed=0)
    with sqlite3.connect(studied / "ledger.db") as ledger:
        query = "SELECT value_json FROM trial_user_attributes WHERE key = 'trial'"
        assert {json.loads(text)["data"] for (text,) in ledger.execute(query)} == {data.fingerprint}


def test_shares_of_a_coefficients_file_are_those_of_the_optimum(studied: Path) -> None:
    values = json.loads((studied / "coefficients.json").read_text())
    shares = Exponents(**values["shares"])
    assert shares.coefficients().alpha == pytest.approx(values["alpha"])
