"""docs/paper.md holds what its script makes, its figures are the library's, its verdicts follow the intervals."""

import importlib
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from published import COUNTS, NETWORKS

from triscale.arch import multiply, published, round_channels
from triscale.costing import cost
from triscale.scaling import RULES, Coefficients, grow
from triscale.studies.designs import DESIGNS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "paper.md"
sys.path.insert(0, str(ROOT / "examples"))
executed, conclusions, studies = map(importlib.import_module, ("paper_executed", "paper_conclusions", "paper_studies"))

FAMILY = [f"efficientnet_b{k}" for k in range(8)]
Interval = tuple[float, float, float]
WIN, TIE, LOSS = (0.012, 0.004, 0.020), (0.001, -0.007, 0.009), (-0.012, -0.020, -0.004)


@cache
def made() -> Mapping[str, str]:
    return {name: block() for name, block in executed.BLOCKS.items()}


def cells(block: str) -> list[list[str]]:
    """The rows of a block's table, without its heads."""
    lines = [line for line in made()[block].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def macs(**multipliers: float) -> int:
    return cost(multiply(published("efficientnet_b0"), **multipliers)).macs


# The page and its script.


def test_the_page_holds_what_the_script_makes() -> None:
    page = PAGE.read_text("utf-8")
    assert executed.remade(page) == (page, [])


def test_check_changes_nothing_and_fails_where_a_block_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, good = tmp_path / "paper.md", PAGE.read_text("utf-8")
    page.write_text(good.replace("385,814,752", "385,814,753"), "utf-8")
    monkeypatch.setattr(executed, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["paper_executed.py", "--check"])
    with pytest.raises(SystemExit, match="differs in flops"):
        executed.main()
    assert "385,814,753" in page.read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["paper_executed.py"])
    executed.main()
    assert page.read_text("utf-8") == good
    monkeypatch.setattr(sys, "argv", ["paper_executed.py", "--check"])
    with pytest.raises(SystemExit) as done:
        executed.main()
    assert done.value.code == 0


def test_a_mark_without_a_block_is_refused() -> None:
    with pytest.raises(SystemExit, match="flip"):
        executed.remade(PAGE.read_text("utf-8").replace("paper_executed.py: flops", "paper_executed.py: flip"))


def test_what_was_printed_is_the_same_in_both_files() -> None:
    rows = {row["model"]: [row["d"], row["w"], row["r"], row["printed_flops"]] for row in COUNTS["table3"]}
    assert rows == {name: list(row[:4]) for name, row in executed.rows("table3").items()}


# Sections 1 to 4: the library's numbers.


def test_counts_of_the_family_are_the_librarys() -> None:
    rows = cells("flops")
    assert [row[0] for row in rows] == [name[-2:].upper() for name in FAMILY]
    for name, row in zip(FAMILY, rows, strict=True):
        total = cost(published(name))
        assert (row[3], row[5]) == (f"{total.macs:,}", f"{total.params:,}")
        assert (total.macs, total.params) == (NETWORKS[name]["macs"], NETWORKS[name]["params"])


def test_where_a_printed_figure_is_not_the_count_the_last_column_says_so() -> None:
    assert {row[0]: row[6] for row in cells("flops") if row[6]} == {
        "B1": "FLOPs: 0.69B",
        "B2": "parameters: 9.1M",
        "B4": "FLOPs: 4.4B",
        "B5": "FLOPs: 10.3B",
        "B7": "FLOPs: 38B",
    }


def test_commands_of_one_dimension_give_what_stands_beside_them(triscale: Callable[..., Any]) -> None:
    rows = cells("squared")
    assert len(rows) == 6
    for *_, nominal, realised, command in rows:
        code, out, _ = triscale(*shlex.split(command.strip("`"))[1:], "--json")
        found = json.loads(out)
        assert code == 0
        assert nominal == f"×{found['nominal']:.4g}"
        assert realised == f"×{found['realised']:.3f}"
    alone = (macs(depth=1.2), macs(width=1.1), macs(resolution=1.15))
    assert [row[4] for row in rows[3:]] == [f"×{one / macs():.3f}" for one in alone]
    assert round_channels(40 * 1.1) == 48
    assert round_channels(43.999) == 40


