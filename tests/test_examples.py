"""The examples run as their documentation says, and print the published figures."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from example_scripts import run_example
from published import COUNTS

ROOT = Path(__file__).parent.parent


@cache
def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def tables() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(run("examples/paper_tables.py", "--json"))
    return found


def gmacs(row: dict[str, Any]) -> float:
    return round(float(row["macs"]) / 1e9, 3)


def test_table_7_has_the_papers_rows_and_their_real_macs() -> None:
    expected = COUNTS["table7_gmacs"]
    assert [gmacs(row) for row in tables()["table_7"]] == list(expected.values()) == [0.386, 1.575, 1.45, 1.538, 1.8]


def test_networks_of_two_contests_are_paired_by_image() -> None:
    files = [f"examples/searches/fashion-{name}-contest.json" for name in ("family-20-epochs", "resnet18-stem")]
    said = run("examples/across.py", files[0], "family4", files[1], "resnet18").splitlines()
    assert said[0] == "epochs: 20 and 10"
    assert said[1] == "seed 0: family4 less resnet18 +0.25 points (95 % interval -0.11 to +0.61, n = 10,000), p 0.19"


def test_contests_that_judged_on_other_images_are_not_paired(tmp_path: Path) -> None:
    row = {"name": "one", "right": ["8:/w=="]}
    for name in ("a", "b"):
        shared = {"images": 8, "epochs": 1, "recipe": "quick", "test_fingerprint": name, "rows": [row]}
        (tmp_path / name).write_text(json.dumps(shared))
    done = run_example("across.py", tmp_path / "a", "one", tmp_path / "b", "one", timeout=100)
    assert done.returncode == 1
    assert "judged on other test images, which cannot be paired" in done.stderr


def test_only_the_compound_row_of_table_7_reproduces_its_printed_flops() -> None:
    deviations = [abs(row["deviation_percent"]) for row in tables()["table_7"]]
    assert deviations[-1] < 0.1
    assert all(deviation > 10 for deviation in deviations[1:-1])


def test_figure_3_has_every_labelled_point() -> None:
    rows = tables()["figure_3"]
    for dimension, points in COUNTS["figure3_gmacs"].items():
        others = [other for other in ("depth", "width", "resolution") if other != dimension]
        alone = {row[dimension]: gmacs(row) for row in rows if all(row[other] == 1 for other in others)}
        assert alone == {float(multiplier): value for multiplier, value in points.items()}


def test_table_3_has_every_row_with_the_printed_figure_and_its_deviation() -> None:
    rows, printed = tables()["table_3"], COUNTS["table3"]
    assert len(rows) == len(printed)
    for row, source in zip(rows, printed, strict=True):
        flops = float(source["printed_flops"].removesuffix("B")) * 1e9
        assert row["printed_macs"] == pytest.approx(flops)
        assert row["deviation_percent"] == pytest.approx(100 * (row["macs"] / flops - 1))
        assert row["solved"] == (source["d"] is None)
        if not row["solved"]:
            assert (row["depth"], row["width"], row["resolution"]) == (source["d"], source["w"], source["r"])


def test_rows_whose_multipliers_the_paper_does_not_print_are_solved_to_the_printed_figure() -> None:
    solved = [row for row in tables()["table_3"] if row["solved"]]
    assert [row["network"] for row in solved] == ["mobilenet_v2", "resnet50"]
    for row in solved:
        assert -1 <= row["deviation_percent"] <= 0
        assert min(row["depth"], row["width"], row["resolution"]) > 1


def test_the_tables_are_printed_for_people() -> None:
    text = run("examples/paper_tables.py")
    for words in ("Table 3", "Table 7", "Figure 3", "1.575", "1.450", "1.538", "1.800", "8.712", "resnet50, solved"):
        assert words in text
    assert "…" not in text
