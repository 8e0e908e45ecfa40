"""The page of an architecture search."""

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markup import Outline, Tables, check_self_contained, text_of
from search_values import (
    FINALISTS,
    LIMIT,
    REFERENCE,
    RUNGS,
    WINNER,
    control,
    limited,
    network,
    plain,
    search,
    unfinished,
)

from triscale.arch import Bottleneck, MBConv, Stage
from triscale.costing import cost
from triscale.reporting.search import search_page, write_search_page
from triscale.reporting.search_curves import Course, bands, course, different, incomparable, together
from triscale.reporting.search_networks import COLUMNS, changes, pairs, parts
from triscale.reporting.search_plots import Spot, front, fronts, progress
from triscale.units import format_count, format_seconds


@pytest.fixture(scope="module")
def page() -> str:
    return search_page(search(), [control()])


def share(value: float) -> str:
    return f"{100 * value:.2f} %"


def bounded(estimate: list[float] | None) -> str:
    if estimate is None or len(estimate) == 1:
        return "–" if estimate is None else share(estimate[0])
    return f"{share(estimate[0])} ({100 * estimate[1]:.2f} to {100 * estimate[2]:.2f})"


# --- the page ---


def test_the_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    check_self_contained(page)
    assert all(address.startswith("#") for address in Outline(page).addresses)


def test_the_page_is_for_dark_mode_and_phones_too(page: str) -> None:
    assert "color-scheme: light dark" in page
    assert "width=device-width" in page
    assert "#01020" not in page
    assert page.count('role="img" aria-label="') == 4


def test_the_same_values_make_the_same_bytes(page: str, tmp_path: Path) -> None:
    write_search_page(tmp_path / "report.html", search(), [control()])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_tables_say_what_they_are_and_heads_what_they_head(page: str) -> None:
    tables = Tables(page)
    assert tables.captions == len(tables.found) == 7
    assert all(head.get("scope") in ("row", "col", "rowgroup") for head in tables.heads)


def test_what_is_shown_leaves_the_values_alone() -> None:
    values, other = search(), control()
    before = copy.deepcopy((values, other))
    search_page(values, [other])
    assert (values, other) == before


def test_names_cannot_write_into_the_page_or_its_plots() -> None:
    name = "<script>x & $a$ 图"
    text = json.dumps(search()).replace("tiny_net", name).replace("stages.2.skip", f"stages.2.{name}")
    values = json.loads(text.replace("candidate 4", f"candidate {name}"))
    outline = Outline(search_page(values | {"strategy": name}, [control(strategy=f"{name}!")]))
    assert "script" not in outline.tags
    for shown in (f"around {name}", f"candidate {name}", f"stages.2.{name}: 37 %", f"{name}!"):
        assert shown in outline.text


# --- its numbers ---


def test_every_number_of_the_finalists_is_the_searchs(page: str) -> None:
    values = search()
    rows = Tables(page).of("seed 3")
    assert rows[0][2:6] == ["seed 3", "seed 4", "seed 5", "seed 6"]
    assert [row[0] for row in rows[1:]] == ["candidate 4", "candidate 7", "candidate 1", "reference"]
    every = {one["label"]: one for one in (values["reference"], *values["candidates"])}
    for name, standing, *cells in rows[1:]:
        one = every[name]
        full = {run["seed"]: share(run["accuracy"]) for run in one["runs"] if run["epochs"] == RUNGS[-1]}
        assert standing == ("winner" if one["order"] == WINNER else "")
        assert cells == [
            *(full.get(seed, "–") for seed in range(4)),
            bounded(one["accuracy"]),
            format_count(one["macs"]),
            format_count(one["params"]),
            format_seconds(one["latency"]["median"]),
            f"{format_seconds(one['latency']['low'])} to {format_seconds(one['latency']['high'])}",
        ]


def test_every_candidate_is_in_the_table_with_what_it_reached(page: str) -> None:
    rows = Tables(page).of("order")[1:]
    assert sorted(int(row[2]) for row in rows) == list(range(9))
    reached = [(int(row[3]), float(row[4].split()[0])) for row in rows]
    assert reached == sorted(reached, reverse=True)
    for name, standing, order, epochs, accuracy, macs, latency, differs in rows:
        one = search()["candidates"][int(order)]
        longest = [run for run in one["runs"] if run["epochs"] == int(epochs)]
        last = [run["accuracy"] for run in longest if run["final"] or one["order"] not in FINALISTS]
        assert name == one["label"]
        assert standing == ("winner" if one["order"] == WINNER else "finalist" if one["order"] in FINALISTS else "")
        assert int(epochs) == max(run["epochs"] for run in one["runs"])
        assert accuracy == share(sum(last) / len(last)) + (" (mean of 3)" if len(last) == 3 else "")
        assert (macs, latency) == (format_count(one["macs"]), format_seconds(one["latency"]["median"]))
        assert differs == "; ".join(f"{stage} {what}" for stage, what in changes(REFERENCE, network(one["order"])))