def test_kinds_of_layers_are_all_of_the_network_and_grow_as_said() -> None:
    base = published("efficientnet_b0")
    assert sum(executed.by_kind(base).values()) == cost(base).macs
    rows = {row[0]: row[2:] for row in cells("parts")}
    assert rows["1×1 in blocks"][1:] == ["×4.00", "×4.00"]
    assert rows["depthwise"][1:] == ["×2.00", "×4.00"]
    assert rows["classifier"] == ["×1.00", "×2.00", "×1.00"]
    assert rows["stem"] == ["×1.00", "×2.00", "×4.00"]
    whole = (macs(depth=2), macs(width=2), macs(resolution=2))
    assert rows["all"] == [f"×{one / macs():.2f}" for one in whole]


def test_the_design_that_stands_for_step_1_is_described_as_it_is() -> None:
    arms = DESIGNS["paper"].arms
    said = re.search(r"(\d+) arms", made()["design"])
    assert said is not None
    assert int(said[1]) == len(arms)
    for arm in arms:
        assert math.isclose(arm.shares.coefficients().product, 2)


def test_the_product_and_the_step_of_phi_are_the_librarys() -> None:
    text = made()["formula"]
    step = grow(published("efficientnet_b0"), RULES["compound"], phi=1)
    b1 = cost(published("efficientnet_b1")).macs / macs()
    for said in (f"= {Coefficients(1.2, 1.1, 1.15).product:.3f}, not 2", f"×{step.realised:.3f}", f"×{b1:.2f}"):
        assert said in text
    assert "nominally ×1.26 and really ×1.78" in text


def test_the_published_sizes_imply_no_single_phi() -> None:
    for name, row in zip(FAMILY[1:], cells("phi"), strict=True):
        depth, width, resolution = map(float, row[1].split(","))
        assert float(row[2]) == pytest.approx(math.log(depth, 1.2), abs=0.006)
        assert float(row[3]) == pytest.approx(math.log(width, 1.1), abs=0.006)
        assert float(row[4]) == pytest.approx(math.log(resolution, 1.15), abs=0.01)
        factor = NETWORKS[name]["macs"] / NETWORKS["efficientnet_b0"]["macs"]
        assert row[5] == f"{math.log2(factor):.2f}"
        assert row[7] == f"×{factor:.2f}"
        if name != "efficientnet_b2":
            assert max(map(float, row[2:5])) - min(map(float, row[2:5])) > 0.2


def test_multipliers_of_table_7_count_what_it_prints_and_their_neighbours_do_not() -> None:
    expected = [f"{one:.3f}G" for one in list(COUNTS["table7_gmacs"].values())[1:]]
    rows = cells("single")
    assert [row[3] for row in rows] == expected
    for row in rows[:3]:
        dimension = row[0].split()[0]
        low, high = map(float, row[4].split(" to "))
        for multiplier, counts in ((low - 0.01, False), (low, True), (high, True), (high + 0.01, False)):
            assert (f"{macs(**{dimension: multiplier}) / 1e9:.1f}B" == row[2]) == counts


# Sections 5 and 6: words follow numbers.


def arm(name: str, selection: float = 0.8, **values: Any) -> dict[str, Any]:
    alone = {dimension: float(dimension == name) for dimension in studies.DIMENSIONS}
    shares = alone if name in alone else dict.fromkeys(alone, 1 / 3)
    return {
        "name": name,
        "names": name.split(" = "),
        "shares": shares,
        "resolution": [26, 26],
        "upscaled": False,
        "macs": 4_000_000,
        "selection_mean": (selection, selection, selection),
        "test_mean": (selection, selection - 0.01, selection + 0.01),
        "to_compound": None,
        "to_single": None,
    } | values


