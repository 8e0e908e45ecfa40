"""`examples/groups.py`: how far kinds of networks are apart, from a contest."""

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
from example_scripts import run_example

CONTEST = Path(__file__).parents[1] / "examples" / "searches" / "fashion-5M-contest.json"


def run(place: Path, accuracies: dict[str, list[float]], *groups: str) -> subprocess.CompletedProcess[str]:
    contest = place / "contest.json"
    contest.write_text(
        json.dumps({"rows": [{"name": name, "by_seed": of} for name, of in accuracies.items()]}), "utf-8"
    )
    return run_example("groups.py", contest, *groups, timeout=100)


def test_groups_are_compared_number_by_number_and_with_single_networks(tmp_path: Path) -> None:
    networks = {"a0": [0.90, 0.92], "a1": [0.94], "resnet18": [0.9], "b1": [0.90], "b0": [0.89], "resnet34": [0.8]}
    done = run(tmp_path, networks, "a", "b")
    assert done.returncode == 0, done.stderr
    # 2 and 4 points: 3 in the mean, Student's t with one degree of freedom 12.706 times a standard error of 1.
    reach = math.tan(math.pi / 2 * 0.95)
    assert done.stdout.splitlines() == [
        f"a less b: +3.00 points (95 % interval {3 - reach:+.2f} to {3 + reach:+.2f}, n = 2)",
        f"a less resnet18: +2.50 points (95 % interval {2.5 - 1.5 * reach:+.2f} to {2.5 + 1.5 * reach:+.2f}, n = 2)",
        f"a less resnet34: +12.50 points (95 % interval {12.5 - 1.5 * reach:+.2f} to {12.5 + 1.5 * reach:+.2f}, n = 2)",
        f"b less resnet18: -0.50 points (95 % interval {-0.5 - 0.5 * reach:+.2f} to {-0.5 + 0.5 * reach:+.2f}, n = 2)",
        f"b less resnet34: +9.50 points (95 % interval {9.5 - 0.5 * reach:+.2f} to {9.5 + 0.5 * reach:+.2f}, n = 2)",
    ]


def test_groups_of_other_numbers_are_not_compared(tmp_path: Path) -> None:
    done = run(tmp_path, {"a0": [0.9], "a1": [0.9], "b1": [0.9], "b2": [0.9]}, "a", "b")
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.parametrize("group", ["c", "a"])
def test_a_group_of_fewer_than_two_is_refused_in_one_line(tmp_path: Path, group: str) -> None:
    done = run(tmp_path, {"a0": [0.9], "b1": [0.9]}, group)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == f"{group}: a group is two networks or more, {group}0 and {group}1 for instance; there are a0, b1"
    )


def test_the_documented_differences_are_those_of_the_published_contest() -> None:
    said = (CONTEST.parents[2] / "docs" / "search.md").read_text("utf-8")
    lines = run_example("groups.py", CONTEST, "search", "control", timeout=100).stdout.splitlines()
    assert len(lines) == 5
    for wanted in (
        "search less control",
        "search less efficientnet_b0",
        "search less mobilenet_v2",
        "control less efficientnet_b0",
    ):
        line = next(line for line in lines if line.startswith(wanted))
        found = re.search(r": \+(\S+) points .*interval \+?(\S+) to \+(\S+),", line)
        assert found is not None
        value, low, high = found.groups()
        assert value in said
        assert f"({low} to {high}" in said