def test_every_number_of_the_choices_is_the_searchs(page: str) -> None:
    rows = Tables(page).of("explained")[1:]
    assert [row[:4] for row in rows] == [
        ["stages.2.skip", "37.1 %", "identity", "5"],
        ["stages.2.skip", "37.1 %", "none", "1"],
        ["stages.1.repeats", "0.0 %", "-1", "4"],
        ["stages.1.repeats", "0.0 %", "+1", "2"],
    ]
    means = [row["mean"] for one in search()["learned"] for row in one["values"]]
    assert [row[4] for row in rows] == [bounded(mean) for mean in means]
    assert "A description, not an experiment" in page
    assert "stages.1.repeats:" not in page  # it explains nothing, and is not drawn


def test_how_trials_computed_is_said(page: str) -> None:
    facts = dict(Tables(page).found[-1])
    assert (facts["epochs"], facts["batch"], facts["precision"], facts["workers"]) == ("1 → 3 → 9", "80", "bf16", "2")
    assert facts["augmentation"] == "shifts up to 10 %, mirroring, randaugment, mixup 0.2"
    assert facts["seeds"] == "3 to 6: rungs take the first, finalists and the reference the others"


# --- the networks ---


@pytest.mark.parametrize("order", range(9))
def test_the_parts_of_a_network_are_all_that_it_costs(order: int) -> None:
    found = parts(network(order))
    assert [part.name for part in found] == ["stem", "stages.0", "stages.1", "stages.2", "head"]
    assert sum(part.macs for part in found) == cost(network(order)).macs
    assert sum(part.share for part in found) == pytest.approx(1)


@pytest.mark.parametrize("order", range(9))
def test_what_differs_between_two_networks_is_what_is_marked(order: int) -> None:
    other = network(order)
    for pair, before, after in zip(pairs(REFERENCE, other)[1:-1], REFERENCE.stages, other.stages, strict=True):
        assert ("block" in pair.differing) == (before.block.kind != after.block.kind)
        assert ("kernel" in pair.differing) == (before.block.kernel != after.block.kernel)
        assert ("channels" in pair.differing) == (before.channels != after.channels)
        assert ("blocks" in pair.differing) == (before.repeats != after.repeats)
        assert ("shortcut" in pair.differing) == (before.skip != after.skip)
        assert "stride" not in pair.differing
    assert not pairs(REFERENCE, other)[0].differing
    assert {stage for stage, _ in changes(REFERENCE, other)} == {
        f"stages.{place}" for place in range(3) if REFERENCE.stages[place] != other.stages[place]
    }


def test_a_network_does_not_differ_from_itself() -> None:
    assert changes(REFERENCE, REFERENCE) == []
    assert not any(pair.differing for pair in pairs(REFERENCE, REFERENCE))


def test_shortcuts_that_no_block_can_add_are_idle() -> None:
    stages = (
        Stage(MBConv(), 8),  # the stem's channels, no stride
        Stage(MBConv(), 16),
        Stage(MBConv(), 24, stride=2, repeats=2),  # its second block adds
        Stage(MBConv(), 32, skip="none"),
        Stage(Bottleneck(), 48),  # brings its input to shape
    )
    found = parts(type(REFERENCE)(stages, stem=REFERENCE.stem))
    assert [part.name for part in found if part.idle] == ["stages.1"]


def test_the_winner_stands_beside_the_reference_part_by_part(page: str) -> None:
    rows = Tables(page).of("squeeze-excite")[1:]
    both = pairs(REFERENCE, network(WINNER))
    assert [row[0] for row in rows[::2]] == [pair.before.name for pair in both]
    for above, below, pair in zip(rows[::2], rows[1::2], both, strict=True):
        assert above[1:] == ["reference", *pair.before.words.values(), f"{100 * pair.before.share:.1f} %"]
        assert below == ["candidate 4", *pair.after.words.values(), f"{100 * pair.after.share:.1f} %"]
    assert page.count("<mark>") == sum(len(pair.differing) for pair in both)
    assert all(column in page for column in COLUMNS)


# --- the plots ---

SPOTS = st.lists(
    st.builds(
        lambda at, accuracy, rung: Spot(at, accuracy, (accuracy,), rung, "full"),
        st.floats(1, 9),
        st.floats(0, 1),
        st.integers(0, 2),
    ),
    max_size=12,
)


@given(SPOTS)
def test_the_front_is_beaten_by_nothing_that_was_trained_in_full(spots: list[Spot]) -> None:
    full, line = [one for one in spots if not one.rung], front(spots)
    assert all(point in {(one.cost, one.accuracy) for one in full} for point in line)
    assert line == sorted(line)
    for one in full:
        assert any(at <= one.cost and accuracy >= one.accuracy for at, accuracy in line)
    for at, accuracy in line:
        assert not any(one.cost < at and one.accuracy >= accuracy for one in full)