def study(*differences: Interval | None, fitted: Interval | None = TIE, title: str = "Letters", **values: Any) -> Any:
    """A study whose paper's mix differs from the best single dimension by one interval at each factor."""
    factors = []
    for place, difference in enumerate(differences):
        arms = [
            arm("depth", 0.70, to_compound=LOSS, to_single=LOSS),
            arm("width", 0.82),
            arm("compound", 0.81, to_single=difference),
        ]
        if place:
            arms.append(arm("fitted", 0.83, to_compound=fitted, to_single=fitted))
        factors.append({"factor": 2.0 ** (place + 1), "best_single": "width", "best": "width", "detects": 0.01} | {
            "df": 8,
            "arms": arms,
        })  # fmt: skip
    grid = [[d / 20, w / 20, (20 - d - w) / 20, 0.8, 0.01] for d in range(21) for w in range(21 - d)]
    surface = {
        "optimum": {"depth": 0.0, "width": 1.0, "resolution": 0.0},
        "alpha": 1.0,
        "beta": 2**0.5,
        "gamma": 1.0,
        "lack_of_fit": None,
        "grid": grid,
        "compatible": [point[:3] for point in grid],
    } | values
    return studies.Study(
        title,
        "62 classes",
        ("triscale study LETTERS --time 1h --out STUDY",),
        {
            "finished": True,
            "factor": 2.0,
            "df": 8,
            "seeds": [0, 1, 2],
            "images": 1000,
            "epochs": 6,
            "how": {"threads": 1},
            "baseline": {"name": "mini", "macs": 2_000_000, "resolution": [18, 18], "test": [0.7, 0.72, 0.74]},
            "factors": factors,
            "surface": surface,
            "why_no_surface": None,
            "time": {"trials": 30, "trained": 7200.0, "workers": 2},
        },
    )


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        (WIN, "wins"),
        (TIE, "ties"),
        (LOSS, "loses"),
        ((0.0, -0.1, 0.1), "ties"),
        ((0.1, 0.0, 0.2), "ties"),
        ((-0.1, -0.2, 0.0), "ties"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(interval: Interval, word: str) -> None:
    assert studies.verdict(interval) == word


@pytest.mark.parametrize(("interval", "word"), [(WIN, "wins"), (TIE, "ties"), (LOSS, "loses")])
def test_a_study_says_its_verdict_with_the_interval(interval: Interval, word: str) -> None:
    text = studies.tables([study(interval)])
    value, low, high = (f"{100 * one:+.2f}" for one in interval)
    assert (
        f"against the best single dimension, width: **{word}**, {value} points (95 % interval {low} to {high})" in text
    )
    assert f"| {value} ({low} to {high}) |" in text
    assert "triscale study LETTERS" in text
    assert "1.0 machine-hours" in text
    assert "| baseline |  | 18×18 | 2M | 72.00 |" in text


def test_the_same_network_is_a_tie_that_is_named() -> None:
    assert "is the same network, and **ties**" in studies.tables([study(TIE, WIN, fitted=None)])


def test_the_papers_mix_is_in_the_set_only_where_its_neighbour_is() -> None:
    everywhere, corner = study(TIE), study(TIE, compatible=[[0.0, 1.0, 0.0]])
    assert "is in it" in studies.tables([everywhere])
    assert "is not in it" in studies.tables([corner])
    assert "width 100 to 100 %" in studies.tables([corner])


def test_the_ranges_of_a_study_hold_its_optimum() -> None:
    between = {"depth": 0.02, "width": 0.46, "resolution": 0.52}
    text = studies.tables([study(TIE, optimum=between, compatible=[[0.0, 0.45, 0.55], [0.0, 0.4, 0.6]])])
    assert "95 % set: depth 0 to 2 %, width 40 to 46 %, resolution 52 to 60 %" in text


def test_without_a_surface_the_reason_stands_there() -> None:
    values = {**study(TIE).values, "surface": None, "why_no_surface": "two arms do not tell"}
    one = studies.Study("Letters", "62 classes", (), values)
    assert "No coefficients: two arms do not tell." in studies.tables([one])
    assert "may be the best one" not in conclusions.conclusions([one])


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ([WIN], "beats the best single dimension in the only comparison, as the paper says"),
        ([WIN, WIN], "beats the best single dimension in each of 2 comparisons, as the paper says"),
        ([WIN, TIE], "beats the best single dimension in 1 of 2 comparisons and is shown to be worse in none"),
        ([WIN, LOSS], "It depends: balanced scaling beats the best single dimension in 1 of 2 comparisons and is"),
        ([LOSS, TIE], "is worse than the best single dimension in 1 of 2 comparisons and shown to be better in none"),
        ([TIE, TIE], "are told apart in none of 2 comparisons: the paper's claim is neither borne out nor refuted"),
        ([TIE], "are told apart in no comparison"),
    ],
)  # fmt: skip
def test_the_conclusion_follows_the_intervals(intervals: list[Interval], said: str) -> None:
    assert said in conclusions.conclusions([study(one) for one in intervals])


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ([WIN, WIN], "Fitted coefficients beat the paper's in each of 2 comparisons and are shown to be worse in none"),
        ([WIN, LOSS], "Fitted coefficients beat the paper's in 1 of 2 comparisons and are worse in 1"),
        ([LOSS, TIE], "Fitted coefficients are worse than the paper's in 1 of 2 comparisons"),
        ([TIE, TIE], "Fitted coefficients and the paper's are told apart in none of 2 comparisons"),
    ],
)
def test_what_fitted_coefficients_are_worth_follows_the_intervals(intervals: list[Interval], said: str) -> None:
    assert said in conclusions.conclusions([study(TIE, TIE, fitted=one) for one in intervals])


