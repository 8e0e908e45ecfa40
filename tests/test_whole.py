"""`triscale fit --search --study`: every stage once, whatever ends it; and its page says no more than was measured."""

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pictures import digit_folder
from PIL import Image

from triscale.arch import adapt, multiply, published, to_json
from triscale.costing import cost
from triscale.errors import TooShortError, TriscaleError, UserError
from triscale.evaluating import compare
from triscale.fitting import Fitted, fit, whole
from triscale.fitting.whole import BESIDE, Listeners, Whole, fit_whole, resume_whole
from triscale.models import load
from triscale.reporting.whole import claim, verdict, write_whole_page
from triscale.studies import Wanted
from triscale.trials import Ledger

Run = Callable[..., tuple[int, str, str]]
SEARCHED = {
    "reference": {"order": -1, "macs": 1000, "network": {"resolution": [18, 18]}},
    "candidates": [],
    "winner": -1,
}
STUDIED: Mapping[str, Any] = {"surface": None, "why_no_surface": "too few arms", "factors": []}


def row(name: str, apart: list[float] | None) -> dict[str, Any]:
    test = {"test": [0.9, 0.88, 0.92], "images": 500, "macs": 10**6, "params": 10**5, "latency": 1e-3}
    return {"name": name, "resolution": [28, 28], "apart": apart, **test}


ROWS = [row("grown", None), row("a", [-0.02, -0.03, -0.01]), row("b", [0.0, -0.01, 0.01]), row("c", [0.02, 0.01, 0.03])]