@pytest.mark.parametrize("rungs", [(0,), (1, 2), (0, 3)])
@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_one_network_alone_can_be_drawn(rungs: tuple[int, ...], accuracy: float) -> None:
    spots = [Spot(0.003, accuracy, (accuracy,), rung, "full") for rung in rungs]
    drawn = fronts(spots, "latency", None)
    shares = [float(text) for text in re.findall(r">(-?[\d.]+) ?%<", drawn.replace("−", "-"))]
    assert all(0 <= share <= 100 for share in shares)
    assert ("trained in full" in drawn, "left behind" in drawn) == (0 in rungs, rungs != (0,))


def test_networks_that_were_not_timed_are_not_drawn_against_latency() -> None:
    assert search_page(unfinished()).count("Validation accuracy against") == 1
    values = plain()
    values["candidates"][8]["latency"] = search()["candidates"][8]["latency"]
    page = search_page(values)
    assert page.count("Validation accuracy against") == 2
    assert {row[6] for row in Tables(page).of("order")[1:]} == {"–", "3.8 ms"}


def test_how_many_runs_latencies_are_of_is_said_of_all_networks() -> None:
    values = search()
    n = values["reference"]["latency"]["n"]
    assert f"the median of {n} runs" in search_page(values)
    values["candidates"][8]["latency"]["n"] = 3
    assert f"the median of 3 to {n} runs" in search_page(values)


# --- other searches ---


def test_the_curve_of_a_control_stands_beside(page: str) -> None:
    assert ">random<" in page
    assert ">evolution, this search<" in page
    assert ">regret, points<" in page
    rows = Tables(page).of("last leader")[1:]
    assert [[row[0], row[2], *row[5:7]] for row in rows] == [
        ["evolution", "3", "83.60 %", "candidate 4"],
        ["random", "0", "81.00 %", "candidate 4"],
    ]
    assert "the leaders stand at 83.60 % (evolution), 81.00 % (random). One search" in text_of(page)


def test_several_searches_of_a_strategy_make_a_band() -> None:
    own = course(search(), own=True)
    several = [course(control(seed, height)) for seed, height in enumerate((0.81, 0.82, 0.85))]
    courses = [one for one in (own, *several) if one is not None]
    (band,) = bands(courses)
    assert (band.strategy, band.searches) == ("random", 3)
    for at, low, mean, high in band.points:
        reached = [one.at(at) for one in courses[1:]]
        assert (low, mean, high) == (min(reached), pytest.approx(sum(reached) / 3), max(reached))
    assert band.points[0][0] == 52.0  # before that the last of them has no leader
    assert "random, mean of 3" in progress(courses, bands(courses), "title")


def test_a_leader_leads_until_the_next_one_is_found() -> None:
    one = Course("random", False, ((10.0, 0.5), (20.0, 0.7)), 40.0)
    assert [one.at(at) for at in (10.0, 19.9, 20.0, 40.0)] == [0.5, 0.5, 0.7, 0.7]
    late = Course("random", False, ((50.0, 0.6),), 60.0)
    assert together([one, one]) == 40.0
    assert together([one, late]) is None
    assert bands([one, late]) == []


def test_the_last_leader_leads_until_halving_ends_and_not_through_the_final_runs() -> None:
    found = course(search())
    runs = [run for one in search()["candidates"] for run in one["runs"]]
    assert found is not None
    assert found.end == pytest.approx(sum(run["seconds"] for run in runs if run["seed"] == 0))


def test_searches_that_answer_another_question_are_not_drawn() -> None:
    weighed = limited("paper", macs=LIMIT)
    exponent = {"objective": weighed["objective"] | {"exponent": -0.1}}
    assert incomparable(search(), control()) == []
    assert incomparable(search(), control() | {"data": "other"}) == ["another validation split or other images"]
    assert incomparable(search(), limited("constraint", macs=LIMIT / 2)) == ["another objective"]
    assert incomparable(weighed, weighed | exponent) == ["another objective"]
    page = search_page(plain() | {"curve": search()["curve"]}, [control() | {"data": "other"}])
    why = "another validation split or other images"  # without a split of their own, a seed carves it
    assert f"Another search (random) is not drawn, for it is no answer to the same question: {why}." in page
    assert ">regret, points<" not in page


def test_what_else_differs_in_another_search_is_said() -> None:
    other = control() | {"images": 1200, "recipe": search()["recipe"] | {"epochs": 27}}
    assert different(search(), other) == ["training images"]
    other["recipe"] |= {"smoothing": 0.2}
    page = search_page(plain(), [other])
    assert Tables(page).of("differs in")[2][-1] == "training images, recipe"
