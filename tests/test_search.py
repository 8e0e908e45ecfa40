"""`triscale search` as a person or a script meets it: one small search, made once, and what can go wrong."""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import search_values
from shapes import differing_keys
from test_study import tiny
from trainings import finished as run_to_its_end
from trainings import started
from waiting import until

import triscale
from triscale.arch import resolve, to_json
from triscale.costing import cost
from triscale.data import read
from triscale.errors import UserError
from triscale.searching import resume_search, search_network
from triscale.searching.network_search import untested

Run = Callable[..., tuple[int, str, str]]
FEW = ("--candidates", "8", "--epochs", "1", "--workers", "2")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "tiny.json"
    path.write_text(to_json(replace(tiny(), channels=1, head=replace(tiny().head, classes=3))))
    return path


@pytest.fixture(scope="module")
def limit(reference: Path) -> str:
    return str(int(cost(resolve(reference)).macs * 1.05))


@pytest.fixture(scope="module")
def searched(digits: Path, reference: Path, limit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of eight candidates."""
    out = tmp_path_factory.mktemp("search") / "search"
    search_network(digits, out=out, reference=reference, macs=float(limit), candidates=8, epochs=1, workers=2)
    return out


def test_a_search_leaves_a_network_its_values_its_space_and_its_page(searched: Path, limit: str) -> None:
    values = json.loads((searched / "search.json").read_text())
    assert values["finished"]
    assert len(values["candidates"]) == 8
    assert values["time"]["trials"] == sum(len(c["runs"]) for c in (values["reference"], *values["candidates"]))
    assert cost(resolve(searched / "network.json")).macs <= float(limit)
    assert "<html" in (searched / "report.html").read_text()


def test_pages_of_searches_are_tested_with_the_keys_that_a_search_writes(searched: Path) -> None:
    written = json.loads((searched / "search.json").read_text())
    assert differing_keys(written, search_values.search(), free=("network", "choices", "costs", "limits")) == []


def test_what_was_found_is_taken_by_its_path_and_by_the_directory(searched: Path, triscale: Run) -> None:
    by_file = triscale("cost", searched / "network.json", "--json")
    assert by_file[0] == 0
    assert triscale("cost", searched, "--json")[1] == by_file[1]


def test_the_space_that_was_searched_can_be_searched_again_by_chance_and_stands_beside(
    searched: Path, digits: Path, limit: str, tmp_path: Path, triscale: Run
) -> None:
    space, out = searched / "space.json", tmp_path / "control"
    asked = ("--space", space, "--macs", limit, *FEW, "--strategy", "random", "--beside", searched)
    code, _, err = triscale("search", digits, *asked, "--out", out)
    assert code == 0, err
    assert json.loads((out / "space.json").read_text()) == json.loads(space.read_text())
    page = (out / "report.html").read_text()
    assert "evolution" in page
    assert "random" in page


@pytest.mark.parametrize("wanted", [("--macs", "1G"), ("--macs", "1k"), ("--latency", "30s", "--epochs", "1")])
def test_a_space_that_is_far_from_the_limit_is_refused_before_anything_is_drawn(
    wanted: tuple[str, ...], searched: Path, digits: Path, tmp_path: Path, triscale: Run
) -> None:
    out = tmp_path / "out"
    code, _, err = triscale("search", digits, "--space", searched / "space.json", *wanted, "--time", "1h", "--out", out)
    assert code == 2, err
    assert "its networks use about " in err
    assert "of the limits, and wanted are 85% to 100%" in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("asked", None, "not the settings of a run"), ("finalists", [1], "finalists"), ("finalists", "x", "finalists")],
)
def test_a_damaged_run_json_is_named(
    field: str, value: object, says: str, searched: Path, tmp_path: Path, triscale: Run
) -> None:
    out = shutil.copytree(searched, tmp_path / "copy")
    settings = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(settings | {field: value}))
    code, _, err = triscale("search", "--resume", "--out", out)
    assert code == 2, err
    assert f"{out}/run.json" in err
    assert says in err


def test_finalists_that_the_ledger_does_not_know_are_chosen_again(
    searched: Path, tmp_path: Path, triscale: Run
) -> None:
    out = shutil.copytree(searched, tmp_path / "copy")
    settings = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(settings | {"finalists": [[0, 0]]}))
    code, said, err = triscale("search", "--resume", "--out", out, "--json")
    assert code == 0, err
    assert json.loads(said)["winner"] == json.loads((searched / "search.json").read_text())["winner"]


def test_a_trial_never_has_a_test_image(searched: Path, digits: Path) -> None:
    assert len(read(digits).test) > 0
    assert len(untested(read(digits)).test) == 0
    with sqlite3.connect(searched / "ledger.db") as ledger:
        told = [
            json.loads(row[0])
            for row in ledger.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'outcome'")
        ]
    assert told
    assert {outcome["test"] for outcome in told} == {"0:"}


def test_a_finished_search_that_goes_on_trains_nothing_and_ends_the_same(
    searched: Path, tmp_path: Path, triscale: Run
) -> None:
    before = json.loads((searched / "search.json").read_text())
    code, out, err = triscale("search", "--resume", "--out", searched, "--json")
    assert code == 0, err
    after = json.loads(out)
    assert [after[key] for key in ("winner", "finalists", "gain")] == [
        before[key] for key in ("winner", "finalists", "gain")
    ]
    with sqlite3.connect(searched / "ledger.db") as ledger:
        assert ledger.execute("SELECT count(*) FROM trials").fetchone()[0] == before["time"]["trials"]


def test_an_extended_search_tries_more_and_keeps_what_it_had(searched: Path, tmp_path: Path, triscale: Run) -> None:
    place = tmp_path / "more"
    shutil.copytree(searched, place)
    code, out, err = triscale("search", "--resume", "--candidates", "11", "--out", place, "--json")
    assert code == 0, err
    before = json.loads((searched / "search.json").read_text())["candidates"]
    after = json.loads(out)["candidates"]
    assert len(after) == 11
    assert [one["network"] for one in after[:8]] == [one["network"] for one in before]


def test_a_space_that_was_used_up_stays_so_until_the_search_is_extended(
    searched: Path, tmp_path: Path, triscale: Run
) -> None:
    place = tmp_path / "search"
    shutil.copytree(searched, place)
    settings = json.loads((place / "run.json").read_text())
    assert settings["used_up"] is False
    (place / "run.json").write_text(json.dumps(settings | {"used_up": True}))
    code, _, err = triscale("search", "--resume", "--out", place)
    assert code == 0
    assert "--resume with --time or --candidates looks once more" in err
    assert json.loads((place / "search.json").read_text())["used_up"]
    assert triscale("search", "--resume", "--candidates", "9", "--out", place)[0] == 0
    assert not json.loads((place / "search.json").read_text())["used_up"]


def test_that_a_space_was_used_up_is_kept_with_the_finalists(
    searched: Path, tmp_path: Path, triscale: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(searched, tmp_path / "search")
    monkeypatch.setattr("triscale.searching.halving.fresh", lambda *_: None)
    code, _, err = triscale("search", "--resume", "--candidates", "9", "--out", place)
    assert code == 0, err
    settings = json.loads((place / "run.json").read_text())
    assert settings["used_up"] is True
    assert settings["finalists"]


def test_a_time_that_is_over_already_is_said_to_be(searched: Path, tmp_path: Path, triscale: Run) -> None:
    place = shutil.copytree(searched, tmp_path / "again")
    code, _, err = triscale("search", "--resume", "--time", "1s", "--out", place)
    assert code == 0, err
    assert re.search(r"--time 1 s: the search has taken .* already, and --time is that of all sittings: none is", err)


def test_python_calls_it_by_the_same_words() -> None:
    assert triscale.search_network is search_network
    assert callable(triscale.search)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--macs", "5M"), "say how long it may take: --time 1h; or how many networks to try: --candidates 50"),
        (("--time", "1h"), "say what a network may cost: --macs 5M"),
        (
            ("--macs", "5M", "--time", "1h", "--strategy", "luck"),
            "--strategy 'luck': is none; take evolution, random, tpe",
        ),
        (("--macs", "5M", "--time", "1h", "--objective", "best"), "--objective 'best': is none; take constraint, hard"),
        (
            ("--macs", "5M", "--params", "1M", "--time", "1h", "--objective", "paper"),
            "weighs one cost, not macs and params; name one",
        ),
        (
            ("--macs", "5M", "--time", "1h", "--objective", "paper", "--exponent", "1"),
            "--exponent 1: from -10 to 0; the paper's is -0.07",
        ),
        (
            ("--macs", "5M", "--time", "1h", "--exponent", "-0.1"),
            "--exponent -0.1: is the w of the objectives paper and abs; say --objective paper too",
        ),
        (
            ("--macs", "5M", "--time", "1h", "--objective", "paper", "--exponent", "-0.1", "--calibrate"),
            "--exponent -0.1: --calibrate measures it; leave one of the two out",
        ),
        (("--macs", "5M", "--time", "1h", "--calibrate"), "say --objective paper too"),
        (("--macs", "5M", "--candidates", "3"), "--candidates 3: at least 8; fewer are no search"),
        (
            ("--macs", "5M", "--time", "1h", "--space", "nowhere"),
            "--space nowhere: neither around nor mnasnet nor a JSON file",
        ),
        (("--macs", "5M", "--time", "1h", "--reference", "nowhere"), "'nowhere' is no network"),
        (("--macs", "5M", "--time", "1h", "--beside", "nowhere"), "--beside nowhere: no finished search"),
        (
            ("--macs", "5M", "--time", "1h", "--images", "1"),
            "--images 1: at least 2",
        ),
        (("--macs", "5M", "--time", "1h", "--executor", "moon"), "is neither local nor ray"),
        (("--macs", "1k", "--time", "1h"), "no network that small"),
    ],
)
def test_a_mistake_is_named_with_a_way_out_and_writes_nothing(
    asked: tuple[str, ...], says: str, digits: Path, tmp_path: Path, triscale: Run
) -> None:
    out = tmp_path / "out"
    code, _, err = triscale("search", digits, *asked, "--out", out)
    assert code == 2, err
    assert says in err
    assert not out.exists()


def test_a_search_that_is_no_other_one_does_not_stand_beside(
    searched: Path, digits: Path, tmp_path: Path, triscale: Run
) -> None:
    (link := tmp_path / "link").symlink_to(searched)
    kept = (searched / "run.json").read_bytes()
    code, _, err = triscale("search", "--resume", "--out", searched, "--beside", link)
    assert code == 2
    assert f"--beside {link}: is this search itself, which its page shows anyway; leave it out" in err
    assert (searched / "run.json").read_bytes() == kept
    twice = ("--beside", searched, "--beside", link, "--out", tmp_path / "out")
    code, _, err = triscale("search", digits, "--macs", "1M", *FEW, *twice)
    assert code == 2
    assert f"--beside {link}: is named twice; name every search once" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_time_that_is_too_short_says_what_it_takes(digits: Path, tmp_path: Path, triscale: Run) -> None:
    code, _, err = triscale("search", digits, "--macs", "1M", "--time", "1s", "--out", tmp_path / "out")
    assert code == 2
    assert "the least search, 8 candidates" in err
    assert "takes about" in err


def test_what_all_trials_share_cannot_be_changed(searched: Path, tmp_path: Path, triscale: Run) -> None:
    before = (searched / "run.json").read_bytes()
    for typed, says in (
        (("--macs", "1M"), "--macs 1M: SEARCH was begun with "),
        (("--params", "1M"), "--params 1M: SEARCH was begun with none, and all trials share it; leave --params out"),
        (("--strategy", "tpe"), "--strategy tpe: SEARCH was begun with evolution"),
        (("--exponent", "-0.1"), "--exponent -0.1: SEARCH was begun with -0.07"),
        (("--calibrate",), "--calibrate: SEARCH was begun without it"),
        (("--reference", "resnet18"), "--reference: SEARCH was begun with another one"),
        (("--seed", "9"), "--seed 9: SEARCH was begun with "),
    ):
        code, _, err = triscale("search", "--resume", *typed, "--out", searched)
        assert code == 2
        assert says.replace("SEARCH", str(searched)) in err
    assert (searched / "run.json").read_bytes() == before


def test_what_all_trials_share_may_be_said_once_more(
    searched: Path, reference: Path, limit: str, triscale: Run
) -> None:
    begun = json.loads((searched / "run.json").read_text())["setup"]
    shared = ("--macs", limit, "--reference", reference, "--strategy", "evolution", "--space", "around", "--seed", 0)
    came = ("--images", begun["images"], "--epochs", begun["rungs"][-1], "--device", "cpu", "--on-bad", "error")
    code, _, err = triscale("search", "--resume", *shared, *came, "--out", searched)
    assert code == 0, err


def test_the_library_names_what_a_search_was_begun_with(searched: Path) -> None:
    with pytest.raises(UserError, match=r"^--seed 9: \S+ was begun with 0, and all trials share it"):
        resume_search(searched, named={"seed": 9})


def test_a_reference_that_memory_could_not_train_is_refused_before_anything_is_there(
    digits: Path, tmp_path: Path, triscale: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.training.budgets.total_memory", lambda _: 10**6)
    asked = ("--macs", "1M", "--candidates", "8", "--workers", "1", "--out", tmp_path / "out")
    code, _, err = triscale("search", digits, *asked)
    assert code == 2
    assert "of memory, and there are 1 MB; give a smaller limit, or fewer --workers" in err
    assert not (tmp_path / "out").exists()


def test_where_the_images_have_moved_it_says_how_to_name_the_place(
    searched: Path, tmp_path: Path, triscale: Run
) -> None:
    place = shutil.copytree(searched, tmp_path / "copy")
    settings = json.loads((place / "run.json").read_text())
    settings["data"]["path"] = str(tmp_path / "gone")
    (place / "run.json").write_text(json.dumps(settings))
    code, _, err = triscale("search", "--resume", "--out", place)
    assert code == 2
    again = f"triscale search DATA --resume --out {place}"
    assert f"/gone' does not exist any more; put it back, or name where it is now: {again}" in err


def test_a_study_is_no_search(tmp_path: Path, triscale: Run) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"asked": {"verb": "study"}}))
    code, _, err = triscale("search", "--resume", "--out", tmp_path)
    assert code == 2
    assert "is no search" in err


def test_a_reference_within_the_limits_is_taken_as_it_is(searched: Path, reference: Path) -> None:
    values = json.loads((searched / "search.json").read_text())
    assert values["reference"]["macs"] == cost(resolve(reference)).macs


def test_an_unknown_reference_is_a_user_error(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no network"):
        search_network(digits, out=tmp_path / "out", macs=1e6, candidates=8, reference="nowhere")


def finished(out: Path) -> int:
    """Trials of the ledger that are, so far."""
    if not (out / "ledger.db").is_file():
        return 0
    with closing(sqlite3.connect(f"file:{out / 'ledger.db'}?mode=ro", uri=True)) as ledger, suppress(sqlite3.Error):
        return int(ledger.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
    return 0  # its tables are being made


@pytest.mark.slow
def test_a_search_that_is_killed_at_any_moment_goes_on_and_repeats_no_finished_trial(
    digits: Path, reference: Path, limit: str, tmp_path: Path
) -> None:
    out, rng = tmp_path / "killed", random.Random(0)
    asked = ("search", digits, "--reference", reference, "--macs", limit, "--candidates", "40", "--epochs", "9")
    words: tuple[object, ...] = (*asked, "--workers", "2", "--out", out)
    for place, trials in enumerate((1, 8, 20, 35)):
        with started(*words) as driver:
            assert until(lambda trials=trials: finished(out) >= trials, driver), driver.communicate()
            time.sleep(rng.random() / 10)  # anywhere in the trials that follow
            assert driver.poll() is None
            os.killpg(driver.pid, signal.SIGKILL) if place % 2 else os.kill(driver.pid, signal.SIGKILL)
            driver.communicate()
        words = ("search", "--resume", "--out", out)
    driver = run_to_its_end(*words)
    assert driver.returncode == 0, driver.stderr
    with sqlite3.connect(out / "ledger.db") as ledger:
        query = """SELECT k.value_json FROM trials t JOIN trial_user_attributes k ON k.trial_id = t.trial_id
                   WHERE t.state = 'COMPLETE' AND k.key = 'key'"""
        keys = Counter(row[0] for row in ledger.execute(query))
        states = {row[0] for row in ledger.execute("SELECT DISTINCT state FROM trials")}
    assert max(keys.values()) == 1
    assert states <= {"COMPLETE", "FAIL"}
    values = json.loads((out / "search.json").read_text())
    assert len(values["candidates"]) == 40
    assert len(keys) == values["time"]["trials"]