class Stages:
    """Stands where the stages are called; counts them, and fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[str] = []
        self.fails: str | None = None
        self.coefficients: dict[str, float] | None = None
        self.network = published("mobilenet_v2")
        self.asked: dict[str, dict[str, Any]] = {}
        monkeypatch.setattr(whole, "search_network", self.searching)
        monkeypatch.setattr(whole, "study", self.studying)
        monkeypatch.setattr(whole, "resume_study", self.resuming)
        monkeypatch.setattr(whole, "fit", self.fitting)

    def searching(self, data: Path, *, out: Path, **asked: Any) -> None:
        self._note("search", asked)
        out.mkdir(parents=True, exist_ok=True)
        (out / "network.json").write_text(to_json(self.network))
        (out / "search.json").write_text(json.dumps(SEARCHED | {"gain": None}))

    def studying(self, data: Path, *, out: Path, **asked: Any) -> None:
        out.mkdir(parents=True, exist_ok=True)
        if self.fails == "study":  # in the midst of it, before its design was chosen
            (out / "run.json").write_text(json.dumps({"asked": {"verb": "study"}, "choice": None}))
        self._note("study", asked)
        (out / "study.json").write_text(json.dumps(STUDIED))
        (out / "baseline.json").write_text(to_json(published("mobilenet_v2")))
        if self.coefficients is not None:
            (out / "coefficients.json").write_text(json.dumps(self.coefficients))

    def resuming(self, out: Path, *, data: Path, changes: Wanted | None, listener: object) -> None:
        chosen = json.loads((out / "run.json").read_text())["choice"] is not None
        assert chosen or changes is not None, "its design is not chosen, and the time may be another"
        self.studying(data, out=out, **self.asked["study"] | {"time": changes and changes.time})

    def fitting(self, data: Path, *, out: Path, **asked: Any) -> Fitted:
        """The real one, for two epochs."""
        self.asked.setdefault(out.name, asked)
        if self.fails == out.name:
            raise TriscaleError("the disk is full")
        return fit(data, out=out, **(asked | {"time": None, "epochs": 2}))

    def _note(self, stage: str, asked: dict[str, Any]) -> None:
        self.called.append(stage)
        self.asked[stage] = asked
        if self.fails == stage:
            raise TriscaleError("the disk is full")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_folder(tmp_path_factory.mktemp("few") / "digits", classes=2, each=16)


ASKED = Whole(macs=1_000_000, time=60.0, search=True, study=True)


def test_a_stage_that_fails_is_done_again_and_none_before_it(few: Path, tmp_path: Path, stages: Stages) -> None:
    out, stages.fails = tmp_path / "run", "study"
    with pytest.raises(TriscaleError, match="disk is full"):
        fit_whole(few, ASKED, out)
    stages.fails = None
    told: list[str] = []
    grown = resume_whole(out, listeners=Listeners(stage=told.append))
    assert stages.called == ["search", "study", "study"]
    assert told == ["study", "fit", "zoo"]
    rows = grown.values["result"]["networks"]
    assert [row["name"] for row in rows] == ["grown", *BESIDE]
    assert all(row["macs"] <= 1_000_000 for row in rows)
    assert all(stages.asked[name]["epochs"] == 2 for name in BESIDE)  # as many as the grown one's
    assert 60 / 4 < stages.asked["fit"]["time"] <= 60  # all that is left, whatever the zoo takes after it
    assert load(out).classes  # the model that came out
    for name, found in zip(BESIDE, rows[1:], strict=True):  # bounds that hold for all of them at once
        apart = compare(out / "zoo" / name, out / "fit").difference
        assert found["apart"] == pytest.approx([apart.value, *apart.interval(1 - 0.05 / len(BESIDE))])
    assert "Beside the zoo" in (out / "report.html").read_text()
    assert (out / "MODEL.md").read_bytes() == (out / "fit" / "MODEL.md").read_bytes()  # of the same model


def test_a_network_of_the_zoo_that_cannot_be_trained_is_left_out_of_the_comparison(
    few: Path, tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stages.fitting

    def fitting(data: Path, *, out: Path, **asked: Any) -> Fitted:
        if out.name == BESIDE[0]:
            raise UserError("no network that small")
        return real(data, out=out, **asked)

    monkeypatch.setattr(whole, "fit", fitting)
    noted: list[str] = []
    listeners = Listeners()
    monkeypatch.setattr(listeners.fit, "note", noted.append)
    grown = fit_whole(few, replace(ASKED, macs=6e6, search=False), tmp_path / "run", listeners)
    assert [row["name"] for row in grown.values["result"]["networks"]] == ["grown", *BESIDE[1:]]
    assert f"{BESIDE[0]} is left out of the comparison: no network that small" in noted
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{BESIDE[0]} is left out: no network that small." in page
    assert "To come" not in page


def test_a_time_that_is_too_short_for_a_stage_is_told_as_that_of_all(
    few: Path, tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Mock(side_effect=TooShortError("--time 24 s: the least search takes about 60 s", "give it that time", 60.0))
    with monkeypatch.context() as hurried:
        hurried.setattr(whole, "search_network", short)
        with pytest.raises(
            UserError, match=r"60 s of its share of the time; for all stages take --time 18[0-9]s or mo"
        ):
            fit_whole(few, replace(ASKED, study=False), tmp_path / "run")
    resume_whole(tmp_path / "run", time=150)
    assert stages.asked["search"]["time"] == pytest.approx(60.0)


def test_what_a_killed_sitting_of_a_stage_took_is_time_too(
    few: Path, tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "BESIDE", BESIDE[:1])
    out, stages.fails = tmp_path / "run", "search"
    with pytest.raises(TriscaleError, match="disk is full"):
        fit_whole(few, ASKED, out)
    with closing(made_ledger(out / "search")) as ledger:  # as `kill -9` leaves it: nobody told whole.json
        ledger.sit(1)
        ledger.spend(24.0, 20.0)
    stages.fails = "study"
    with pytest.raises(TriscaleError, match="disk is full"):
        resume_whole(out)
    left = 60.0 - 24.0
    assert stages.asked["study"]["time"] <= 0.25 / 0.7 * left
    assert json.loads((out / "whole.json").read_text())["seconds"]["search"] >= 24.0

    with closing(made_ledger(out / "study")) as ledger:
        ledger.sit(1)
        ledger.spend(20.0, 20.0)
    stages.fails = None
    grown = resume_whole(out)
    assert stages.asked["fit"]["time"] <= left - 20.0
    took = {"fit": grown.fitted.seconds, "zoo": grown.values["result"]["networks"][1]["seconds"]}
    values = json.loads((out / "whole.json").read_text())
    values["seconds"] |= {"fit": 0.0, "zoo": 0.0}  # as where both were trained by sittings that were killed
    (out / "whole.json").write_text(json.dumps(values))
    again = resume_whole(out).values["seconds"]
    assert all(again[stage] >= seconds - 0.01 for stage, seconds in took.items())  # run.json has them rounded
    assert again["search"] == grown.values["seconds"]["search"]


def made_ledger(place: Path) -> Ledger:
    place.mkdir(exist_ok=True)
    return Ledger(place / "ledger.db", place.name)


@pytest.mark.parametrize("time", [None, 9000.0])
def test_another_time_is_handed_on_to_a_study_that_has_chosen_and_no_time_is_not(
    few: Path, tmp_path: Path, stages: Stages, time: float | None
) -> None:
    out, stages.fails = tmp_path / "run", "study"
    with pytest.raises(TriscaleError, match="disk is full"):
        fit_whole(few, ASKED, out)
    (out / "study" / "run.json").write_text(json.dumps({"asked": {"verb": "study"}, "choice": {"seeds": 3}}))
    stages.fails = BESIDE[0]
    with pytest.raises(TriscaleError, match="disk is full"):
        resume_whole(out, time=time)
    handed = stages.asked["study"]["time"]
    assert handed is None if time is None else 9000 / 4 < handed < 9000 / 2


def test_the_model_and_its_page_are_there_before_the_zoo_is_trained(
    few: Path, tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stages.fails = tmp_path / "run", BESIDE[1]
    with pytest.raises(TriscaleError, match="disk is full"):
        fit_whole(few, ASKED, out)
    assert load(out).classes
    page = (out / "report.html").read_text()
    assert "To come" in page
    assert BESIDE[1] in page.partition("To come")[2]
    assert BESIDE[0] not in page.partition("To come")[2]
    with monkeypatch.context() as ended:  # going on takes nothing away from the page
        ended.setattr(whole._Stages, "_zoo", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            resume_whole(out)
    assert (out / "report.html").read_text().partition("To come")[2] == page.partition("To come")[2]
    stages.fails = None
    grown = resume_whole(out)
    assert [row["name"] for row in grown.values["result"]["networks"]] == ["grown", *BESIDE]
    assert stages.called.count("search") == stages.called.count("study") == 1
    assert "To come" not in (out / "report.html").read_text()


def test_it_is_not_grown_beyond_the_pixels_that_the_images_have(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = digit_folder(tmp_path / "digits", classes=2, each=16)
    for picture in images.rglob("*.png"):
        Image.open(picture).resize((24, 24)).save(picture)
    monkeypatch.setattr(whole, "BESIDE", ())
    stages.coefficients = {"alpha": 1.0, "beta": 1.0, "gamma": 1.4}  # resolution alone
    small = multiply(published("mobilenet_v2"), 0.1, 0.25, 1.0)
    stages.network = adapt(small, resolution=(18, 18), channels=1, classes=2)
    macs = 4 * cost(stages.network).macs
    plan = fit_whole(images, replace(ASKED, macs=macs), tmp_path / "run").fitted.plan
    assert plan.architecture.resolution == (24, 24)
    assert 0.99 * macs < plan.scaled.cost.macs <= macs


def test_the_baseline_is_searched_and_studied_at_a_quarter_of_the_budget_and_in_the_time(
    few: Path, tmp_path: Path, stages: Stages
) -> None:
    out, stages.fails = tmp_path / "run", "study"
    with pytest.raises(TriscaleError):
        fit_whole(few, ASKED, out)
    assert stages.asked["search"]["macs"] == stages.asked["study"]["macs"] == 250_000
    assert stages.asked["search"]["time"] == pytest.approx(0.3 * 60)
    assert stages.asked["search"]["time"] + stages.asked["study"]["time"] < 60
    assert stages.asked["study"]["baseline"] == out / "search" / "network.json"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--search", "--macs", "1M"), "need a budget and a time: --macs 10M --time 2h"),
        (("--study", "--time", "1h"), "need a budget and a time"),
        (
            ("--search", "--macs", "1M", "--time", "1h", "--rule", "width"),
            "--rule does not go with --search or --study",
        ),
        (("--study", "--macs", "1M", "--time", "1h", "--params", "1M"), "--params does not go with"),
        (("--study", "--macs", "1M", "--time", "-1h"), "--time"),
        (("--study", "--macs", "1M", "--time", "1h", "--baseline", "nowhere"), "'nowhere' is no network"),
        (("--search", "--macs", "1M", "--time", "1h", "--seed", "-1"), "a seed is a whole number from 0"),
        (
            ("--search", "--macs", "1M", "--time", "1h", "--baseline", "resnet18", "--baseline", "mobilenet_v2"),
            "one --baseline",
        ),
    ],
)
def test_a_mistake_is_named_with_a_way_out(
    asked: tuple[str, ...], says: str, few: Path, tmp_path: Path, triscale: Run
) -> None:
    code, _, err = triscale("fit", few, *asked, "--out", tmp_path / "run")
    assert code == 2
    assert says in err
    assert not (tmp_path / "run").exists()


def test_images_that_are_not_there_leave_nothing_behind(tmp_path: Path, triscale: Run) -> None:
    asked = ("--search", "--macs", "1M", "--time", "1h", "--out", tmp_path / "run")
    code, _, err = triscale("fit", tmp_path / "nowhere", *asked)
    assert code == 2
    assert "nowhere" in err
    assert not (tmp_path / "run").exists()


def test_what_no_stage_takes_is_refused_for_a_run_that_goes_on(tmp_path: Path, triscale: Run) -> None:
    (tmp_path / "whole.json").write_text("{}")
    code, _, err = triscale("fit", "--resume", "--out", tmp_path, "--rule", "slim")
    assert code == 2
    assert "--rule" in err
    assert "only --time may be another" in err


BEGUN = {"macs": 1e6, "time": 60.0, "search": True, "study": False, "baseline": "resnet18", "seed": 3}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--baseline", "mobilenet_v2"), "--baseline mobilenet_v2: RUN was begun with resnet18; leave --baseline out"),
        (("--macs", "2M"), "--macs 2M: RUN was begun with 1M; leave --macs out to go on"),
        (("--seed", "0"), "--seed 0: RUN was begun with 3"),
        (("--on-bad", "skip"), "--on-bad skip: RUN was begun with error"),
        (("--baseline", "resnet18", "--baseline", "mobilenet_v2"), "one --baseline"),
    ],
)
def test_what_all_stages_share_cannot_be_another_later(
    typed: tuple[str, ...], says: str, tmp_path: Path, triscale: Run
) -> None:
    (tmp_path / "whole.json").write_text(
        json.dumps({"asked": BEGUN, "data": "nowhere", "seconds": {}, "pixels": [8, 8]})
    )
    code, _, err = triscale("fit", "--resume", "--out", tmp_path, *typed)
    assert code == 2
    assert says.replace("RUN", str(tmp_path)) in err


def test_what_all_stages_share_may_be_said_once_more(tmp_path: Path, triscale: Run) -> None:
    (tmp_path / "whole.json").write_text(
        json.dumps({"asked": BEGUN, "data": "nowhere", "seconds": {}, "pixels": [8, 8]})
    )
    words = ("--search", "--macs", "1M", "--baseline", "resnet18", "--seed", 3, "--device", "cpu", "--on-bad", "error")
    code, _, err = triscale("fit", "--resume", "--out", tmp_path, *words)
    assert code == 2
    assert "'nowhere' does not exist" in err  # the images: nothing that was said stands in the way


def test_where_the_images_have_moved_it_says_how_to_name_the_place(tmp_path: Path, triscale: Run) -> None:
    asked = {"macs": 1e6, "time": 60.0, "search": True, "study": False}
    (tmp_path / "whole.json").write_text(json.dumps({"asked": asked, "data": "gone", "seconds": {}, "pixels": [8, 8]}))
    code, _, err = triscale("fit", "--resume", "--out", tmp_path)
    assert code == 2
    again = f"triscale fit DATA --resume --out {tmp_path}"
    assert f"'gone' does not exist any more; put it back, or name where it is now: {again}" in err


def test_a_stage_that_a_run_was_begun_without_is_no_part_of_it_later(tmp_path: Path, triscale: Run) -> None:
    asked = {"macs": 1e6, "time": 60.0, "search": True, "study": False}
    (tmp_path / "whole.json").write_text(
        json.dumps({"asked": asked, "data": "nowhere", "seconds": {}, "pixels": [8, 8]})
    )
    code, _, err = triscale("fit", "--resume", "--out", tmp_path, "--search", "--study")
    assert code == 2
    assert f"--study: {tmp_path} was begun without it" in err


@pytest.mark.parametrize(
    "asked", [("--search",), ("--study",), ("--search", "--study", "--baseline", "resnet18"), ("--study", "OWN")]
)
def test_a_budget_that_leaves_no_baseline_is_refused_as_it_was_asked_and_leaves_nothing(
    few: Path, tmp_path: Path, triscale: Run, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    own = tmp_path / "own.json"
    own.write_text(to_json(published("mobilenet_v2")))
    words = [word for word in asked if word != "OWN"] + (["--baseline", str(own)] if "OWN" in asked else [])
    code, _, err = triscale("fit", few, *words, "--macs", "100k", "--time", "1h", "--out", tmp_path / "run")
    assert code == 2
    assert "--macs 100k: a baseline gets 1/4 of it" in err
    assert not (tmp_path / "run").exists()
    # What it says is enough.
    enough = re.search(r"give about ([\d.]+[kM])", err)
    assert enough is not None
    for stage in ("search_network", "study"):
        monkeypatch.setattr(whole, stage, Mock(side_effect=TriscaleError("it was begun")))
    _, _, err = triscale("fit", few, *words, "--macs", enough[1], "--time", "1h", "--out", tmp_path / "run")
    assert "it was begun" in err


@pytest.mark.parametrize("changed", [{"asked": {"macs": 1}}, {"seconds": {"fit": "long"}}, {"pixels": [28]}])
def test_a_damaged_manifest_is_named(tmp_path: Path, changed: dict[str, Any]) -> None:
    asked = {"macs": 1e6, "time": 60.0, "search": True, "study": True}
    whole_one = {"asked": asked, "data": "nowhere", "seconds": {}, "pixels": [28, 28]}
    (tmp_path / "whole.json").write_text(json.dumps(whole_one | changed))
    with pytest.raises(UserError, match=r"whole\.json: not a run that this version can go on with"):
        resume_whole(tmp_path)


def test_verdicts_follow_the_intervals() -> None:
    assert [verdict(one) for one in ROWS] == ["", "worse", "not shown to differ", "better"]
    assert claim(ROWS) == (
        "At the same MACs the grown network is better than a, not shown to differ from b, worse than c."
    )


def test_the_page_says_where_a_stage_found_nothing(tmp_path: Path) -> None:
    values = {
        "asked": {"macs": 10**6, "time": 60.0},
        "seconds": {"search": 1.0, "study": 2.0, "fit": 3.0, "zoo": 4.0},
        "result": {"networks": [*ROWS, row("<b>", [0.0, -0.1, 0.1])], "epochs": 3},
    }
    write_whole_page(tmp_path / "report.html", values, SEARCHED | {"gain": None}, STUDIED)
    page = (tmp_path / "report.html").read_text()
    assert "None was better than the reference" in page
    assert "No coefficients: too few arms" in page
    assert "<b>" not in page


@pytest.mark.slow
def test_a_searched_network_is_grown_and_tested_beside_the_zoo(
    digits: Path, tmp_path: Path, triscale: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(whole, "SHARES", {whole.SEARCH: 0.6, whole.STUDY: 0.0, whole.FIT: 0.4})
    code, said, err = triscale("fit", digits, "--search", "--macs", "4M", "--time", "9s", "--out", out, "--json")
    # What the least search takes is measured, so that it may have become more when people go on as they are told.
    while code == 2 and (told := re.search(r"triscale (fit --resume --out \S+) --time (\d+)s$", said.strip()[:-2])):
        longer = math.ceil(1.2 * int(told[2]))
        code, said, err = triscale(*told[1].split(), "--time", f"{longer}s", "--json")
    assert code == 0, said + err
    assert longer > 9
    values = json.loads(said)
    assert set(values["seconds"]) == {"search", "fit", "zoo"}
    assert values["result"]["networks"][0]["macs"] <= 4_000_000
    for stage in ("search", "fit"):
        assert (out / stage / "report.html").is_file()
