"""The page of an architecture search."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markup import Outline, Tables, check_self_contained, squeezed
from search_values import (
    FINALISTS,
    LIMIT,
    REFERENCE,
    RUNGS,
    WINNER,
    begun,
    control,
    earlier,
    limited,
    network,
    plain,
    reference_won,
    search,
    unfinished,
)
from shapes import differing_keys

from triscale.arch import Bottleneck, MBConv, Stage, from_dict
from triscale.costing import cost
from triscale.reporting.search import search_page, write_search_page
from triscale.reporting.search_curves import Course, bands, course, different, incomparable, together
from triscale.reporting.search_networks import COLUMNS, changes, pairs, parts
from triscale.reporting.search_plots import Spot, front, fronts, progress
from triscale.reporting.search_words import AT_RANDOM, answer
from triscale.scaling import Budget, find_rule, scale_to
from triscale.searching import Evolution, TreeParzen
from triscale.units import format_count, format_seconds


@pytest.fixture(scope="module")
def page() -> str:
    return search_page(search(), [control()])


def said(values: dict[str, Any]) -> str:
    """The answer alone."""
    one = answer(values)
    return " ".join((one.figure, one.claim, one.lead, *one.lines))


def text_of(page: str) -> str:
    return squeezed(Outline(page).text)


def share(value: float) -> str:
    return f"{100 * value:.2f} %"


def bounded(estimate: list[float] | None) -> str:
    if estimate is None or len(estimate) == 1:
        return "–" if estimate is None else share(estimate[0])
    return f"{share(estimate[0])} ({100 * estimate[1]:.2f} to {100 * estimate[2]:.2f})"


# --- the page ---


@pytest.mark.parametrize("strategy", ["evolution", "random", "tpe"])
@pytest.mark.parametrize("tried", [20, 21])
def test_it_says_which_candidates_chance_alone_drew(strategy: str, tried: int) -> None:
    values = search() | {"strategy": strategy}
    values["candidates"][-1]["order"] = tried - 1
    text = text_of(search_page(values))
    by_chance = strategy == "random" or tried == 20
    assert ("were not all drawn at random" in text) is not by_chance
    assert ("its first 20 candidates are drawn at random" in text) is (strategy != "random")
    assert ("and there are no others here" in text) is (by_chance and strategy != "random")


def test_it_knows_how_many_candidates_each_strategy_draws_at_random() -> None:
    assert {"evolution": Evolution().population, "tpe": TreeParzen.begin} == AT_RANDOM


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


# --- what it says ---


def test_the_answer_is_the_winners_mean_beside_the_references(page: str) -> None:
    text, values = text_of(page), search()
    winner, reference = values["candidates"][WINNER], values["reference"]
    assert f"{share(winner['accuracy'][0])} of the validation images named right by candidate 4" in text
    for one in (winner, reference):
        mean, low, high = one["accuracy"]
        assert f"{share(mean)}, mean of 3 full trainings of 9 epochs" in text
        assert f"(95 % interval {100 * low:.2f} to {100 * high:.2f})" in text
        assert f"{format_count(one['macs'])} MACs ({100 * one['macs'] / LIMIT:.1f} % of the limit)" in text
    assert "It beats the reference, tiny_net at the same limits: +4.40 points (95 % interval +3.41 to +5.39)" in text


def test_a_reference_that_does_not_hold_the_limits_is_not_said_to_be_at_them() -> None:
    values = search()
    reference = values["reference"]
    heavy = {**reference, "macs": 1.25 * LIMIT, "costs": {"macs": 1.25 * LIMIT}, "used": 1.25}
    text = said(values | {"reference": heavy})
    assert "the reference, tiny_net (it uses 125.0 % of the limit, and so could not win)" in text
    assert "at the same limits" not in text


def test_candidates_that_could_not_be_trained_are_counted() -> None:
    assert "3 candidates could not be trained" in said(search() | {"failed": 3})
    assert "could not be trained" not in said(search())
    nothing = said(search() | {"failed": 9, "candidates": [], "finalists": [], "winner": -1, "gain": None})
    assert "No candidate could be trained in full" in nothing
    assert "limit of latency" not in nothing


def test_a_few_pictures_are_not_said_to_show_that_it_is_better() -> None:
    text = said(search() | {"gain": [0.0667, 0.0238, 0.1095], "selection_images": 10})
    assert "It is not shown to be better than the reference" in text
    assert "that is 0.7 of 10 validation images, and so few may be chance" in text
    assert "It beats" not in text
    assert "It beats" in said(search() | {"gain": [0.0667, 0.0238, 0.1095], "selection_images": 100})


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        ([0.01, -0.02, 0.04], "is not shown to be better than the reference"),
        ([0.01, 0.0, 0.02], "the interval contains zero"),
        ([-0.01, -0.02, -0.005], "names fewer right than the reference"),
        ([0.01], "of one seed, which tells nothing of the noise"),
        (None, "no seed trained both"),
    ],
)
def test_a_winner_is_not_said_to_be_better_where_the_difference_does_not_show_it(
    gain: list[float] | None, says: str
) -> None:
    text = said(search() | {"gain": gain})
    assert says in text
    assert "It beats" not in text


def test_the_reference_that_won_is_said_to_have_won() -> None:
    text = text_of(search_page(plain() | {"winner": -1, "gain": None}))
    assert "Nothing better than the reference was found: tiny_net keeps its place" in text
    assert "none of them is better" in text
    assert "The best finalist, candidate 4: 83.80 %" in text
    assert "network.json, beside this page, is the reference" in text
    assert "★ the winner, the reference itself" in text
    assert "The best candidate beside the reference, which won" in text


def test_finalists_that_are_too_slow_at_rest_are_said_to_be() -> None:
    text = said(limited("constraint", latency=0.00335))
    assert "Measured at rest, candidate 4 and candidate 7 took longer than 3.35 ms, and so could not win" in text
    values = limited("constraint", latency=0.003) | {"winner": -1, "gain": None}
    assert "none of them holds the limit of latency when it is measured at rest" in said(values)


def test_the_figure_is_said_to_flatter_and_the_test_images_to_be_unseen(page: str) -> None:
    text = text_of(page)
    assert "chosen by these same validation images" in text
    assert "its figure flatters" in text
    assert "on test images, which this search never looked at" in text
    assert "test images, which this search never looked at" in said(reference_won())


@pytest.mark.parametrize(
    ("kind", "says"),
    [("paper", "accuracy × (cost/limit)^-0.07"), ("abs", "accuracy - 0.07·|cost/limit - 1|"), ("hard", "limit/cost")],
)
def test_where_cost_is_weighed_the_page_says_how_and_what_each_is_worth(kind: str, says: str) -> None:
    values = limited(kind, latency=0.004)
    values["candidates"][WINNER]["value"] = 0.8123
    assert says in said(values)
    assert f"it is worth 0.8123; the reference {values['reference']['value']:.4f}" in said(values)


def test_where_cost_is_weighed_networks_stand_by_what_they_are_worth() -> None:
    values = limited("paper", macs=LIMIT) | {"curve": []}
    values["candidates"][WINNER]["value"] = 0.8123
    page = search_page(values)
    names = [row[0] for row in Tables(page).of("worth")[1:]]
    assert names == ["candidate 7", "candidate 4", "candidate 1", "reference"]
    assert "mean worth after 1 epoch" in page
    assert Tables(page).of("explained")[1][4] == "0.5100 (0.4700 to 0.5500)"


def test_what_was_searched_is_said(page: str) -> None:
    facts = dict(Tables(page).found[0])
    assert facts["space"] == "around tiny_net: 6.1 × 10²¹ points, 5,184 different networks"
    assert facts["limits"].startswith("at most 2.1M MACs")
    assert facts["candidates"].startswith("9 tried; trainings ended: 9 of 1 epoch, 6 of 3 epochs, 4 of 9 epochs")
    assert facts["images"].startswith("1,293 ")
    assert facts["time"].startswith("3 min 42 s for 31 trials, 2 at a time; 11.0 %")
    assert "84.3 % of the workers' time" in facts["time of all trials"]


def test_a_search_that_found_no_more_networks_says_so(page: str) -> None:
    said = "; no further one was found within the limits"
    assert said in dict(Tables(search_page(search() | {"used_up": True})).found[0])["candidates"]
    assert said not in page


def test_a_search_with_a_sitting_of_unknown_length_claims_no_shares() -> None:
    values = plain()
    values["time"] |= {"share_of_trials": None, "share_without_trials": None}
    text = text_of(search_page(values))
    assert "without the sittings that were killed" in text
    assert "of the workers' time" not in text


def test_the_command_that_trains_the_winner_leaves_it_as_it_is() -> None:
    values = limited("constraint", latency=0.0125, macs=5e6) | {"learned": [], "curve": []}
    winner = next(one for one in values["candidates"] if one["order"] == WINNER)
    text = text_of(search_page(values))
    told = f"triscale fit IMAGES --baseline network.json --rule compound --macs {winner['macs']} --time 1h --out RUN"
    assert told in text
    # `fit` begins at a baseline's own pixels where a rule is named, and then grows it by nothing at all.
    network = from_dict(winner["network"])
    scaled = scale_to(network, find_rule("compound"), Budget({"macs": winner["macs"]}))
    assert replace(scaled.architecture, name=network.name) == network
    assert "triscale study IMAGES --baseline network.json" in text
    assert "triscale scale network.json" in text


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


# --- what may be missing ---


def test_an_unfinished_search_says_so_and_shows_what_there_is() -> None:
    page = search_page(unfinished(), [control()])
    text = text_of(page)
    assert "This search is not finished" in text
    assert "83.60 % of the validation images named right by candidate 4, which leads so far" in text
    assert "What to take" not in text
    assert "The leader beside the reference" in text
    assert "finalists are chosen when the time is over" in text
    assert len(Tables(page).of("order")) == 10
    assert all(str(name) not in text for name in ("It beats", "latency, an image", "winner;"))


def test_a_leader_that_had_no_full_training_is_said_to_have_had_none() -> None:
    values = unfinished() | {"curve": []}
    values["candidates"] = [one for one in values["candidates"] if one["rung"] < 2]
    text = text_of(search_page(values))
    assert "The leader has had 3 epochs of 9." in text
    assert "no candidate was trained in full" in text


def test_a_search_that_has_just_begun_makes_a_page() -> None:
    text = text_of(search_page(begun()))
    assert "Nothing yet no candidate has ended its first rung" in text
    assert "no training has ended" in text
    assert "too few candidates were tried" in text


def test_what_files_of_an_earlier_version_lack_is_seen_wherever_it_stands() -> None:
    missing = ["failed", "judged", "used_up", "candidates[].gain", "candidates[].runs[].final"]
    assert sorted(differing_keys(search(), earlier())) == sorted([*missing, "reference.gain", "reference.runs[].final"])


def test_of_an_earlier_version_a_single_candidate_with_a_single_seed_makes_a_page() -> None:
    values = earlier() | {"finalists": [WINNER], "gain": [0.042], "learned": []}
    values["candidates"] = [one for one in values["candidates"] if one["order"] == WINNER]
    for one in (values["reference"], *values["candidates"]):
        one["runs"] = [run | {"seed": 0} for run in one["runs"] if run["seed"] < 2][-1:]
        one["accuracy"] = [one["runs"][0]["accuracy"]]
        one["value"] = one["accuracy"][0]
    page = search_page(values)
    assert "+4.20 points to the reference, tiny_net at the same limits: of one seed" in text_of(page)
    assert Tables(page).of("seed 3")[1][:4] == ["candidate 4", "winner", "83.60 %", "83.60 %"]
    assert "finalists and the reference all" in text_of(page)


def test_seeds_that_judged_are_told_from_the_one_that_chose() -> None:
    text = said(search())
    assert "over 3 seeds, with the noise of all finalists together and corrected for naming the best of 3" in text
    assert "mean of 3 full trainings" in text
    before = said(earlier())
    assert "naming the best" not in before, "it did not correct"
    assert "mean of 4 full trainings" in before, "all of them judged"


def test_a_reference_above_the_limit_is_not_said_to_hold_it_where_cost_is_weighed() -> None:
    values = search()
    values["objective"] = values["objective"] | {"kind": "paper", "limits": {"macs": values["reference"]["macs"] / 2}}
    assert "(it uses 200.0 % of the limit)" in said(values)
    assert "at the same limits" not in said(values)


def test_a_measured_exponent_that_is_cut_to_0_is_said_to_be() -> None:
    found = {"exponent": 0.193, "low": -0.126, "high": 0.512, "points": []}
    assert "so that w = 0 is used" in text_of(search_page(search() | {"calibrated": found}))
    assert "w = 0 is used" not in text_of(search_page(search() | {"calibrated": found | {"exponent": -0.1}}))


@pytest.mark.parametrize(("term", "roughly"), [("macs", False), ("params", False), ("latency", True), ("memory", True)])
def test_an_exponent_that_was_measured_over_other_costs_than_the_limited_one_is_said_to_be(
    term: str, roughly: bool
) -> None:
    found = {"exponent": -0.1, "low": -0.2, "high": 0.0, "points": []}
    text = text_of(search_page(limited("paper", **{term: 0.004}) | {"calibrated": found, "curve": [], "learned": []}))
    assert (f"it was measured over MACs, which {term} follows only roughly" in text) == roughly


def test_of_finalists_that_are_all_too_slow_the_most_accurate_came_nearest() -> None:
    values = limited("constraint", latency=0.003) | {"winner": -1, "gain": None}
    for one in values["candidates"]:
        one["value"] = None if one["value"] is None else 0.0  # above its limit
    page = search_page(values)
    assert "The best finalist, candidate 4: 83.80 %" in text_of(page)
    means = [row[-6] for row in Tables(page).of("standing")[1:]]
    assert means == sorted(means, reverse=True)