def test_tallies_name_the_studies_and_the_worst_dimension_is_compared_the_right_way_round() -> None:
    text = conclusions.conclusions([study(WIN, title="Letters"), study(LOSS, title="Clothes")])
    best, worst = "against the best single dimension:", "against the worst single dimension:"
    assert f"- ×2, the paper's mix {best} wins in 1 of 2 (Letters, mini), loses in 1 of 2 (Clothes, mini)." in text
    assert f"- ×2, the paper's mix {worst} wins in 2 of 2 (Letters, mini; Clothes, mini)." in text
    assert "2 studies, 60 trials, 2.0 machine-hours" in text


def test_one_mix_for_all_studies_is_claimed_only_where_the_sets_meet() -> None:
    width, depth = study(TIE, compatible=[[0.0, 1.0, 0.0]]), study(TIE, compatible=[[1.0, 0.0, 0.0]])
    assert "No mix may be the best one in all 2 studies" in conclusions.conclusions([width, depth])
    assert "1 of the 231 mixes may be the best one in all 2 studies" in conclusions.conclusions([width, width])


def test_a_surface_that_does_not_describe_its_arms_is_said_and_left_out() -> None:
    bent = study(TIE, lack_of_fit=0.001, title="Bent")
    assert "does not describe the arms (lack of fit: p = 0.001)" in studies.tables([bent])
    text = conclusions.conclusions([bent, study(TIE)])
    assert "Left out of what follows, since their surfaces do not describe their arms: Bent, mini." in text
    assert "in 1 of 1 study" in text


def test_without_studies_it_says_that_none_was_run(tmp_path: Path) -> None:
    assert studies.read_studies(tmp_path) == []
    assert (
        studies.tables([]) == conclusions.conclusions([]) == "No study has been run yet: `examples/studies` holds none."
    )


def test_a_study_that_is_unfinished_or_unnamed_is_refused(tmp_path: Path) -> None:
    values = dict(study(TIE).values)
    (tmp_path / "letters.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(SystemExit, match="letters"):
        studies.read_studies(tmp_path)
    (tmp_path / "letters.json").write_text(json.dumps(values | {"finished": False}), "utf-8")
    with pytest.raises(SystemExit, match="not finished"):
        studies.read_studies(tmp_path)


def test_every_study_is_named_with_commands_that_made_it(triscale: Callable[..., Any]) -> None:
    entries = json.loads(studies.ENTRIES.read_text("utf-8"))
    assert sorted(entries) == sorted(path.stem for path in studies.STUDIES.glob("*.json"))
    for one in studies.read_studies():
        words = [shlex.split(command, comments=True) for command in one.commands]
        assert words
        for command in words:
            check(triscale, command)
        said = dict(zip(words[-1], words[-1][1:], strict=False))  # what came before made the images
        assert Path(said["--baseline"]).stem == one.values["baseline"]["name"]
        assert float(said.get("--factor", 2)) == one.values["factor"]


# What the page names exists.


@cache
def options(triscale: Callable[..., Any], verb: str) -> frozenset[str]:
    code, out, _ = triscale(verb, "--help")
    assert code == 0
    return frozenset(re.findall(r"--[a-z][a-z-]*", out))


def check(triscale: Callable[..., Any], words: list[str]) -> None:
    if words[0] == "python":
        assert (Path(__file__).parent.parent / words[1]).is_file()
        return
    assert words[0] == "triscale"
    assert {word for word in words if word.startswith("--")} <= options(triscale, words[1]), words


def test_commands_in_the_page_have_options_that_exist(triscale: Callable[..., Any]) -> None:
    page = PAGE.read_text("utf-8")
    commands = [*re.findall(r"^    (triscale .+)$", page, re.MULTILINE), *re.findall(r"`(triscale [^`]+)`", page)]
    assert len(commands) > 10
    for command in commands:
        check(triscale, shlex.split(command, comments=True))
    assert "paper" in re.findall(r"--design (\w+)", page)
    assert set(re.findall(r"--design (\w+)", page)) <= set(DESIGNS)


def test_links_and_files_in_the_page_exist() -> None:
    page = PAGE.read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)", page):
        assert (PAGE.parent / link).exists(), link
    for file in re.findall(r"examples/[\w/.-]+\.(?:py|json)", page):
        assert (ROOT / file).exists(), file
