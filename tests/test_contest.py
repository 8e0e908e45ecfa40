"""`examples/contest.py` trains every network with every seed once, at the MACs that were asked for."""

import json
from pathlib import Path

import pytest
from example_scripts import printed, run_example

from triscale.arch import from_dict
from triscale.costing import cost
from triscale.data import read


def ended(told: str) -> list[str]:
    """The trials; a slow machine tells how far it is between them."""
    return sorted(line.split(":")[0] for line in told.splitlines() if ", seed " in line)


@pytest.mark.slow
def test_a_contest_trains_every_network_with_the_same_seeds_and_repeats_nothing(digits: Path, tmp_path: Path) -> None:
    words = [digits, "--out", tmp_path, "--macs", "400k", "--epochs", "2"]
    words += ["mini=examples/baselines/mobilenet_mini.json", "efficientnet_b0"]
    table, told = printed("contest.py", *words, "--seeds", "2")
    assert ended(told) == [f"{name}, seed {seed}" for name in ("efficientnet_b0", "mini") for seed in (0, 1)]
    found = json.loads((tmp_path / "contest.json").read_text("utf-8"))
    assert [row["name"] for row in found["rows"]] == ["mini", "efficientnet_b0"]
    images = read(digits, seed=0)
    assert (found["images"], found["test_fingerprint"]) == (len(images.train), images.test_fingerprint())
    for row in found["rows"]:
        total = cost(from_dict(row["network"]))
        assert (total.macs, total.params) == (row["macs"], row["params"])
        assert len(row["by_seed"]) == 2
        assert row["name"] in table
    # A file is taken as it is, a name of the zoo fills the budget.
    assert found["rows"][0]["macs"] > 400_000 >= found["rows"][1]["macs"] > 300_000

    assert printed("contest.py", *words, "--seeds", "2") == (table, "")
    once, told = printed("contest.py", *words, "--seeds", "1")
    assert told == ""
    single = json.loads((tmp_path / "contest.json").read_text("utf-8"))["rows"]
    assert [row["by_seed"] for row in single] == [row["by_seed"][:1] for row in found["rows"]]
    apart, (value, low, high) = single[1]["first_less_it"], single[0]["test"]
    # Wilson's interval has a width where every image is named right, too; its end is the value then.
    assert low <= value <= high
    assert low < high
    assert apart["low"] <= apart["value"] <= apart["high"]
    assert 0 < apart["p"] <= 1
    assert apart["value"] == pytest.approx(single[0]["test"][0] - single[1]["test"][0])
    assert f"{100 * apart['value']:+.2f}" in once
    _, told = printed("contest.py", *words, "--seeds", "3")
    assert ended(told) == ["efficientnet_b0, seed 2", "mini, seed 2"]
    longer = json.loads((tmp_path / "contest.json").read_text("utf-8"))
    assert [row["by_seed"][:2] for row in longer["rows"]] == [row["by_seed"] for row in found["rows"]]


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        (["MINI", "MINI"], "2 networks, of which several are called mobilenet_mini; name each: one=FILE another=FILE"),
        (["MINI"], "--seeds 5: at least 1; and several take two networks"),
        (["MINI", "resnet18", "--seeds", "0"], "--seeds 0: at least 1"),
    ],
)
def test_what_no_contest_could_say_is_refused_before_anything_is_trained(
    networks: list[str], said: str, digits: Path, tmp_path: Path
) -> None:
    words = ["examples/baselines/mobilenet_mini.json" if word == "MINI" else word for word in networks]
    done = run_example("contest.py", digits, "--out", tmp_path / "out", "--macs", "400k", *words, timeout=100)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
