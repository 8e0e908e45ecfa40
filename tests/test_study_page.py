"""The page of a scaling study."""

import copy
import json
from pathlib import Path

import pytest
from markup import Outline, Tables, check_self_contained, squeezed, text_of
from study_values import GRID, MIXES, height, plain, study, unfinished

from triscale.reporting.labels import shortened
from triscale.reporting.study import study_page, write_study_page
from triscale.units import format_count, format_seconds


@pytest.fixture(scope="module")
def page() -> str:
    return study_page(study())


def test_the_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    check_self_contained(page)
    assert all(address.startswith("#") for address in Outline(page).addresses)


def test_the_page_is_for_dark_mode_and_phones_too(page: str) -> None:
    assert "color-scheme: light dark" in page
    assert "width=device-width" in page
    assert "#01020" not in page
    assert page.count('role="img" aria-label="') == 4


def test_the_same_values_make_the_same_bytes(page: str, tmp_path: Path) -> None:
    write_study_page(tmp_path / "page.html", study())
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def test_tables_say_what_they_are_and_heads_what_they_head(page: str) -> None:
    tables = Tables(page)
    assert tables.captions == len(tables.found) == 8
    assert all(head.get("scope") in ("row", "col") for head in tables.heads)


def test_every_result_in_the_tables_is_the_studys() -> None:
    table = Tables(study_page(study())).of("selection")
    arms = sorted(study()["factors"][0]["arms"], key=lambda one: -one["selection_mean"][0])
    assert [row[0] for row in table[1:]] == [one["name"] for one in arms]
    for row, one in zip(table[1:], arms, strict=True):
        latency = one["latency"]
        assert row[1:] == [
            "best" if one["name"] == "compound" else "tied" if one["tied"] else "",
            f"{100 * one['selection_mean'][0]:.2f} %",
            "{:.2f} % ({:.2f} to {:.2f})".format(*(100 * each for each in one["test_mean"])),
            *(apart(one[key]) for key in ("to_compound", "to_single")),
            format_count(one["macs"]),
            format_seconds(latency["median"]),
            f"{format_seconds(latency['low'])} to {format_seconds(latency['high'])}",
        ]


def apart(estimate: list[float] | None) -> str:
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * each for each in estimate)) if estimate else "–"


def test_every_network_in_the_tables_is_the_studys() -> None:
    rows = {row[0]: row[1:] for row in Tables(study_page(plain())).of("nominal")[1:]}
    for one in study()["factors"][0]["arms"]:
        shares = "/".join(f"{100 * share:.0f}" for share in one["shares"].values())
        assert rows[one["name"]] == [
            *(f"{each:.3f}" for each in one["multipliers"].values()),
            f"{one['asked']:g}",
            f"{one['nominal']:.3f}",
            f"{one['realised']:.3f}",
            shares,
            shares,
            "{}×{}".format(*one["resolution"]) + (" enlarged" if one["upscaled"] else ""),
            format_count(one["params"]),
            " ".join(map(str, one["blocks"])),
            " ".join(map(str, one["channels"])),
        ]


def test_noise_ladder_and_time_are_the_studys() -> None:
    tables = Tables(study_page(plain()))
    assert tables.of("degrees of freedom")[1] == ["×2", "6 × 3", "0.42", "10", "0.87", "43"]
    assert tables.of("degrees of freedom")[2][:3] == ["baseline", "1 × 3", "0.31"]
    ladder = tables.of("expected")
    assert ladder[2] == ["six chosen", "6", "3", "yes", "33", "8,000 × 6", "1 h 0 min", "0.99"]
    facts = dict(row for table in tables.found for row in table if len(row) == 2)
    assert facts["trials an hour"] == "16.5"
    assert facts["share of the workers' time that was training"] == "90.3 %"
    assert facts["share of the time without trials"].startswith("2.1 %")
    assert facts["precision"] == "bf16"


def test_a_study_with_a_sitting_of_unknown_length_claims_no_rate() -> None:
    values = plain()
    values["time"] |= {"seconds": 12.0, "share_of_trials": None, "share_without_trials": None}
    text = Outline(study_page(values)).text
    assert "trials an hour" not in text
    assert "12 s, without the sittings that were killed" in text


def test_the_answer_names_the_mix_its_set_the_ties_and_the_verdict(page: str) -> None:
    text = text_of(page)
    assert "α 1.19, β 1.17, γ 1.11 is the fitted best mix for efficientnet_b0" in text
    assert "gives 25 % of the growth in MACs to depth, 45 % to width, 30 % to resolution" in text
    inside = [mix for mix in GRID if height(mix) > 0.849]
    for i, name in enumerate(("depth", "width", "resolution")):
        low, high = (100 * bound(mix[i] for mix in inside) for bound in (min, max))
        assert f"{low:.0f} to {high:.0f} % {name}" in text
    assert "compound has the highest mean; uniform is tied with it" in text
    assert "43 seeds show it four times in five" in text
    assert "beats the best single dimension, width: +1.24 points (95 % interval +0.70 to +1.70)" in text
    assert "the fitted optimum, trained itself, is not told apart from the paper's mix" in text
    assert "Intervals are over seeds, for these images" in text


