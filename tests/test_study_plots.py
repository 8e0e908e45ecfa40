"""The plots on the page of a scaling study."""

import math
import re
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest
from matplotlib.figure import Figure
from study_values import GRID, MIXES, TOP, height

from triscale.reporting.labels import Labels, common
from triscale.reporting.study_plots import CORNERS, Dot, Series, curves, place, ternary
from triscale.scaling.rules import PAPER


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
