"""`examples/smaller.py`: how many times smaller a family is at the accuracy of another network."""

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_scripts import run_example

from triscale.trials import pack

REFERENCE = {"name": "resnet18", "macs": 456e6, "params": 11.2e6}


def run(place: Path, rows: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    contest = place / "contest.json"
    contest.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    return run_example("smaller.py", contest, "--reference", "resnet18", timeout=100)


def family(*accuracies: list[float]) -> list[dict[str, Any]]:
    """5M, 10M, 20M… MACs, with parameters that grow half as fast."""
    return [
        {"name": f"f{place}", "macs": 5e6 * 2**place, "params": 1e5 * 2 ** (place / 2), "by_seed": by_seed}
        for place, by_seed in enumerate(accuracies)
    ]


def test_ratios_are_those_of_a_family_whose_curve_is_known(tmp_path: Path) -> None:
    seeds = np.random.default_rng(0).normal(0, 0.002, 4)
    # A point more for twice the MACs: 93.5 % lies half way from 10M to 20M, and each seed moves it along.
    networks = family(*([0.92 + 0.01 * place] * 4 for place in range(4)))
    wanted = [0.935 + float(seed) for seed in seeds]
    done = run(tmp_path, [networks[2], {**REFERENCE, "by_seed": wanted}, networks[0], networks[3], networks[1]])
    assert done.returncode == 0, done.stderr
    macs, params = ([float(word) for word in re.findall(r"\d+\.\d+", line)] for line in done.stdout.splitlines()[1:])
    position = 1.5 + float(np.mean(seeds)) / 0.01
    half = 3.18245 * float(np.std(seeds, ddof=1)) / 0.01 / math.sqrt(4) * math.log(2)
    for (middle, low, high), expected, grows in (macs, 456 / 5, 1), (params, 112, 0.5):
        ratio = expected / 2 ** (grows * position)
        assert [middle, low, high] == pytest.approx(
            [ratio, ratio * math.exp(-grows * half), ratio * math.exp(grows * half)], abs=0.006
        )
    assert done.stdout.count("n = 4") == 2


def test_of_one_seed_the_interval_is_that_of_other_test_images(tmp_path: Path) -> None:
    n, chance = 10_000, np.random.default_rng(1)

    def row(one: dict[str, Any], accuracy: float) -> dict[str, Any]:
        right = chance.permutation(n) < accuracy * n
        return {**one, "by_seed": [float(right.mean())], "right": [pack(right)]}

    networks = [row(one, 0.90 + 0.02 * place) for place, one in enumerate(family(*[[0.0]] * 4))]
    done = run(tmp_path, [row(REFERENCE, 0.93), *networks])
    assert done.returncode == 0, done.stderr
    middle, low, high = (float(word) for word in re.findall(r"\d+\.\d+", done.stdout.splitlines()[1])[:3])
    assert middle == pytest.approx(456 / 5 / 2**1.5, abs=0.01)
    # Two points for twice the MACs: the reference's own noise, and that of its two neighbours, half of it each.
    noise = math.sqrt(0.93 * 0.07 / n + 0.25 * (0.92 * 0.08 + 0.94 * 0.06) / n)
    for bound, sign in (low, -1), (high, 1):
        assert math.log2(bound / middle) == pytest.approx(sign * 1.96 * noise / 0.02, rel=0.15)
    assert "one seed, other test images" in done.stdout

    done = run(tmp_path, [row(REFERENCE, 0.9599), *networks])
    assert "95 % interval less than 11.40 to " in done.stdout.splitlines()[1]


def test_a_dip_in_a_curve_does_not_count_as_reached_before_it(tmp_path: Path) -> None:
    done = run(tmp_path, [{**REFERENCE, "by_seed": [0.945]}, *family([0.92], [0.95], [0.93], [0.96])])
    # Smoothed: 92, 94, 94, 96; a quarter of the way from the third to the fourth.
    assert done.stdout.splitlines()[1].startswith(f"{456 / (5 * 2**2.25):.2f} (one seed: no interval)")


def test_what_was_not_reached_has_no_ratio_and_what_starts_above_is_at_least(tmp_path: Path) -> None:
    done = run(tmp_path, [{**REFERENCE, "by_seed": [0.99, 0.93]}, *family([0.92, 0.92], [0.94, 0.94])])
    assert "f1, the largest, is below it with 1 of 2 seeds: no ratio" in done.stdout
    assert "fewer" not in done.stdout
    done = run(tmp_path, [{**REFERENCE, "by_seed": [0.91, 0.93]}, *family([0.92, 0.92], [0.94, 0.94])])
    assert "f0, the smallest, is not below it with 1 of 2 seeds: ratios are at least" in done.stdout
    assert "times fewer parameters" in done.stdout


def test_a_contest_without_the_reference_is_refused_by_name(tmp_path: Path) -> None:
    done = run(tmp_path, family([0.92], [0.94]))
    assert done.returncode == 1
    assert done.stderr == "the contest has f0, f1; it takes resnet18 and two networks of a family\n"


def test_the_documented_ratios_are_those_of_the_published_contest() -> None:
    root = Path(__file__).parents[1]
    said = " ".join((root / "docs" / "search.md").read_text("utf-8").split())
    contest = root / "examples" / "searches" / "fashion-resnet18-contest.json"
    lines = run_example("smaller.py", contest, timeout=100).stdout.splitlines()
    assert len(lines) == 3
    for line in lines[1:]:
        value, low, high = re.findall(r"\d+\.\d+", line)
        assert f"{value} ({low} to {high})" in said
