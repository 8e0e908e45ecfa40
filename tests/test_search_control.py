"""`examples/search_control.py` gives a control as many passes as the search, and repeats nothing that is finished."""

import json
from argparse import Namespace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from example_scripts import ROOT, printed

from triscale.runs import RunDirectory


@pytest.mark.slow
def test_the_control_passes_over_the_images_as_often_as_the_search(digits: Path, tmp_path: Path) -> None:
    words = (digits, "--out", tmp_path, "--macs", "1M", "--candidates", "8", "--images", "42", "--epochs", "9")
    table, told = printed("search_control.py", *words, "--seeds", "1", "--workers", "2")
    assert "evolution-0: candidate" in told
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [row[1] for row in rows] == ["evolution", "random"]
    spent = [int(row[3]) for row in rows]
    assert spent[1] >= spent[0]
    kept = [json.loads((tmp_path / name / "search.json").read_text()) for name in ("evolution-0", "random-0")]
    assert [len(one["candidates"]) for one in kept] == [int(row[2]) for row in rows]
    assert all(RunDirectory.open(tmp_path / name) for name in ("evolution-0", "random-0"))
    assert printed("search_control.py", *words, "--seeds", "1", "--workers", "2") == (table, "")


@pytest.fixture
def script() -> ModuleType:
    spec = spec_from_file_location("search_control", ROOT / "examples" / "search_control.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(order: int, accuracy: float) -> dict[str, Any]:
    return {"order": order, "accuracy": [accuracy], "runs": [{"epochs": 1, "seed": 0}]}


def values(winner: int, tried: int = 4, **more: object) -> dict[str, Any]:
    """What search.json holds. The second candidate could not be trained, and is not among them."""
    return {
        "winner": winner,
        "gain": None,
        "strategy": "random",
        "reference": network(-1, 0.5),
        "candidates": [network(order, order / 10) for order in range(tried) if order != 1],
        "asked": {"candidates": tried},
        "used_up": False,
        "time": {"trained": 60.0},
        **more,
    }


@pytest.mark.parametrize(("winner", "accuracy"), [(-1, "50.00"), (2, "20.00")])
def test_a_row_has_the_accuracy_of_the_network_that_won(script: ModuleType, winner: int, accuracy: str) -> None:
    assert script.row(0, values(winner)).split(" | ")[5] == accuracy


def control(script: ModuleType, monkeypatch: pytest.MonkeyPatch, most: int) -> dict[str, Any]:
    """Of a search with eight passes; the space holds so many networks."""
    asked: list[int] = []

    def searched(place: Path, strategy: str, seed: int, words: Namespace, candidates: int) -> dict[str, Any]:
        if strategy == "evolution":
            return values(0, 9)
        assert candidates not in asked, "the same is asked for again and again"
        asked.append(candidates)
        found = values(0, min(candidates, most), used_up=candidates > most)
        return found | {"asked": {"candidates": candidates}}

    monkeypatch.setattr(script, "searched", searched)
    found: dict[str, Any] = script.controlled(0, Namespace(out=Path(), candidates=4))[1]
    return found


def test_a_control_of_which_some_cannot_be_trained_comes_to_an_end(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = control(script, monkeypatch, most=100)
    assert script.passes(found) >= 8


def test_a_control_whose_space_holds_no_more_comes_to_an_end(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = control(script, monkeypatch, most=6)
    assert script.passes(found) == 5
