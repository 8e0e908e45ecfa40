"""The page of a scaling study."""

import copy
import json
import math
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from test_report import Outline

from triscale.reporting.labels import Labels, common, shortened
from triscale.reporting.study import study_page, write_study_page
from triscale.reporting.study_plots import CORNERS, Dot, Series, curves, place, ternary
from triscale.scaling.rules import PAPER
from triscale.units import format_count, format_seconds

TOP = (0.25, 0.45, 0.3)
MIXES = {
    "depth": (1.0, 0.0, 0.0),
    "width": (0.0, 1.0, 0.0),
    "resolution": (0.0, 0.0, 1.0),
    "uniform": (0.34, 0.33, 0.33),
    "compound": (0.28, 0.29, 0.43),
    "depth+width": (0.5, 0.5, 0.0),
}
GRID = [(d / 20, w / 20, (20 - d - w) / 20) for d in range(21) for w in range(21 - d)]


def height(mix: tuple[float, ...]) -> float:
    return 0.85 - 0.06 * sum((a - b) ** 2 for a, b in zip(mix, TOP, strict=True))


def named(mix: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("depth", "width", "resolution"), mix, strict=True))


def arm(place_: int, name: str, factor: float) -> dict[str, Any]:
    mix = MIXES.get(name, TOP)
    mean, jitter = height(mix) + 0.03 * math.log2(factor), 0.0001 * place_
    return {
        "name": name,
        "names": [name],
        "asked_shares": named(mix),
        "shares": named(mix),
        "multipliers": {"depth": 1.1 + jitter, "width": 1.2 + jitter, "resolution": 1.3 + jitter},
        "asked": factor,
        "nominal": factor * (1.01 + jitter),
        "realised": factor * (0.99 + jitter),
        "trim": place_ % 3,
        "blocks": [1, 2 + place_],
        "channels": [16, 24 + place_],
        "resolution": [20 + place_, 20 + place_],
        "upscaled": place_ > 4,
        "macs": int(1e7 * factor * (0.99 + jitter)),
        "params": 1_000_000 + 1000 * place_,
        "latency": {
            "median": (0.004 + jitter),
            "low": 0.003 + jitter,
            "high": 0.006 + jitter,
            "n": 11,
            "device": "cpu",
            "threads": 2,
        },
        "selection": [mean - 0.001, mean, mean + 0.001],
        "selection_mean": [mean, mean - 0.004, mean + 0.004],
        "test": [mean - 0.011, mean - 0.01, mean - 0.009],
        "test_mean": [mean - 0.01, mean - 0.015, mean - 0.005],
        "seconds": 30.0,
        "tied": name in ("compound", "uniform", "fitted"),
        "to_compound": None if name == "compound" else [0.001 + jitter, -0.002, 0.004],
        "to_single": None if name == "width" else [0.012 + jitter, 0.007, 0.017],
    }


def at_factor(factor: float, names: list[str]) -> dict[str, Any]:
    arms = [arm(place_, name, factor) for place_, name in enumerate(names)]
    return {
        "factor": factor,
        "sigma": 0.0042,
        "df": 10,
        "detects": 0.0087,
        "needed": 43,
        "best": "compound" if factor == 2 else "fitted",
        "best_single": "width",
        "tied": [one["name"] for one in arms if one["tied"]],
        "arms": arms,
    }