@pytest.mark.parametrize(
    ("to_single", "says"),
    [([0.0, -0.01, 0.01], "is not told apart from"), ([-0.02, -0.03, -0.01], "is worse than")],
)
def test_compound_scaling_is_not_said_to_win_where_it_does_not(to_single: list[float], says: str) -> None:
    values = plain()
    values["factors"][0]["arms"][4]["to_single"] = to_single
    assert f"compound scaling by the paper's mix {says} the best single dimension, width" in study_page(values).replace(
        "&#39;", "'"
    )


def test_arms_that_the_data_do_not_tell_apart_are_not_ranked_in_the_headline() -> None:
    values = plain()
    at = values["factors"][0]
    at |= {"tied": list(MIXES), "needed": None}
    for one in at["arms"]:
        one["tied"] = True
    text = text_of(study_page(values))
    assert "Not told apart no mix is shown to be better than another" in text
    assert "none of the other 5 arms is shown to be worse" in text
    assert "not a million seeds would tell these two apart" in text


def test_a_surface_that_does_not_fit_is_said_not_to() -> None:
    values = unfinished()
    values["surface"]["lack_of_fit"] = 0.003
    text = text_of(study_page(values))
    assert "The surface does not describe the arms well (lack of fit, p = 0.003)" in text
    assert "farther off it than noise explains" in text


def test_both_recommendations_come_with_their_command(page: str) -> None:
    text = text_of(page)
    for file in ("coefficients.json", "coefficients-fastest.json"):
        assert f"triscale scale baseline.json --rule {file} --factor 2" in text
    assert "uniform takes 4.3 ms for an image (80 % of 11 runs within 3.3 ms to 6.3 ms" in text


def test_an_unfinished_study_shows_no_test_result_even_where_there_is_one() -> None:
    sealed, leaking = study_page(unfinished()), study() | {"finished": False}
    leaking["factors"] = leaking["factors"][:1]
    for page in (sealed, study_page(leaking)):
        outline = Outline(page)
        assert "not finished" in outline.text
        assert "At least 21 of 33 trials" in squeezed(outline.text)
        assert "stay sealed" in outline.text
        assert "test accuracy" not in outline.text
        assert "What to take" not in outline.text
        for one in study()["factors"][0]["arms"]:
            assert f"{100 * one['selection_mean'][0]:.2f} %" in outline.text
        heads = {cell for table in Tables(page).found for cell in table[0]}
        assert not heads & {"test", "to the paper's mix", "to the best single"}
        assert "of the test images" not in outline.text


def test_a_study_without_any_complete_arm_makes_a_page() -> None:
    values = unfinished() | {"factors": [], "surface": None}
    text = text_of(study_page(values))
    assert "Nothing yet no two arms have all their seeds" in text
    assert "There is no surface: no two arms at ×2 have all their seeds yet." in text


def test_where_there_is_no_surface_the_page_says_why() -> None:
    text = text_of(study_page(plain()))
    assert "There is no surface: the arms are too few." in text
    assert "compound is the best of 6 ways to grow efficientnet_b0" in text


def test_networks_that_were_not_timed_have_no_latency() -> None:
    values = plain()
    for one in values["factors"][0]["arms"][:5]:
        one["latency"] = None
    rows = {row[0]: row for row in Tables(study_page(values)).of("latency")[1:]}
    assert rows["depth"][-2:] == ["–", "–"]
    assert rows["depth+width"][-2:] != ["–", "–"]
    values["factors"][0]["arms"][5]["latency"] = None
    values["recommended"]["fastest"] = None
    page = study_page(values)
    assert "latency" not in Tables(page).of("selection")[0]
    assert "no latency was measured" in page


def test_what_may_be_missing_is_no_error() -> None:
    values = plain()
    values |= {"pixels": None, "ladder": []}
    values["time"] |= {"share_of_trials": None}
    values["factors"][0] |= {"best_single": None}
    values["factors"][0]["arms"] = values["factors"][0]["arms"][3:4] + values["factors"][0]["arms"][5:]
    for one in values["factors"][0]["arms"]:
        one |= {"to_compound": None, "to_single": None}
    text = text_of(study_page(values))
    assert "Nothing to draw yet" in text


def test_names_cannot_write_into_the_page_or_its_plots() -> None:
    name = "<script>x</script> & $a$ 图"
    text = json.dumps(study()).replace('"uniform"', json.dumps(name)).replace("six mixes", "<i>six</i>")
    values = json.loads(text)
    values["factors"] = values["factors"][:1]
    outline = Outline(study_page(values))
    assert "script" not in outline.tags
    assert "i" not in outline.tags
    assert name in outline.text
    assert shortened(name) in outline.text


def test_what_is_shown_leaves_the_values_alone() -> None:
    values = plain()
    before = copy.deepcopy(values)
    study_page(values)
    assert values == before
