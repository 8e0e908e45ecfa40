"""What the page of a search says, also where something is missing."""

from dataclasses import replace
from typing import Any

import pytest
from markup import Tables, text_of
from search_values import (
    LIMIT,
    WINNER,
    begun,
    control,
    limited,
    plain,
    reference_won,
    search,
    unfinished,
)

from triscale.arch import from_dict
from triscale.reporting.search import search_page
from triscale.reporting.search_words import AT_RANDOM, answer
from triscale.scaling import Budget, find_rule, scale_to
from triscale.searching import Evolution, TreeParzen
from triscale.units import format_count


@pytest.fixture(scope="module")
def page() -> str:
    return search_page(search(), [control()])


def said(values: dict[str, Any]) -> str:
    """The answer alone."""
    one = answer(values)
    return " ".join((one.figure, one.claim, one.lead, *one.lines))


def share(value: float) -> str:
    return f"{100 * value:.2f} %"


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


def test_seeds_that_judged_are_told_from_the_one_that_chose() -> None:
    text = said(search())
    assert "over 3 seeds, with the noise of all finalists together and corrected for naming the best of 3" in text
    assert "mean of 3 full trainings" in text


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
