"""`examples/search_control.py` gives a control as many passes as the search, and repeats nothing that is finished."""

import json
from pathlib import Path

import pytest
from example_scripts import printed

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