@cache
def _study() -> str:
    line = {"seeds": 3, "twice": True, "images": 8000, "epochs": 6, "seconds": 3600.0, "detects": 0.0099}
    found = {"alpha": 1.189, "beta": 1.169, "gamma": 1.11, "shares": named(TOP), "about": "the optimum of a surface"}
    values = {
        "schema": 1,
        "triscale": "0.1.0",
        "finished": True,
        "factor": 2.0,
        "design": {"name": "six", "about": "six mixes"},
        "seeds": [0, 1, 2],
        "images": 8000,
        "epochs": 6,
        "pixels": [24, 24],
        "how": {"device": "cpu", "precision": "bf16", "threads": 1, "kernels": True},
        "noise": 0.0031,
        "ladder": [
            {"design": "five", "arms": 5, "trials": 30, "chosen": False} | line,
            {"design": "six", "arms": 6, "trials": 33, "chosen": True} | line,
        ],
        "baseline": {
            "name": "efficientnet_b0",
            "macs": 10_000_000,
            "params": 900_000,
            "resolution": [20, 20],
            "selection": [0.79, 0.8, 0.81],
            "test": [0.78, 0.79, 0.8],
        },
        "factors": [at_factor(2.0, list(MIXES)), at_factor(4.0, ["fitted", "width", "compound", "uniform"])],
        "surface": {
            "model": "quadratic",
            "coefficients": [0.8] * 6,
            "sigma": 0.0042,
            "df": 10,
            "lack_of_fit": 0.41,
            "slope_per_doubling": 0.0312,
            "optimum": named(TOP),
            "alpha": 1.189,
            "beta": 1.169,
            "gamma": 1.11,
            "ranges": {"alpha": [1.0, 1.21], "beta": [1.1, 1.31], "gamma": [1.05, 1.26]},
            "compatible": [mix for mix in GRID if height(mix) > 0.849],
            "grid": [[*mix, height(mix), 0.002] for mix in GRID],
        },
        "why_no_surface": None,
        "recommended": {
            "fitted": found | {"baseline": "efficientnet_b0"},
            "fastest": found | {"shares": named(MIXES["uniform"]), "arm": "uniform", "latency": 0.0043},
        },
        "time": {"seconds": 7200.0, "trained": 13000.0, "trials": 33, "workers": 2, "share_of_trials": 0.903}
        | {"share_without_trials": 0.021},
    }
    return json.dumps(values)


def study() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(_study())
    return values


def unfinished() -> dict[str, Any]:
    values = study() | {"finished": False, "time": None, "recommended": {"fitted": None, "fastest": None}}
    values["baseline"]["test"] = None
    values["factors"] = values["factors"][:1]
    for one in values["factors"][0]["arms"]:
        one |= dict.fromkeys(("test", "test_mean", "to_compound", "to_single", "latency"))
    return values


def plain() -> dict[str, Any]:
    """A study whose page needs few plots."""
    values = study() | {"surface": None, "why_no_surface": "the arms are too few"}
    values["recommended"]["fitted"] = None
    values["factors"] = values["factors"][:1]
    return values


@pytest.fixture(scope="module")
def page() -> str:
    return study_page(study())


class Tables(HTMLParser):
    """The cells of a page, [table][row][cell], and what its heads say of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.captions = 0
        self.heads: list[dict[str, str | None]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self.found[-1][-1].append("")
            self._open = True
            if tag == "th":
                self.heads.append(dict(attrs))
        self.captions += tag == "caption"

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1][-1][-1] += data

    def of(self, title: str) -> list[list[str]]:
        """The first table whose head has that column."""
        return next(table for table in self.found if title in table[0])


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    outline = Outline(page)
    assert all(address.startswith("#") for address in outline.addresses)
    assert "script" not in outline.tags
    assert not re.search(r"https?:|@import|url\((?!#)|\son[a-z]+=", page)


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
    text = squeezed(Outline(page).text)
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
    text = squeezed(Outline(study_page(values)).text)
    assert "Not told apart no mix is shown to be better than another" in text
    assert "none of the other 5 arms is shown to be worse" in text
    assert "no number of seeds would tell these two apart" in text


def test_a_surface_that_does_not_fit_is_said_not_to() -> None:
    values = unfinished()
    values["surface"]["lack_of_fit"] = 0.003
    text = squeezed(Outline(study_page(values)).text)
    assert "The surface does not describe the arms well (lack of fit, p = 0.003)" in text
    assert "farther off it than noise explains" in text


def test_both_recommendations_come_with_their_command(page: str) -> None:
    text = squeezed(Outline(page).text)
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
    text = squeezed(Outline(study_page(values)).text)
    assert "Nothing yet no two arms have all their seeds" in text
    assert "There is no surface: no two arms at ×2 have all their seeds yet." in text


def test_where_there_is_no_surface_the_page_says_why() -> None:
    text = squeezed(Outline(study_page(plain())).text)
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
    text = squeezed(Outline(study_page(values)).text)
    assert "Nothing to draw yet" in text


def test_names_cannot_write_into_the_page_or_its_plots() -> None:
    name = "<script>x</script> & $a$ 图"
    text = _study().replace('"uniform"', json.dumps(name)).replace("six mixes", "<i>six</i>")
    values = json.loads(text)
    values["factors"] = values["factors"][:1]
    outline = Outline(study_page(values))
    assert "script" not in outline.tags
    assert "i" not in outline.tags
    assert name in outline.text
    assert shortened(name) in outline.text


def test_corners_and_mixes_stand_where_the_triangle_has_them() -> None:
    spots = {name: place(shares) for name, shares in CORNERS.items()}
    assert spots == {"depth": (0, 0), "width": (1, 0), "resolution": (0.5, pytest.approx(math.sqrt(3) / 2))}
    for a, b in combinations(spots.values(), 2):
        assert math.dist(a, b) == pytest.approx(1)
    for mix in GRID:  # a point is the mean of the corners, weighed by its shares
        weighed = [sum(share * spot[axis] for share, spot in zip(mix, spots.values(), strict=True)) for axis in (0, 1)]
        assert place(mix) == pytest.approx(weighed)


def test_the_triangle_shows_arms_optimum_and_the_papers_mix_at_their_shares() -> None:
    dots = [Dot(name, mix, height(mix), name == "compound") for name, mix in MIXES.items()]
    paper = PAPER.exponents()
    papers = (paper.depth, paper.width, paper.resolution)
    rows = [[*mix, height(mix)] for mix in GRID]
    svg = ternary(dots, rows, [TOP], TOP, papers)
    drawn = list(marks(svg))
    spots = [place(TOP), place(papers), *(place(mix) for mix in MIXES.values())]
    assert len(drawn) == len(spots)
    # Both have the same form: all distances from the first mark are in one proportion.
    scale = math.dist(drawn[0], drawn[1]) / math.dist(spots[0], spots[1])
    for got, wanted in zip(drawn, spots, strict=True):
        assert math.dist(got, drawn[0]) == pytest.approx(scale * math.dist(wanted, spots[0]), abs=0.01)
    for name, mix in MIXES.items():
        assert f">{name}<" in svg
        assert f">{100 * height(mix):.1f} %<" in svg


def marks(svg: str) -> Iterator[tuple[float, float]]:
    for x, y in re.findall(r'<use [^>]*?x="([-\d.]+)" y="([-\d.]+)"', svg):
        yield float(x), float(y)


@pytest.mark.parametrize("compatible", [[], GRID, [(0.0, 1.0, 0.0)]])
def test_a_set_of_no_mix_of_all_or_of_a_corner_can_be_drawn(compatible: list[tuple[float, ...]]) -> None:
    assert ternary([], [[*mix, height(mix)] for mix in GRID], compatible, TOP, TOP).startswith("<svg")


def test_a_level_surface_can_be_drawn() -> None:
    assert ternary([], [[*mix, 0.5] for mix in GRID], [TOP], TOP, TOP).startswith("<svg")


def test_labels_do_not_lie_on_each_other_and_are_left_out_where_there_is_no_room() -> None:
    axes = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = Labels(axes, 288)
    written = [labels.beside((0.5 + 0.001 * i, 0.5), (f"arm {i}", "85.0 %")) for i in range(60)]
    assert written[0]
    assert not all(written)
    boxes = labels._boxes
    assert len(boxes) == sum(written)
    assert all(common(a, b) <= 0.05 * (a[2] - a[0]) * (a[3] - a[1]) for a, b in combinations(boxes, 2))


def test_names_at_the_ends_of_lines_stand_apart() -> None:
    level = ((1.0, (0.5, 0.5, 0.5)), (2.0, (0.6, 0.5, 0.7)))
    svg = curves([Series(kind, kind, level) for kind in ("depth", "width", "compound")], (1.0, [0.5]), "title")
    heights = [float(y) for y in re.findall(r'<text [^>]*y="([-\d.]+)"[^>]*>(?:depth|width|compound)<', svg)]
    assert len(heights) == 3
    assert all(b - a > 8 for a, b in pairwise(sorted(heights)))


def test_what_is_shown_leaves_the_values_alone() -> None:
    values = plain()
    before = copy.deepcopy(values)
    study_page(values)
    assert values == before
