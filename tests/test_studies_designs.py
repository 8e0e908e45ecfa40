"""Designs: what is trained, by name or from a file; what is refused, and how that is said."""

import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from triscale.errors import UserError
from triscale.scaling import Exponents
from triscale.scaling.rules import PAPER
from triscale.studies.designs import DESIGNS, FIVE, TEN, Arm, Design, find_design, to_json
from triscale.studies.surface import terms
from triscale.studies.wanted import make_designs

letters = st.characters(min_codepoint=32, max_codepoint=0x2FF, categories=("L", "N", "S"))
names = st.text(letters, min_size=1, max_size=20).filter(lambda text: not set(text) & set("/\\"))


def test_the_ten_are_corners_middles_centre_the_papers_the_fast_and_one_that_leans_to_depth() -> None:
    points = {arm.name: arm.point for arm in TEN.arms}
    assert len(points) == 10
    assert [points[name] for name in ("depth", "width", "resolution")] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    middles = {points[name] for name in ("depth+width", "depth+resolution", "width+resolution")}
    assert middles == {(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)}
    assert points["uniform"] == pytest.approx((1 / 3,) * 3)
    assert points["fast"] == pytest.approx((0.1, 0.8, 0.1))
    paper = PAPER.exponents()
    assert points["compound"] == pytest.approx((paper.depth, paper.width, paper.resolution))
    assert max(points["deep"]) == points["deep"][0]
    assert set(FIVE.arms) < set(TEN.arms)


def test_every_point_of_the_ten_counts_in_the_surface() -> None:
    x = terms(np.array([arm.point for arm in TEN.arms]), "quadratic")
    assert np.linalg.matrix_rank(x) == 6
    assert np.linalg.cond(x) < 20


def test_the_papers_grid_holds_its_constraint_and_its_own_triple() -> None:
    arms = DESIGNS["paper"].arms
    assert arms[0].shares == PAPER.exponents()
    for arm in arms[1:]:
        alpha, beta, gamma = map(float, arm.name.split())
        assert min(alpha, beta, gamma) >= 1
        assert alpha * beta**2 * gamma**2 == pytest.approx(2, abs=0.08)


@given(st.lists(st.tuples(names, st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6))
def test_a_design_survives_its_file(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]]) -> None:
    arms = []
    for name, a, b in rows:
        d, w = a / 40, b / 40
        arm = Arm(name, Exponents(d, w, 1 - d - w))
        if all(arm.name != other.name and arm.point != other.point for other in arms):
            arms.append(arm)
    design = Design("mine", "", tuple(arms))
    path = tmp_path_factory.mktemp("design") / "mine.json"
    path.write_text(to_json(design))
    assert len(design.arms) < 5 or find_design(path) == design


def test_arms_may_be_written_as_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    mixes = [{"name": str(i), "depth": i / 4, "width": 1 - i / 4, "resolution": 0} for i in range(4)]
    arms = [{"name": "paper", "alpha": 1.2, "beta": 1.1, "gamma": 1.15}, *mixes]
    path.write_text(json.dumps({"schema": 1, "arms": arms}))
    assert find_design(path).arms[0].shares == PAPER.exponents()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", '"schema": 1'),
        ('{"schema": 2, "arms": []}', '"schema": 1'),
        ('{"schema": 1, "arms": []}', '"arms" is a list of mixes'),
        ('{"schema": 1, "arms": [3]}', 'arms.0: an arm has a "name"'),
        ('{"schema": 1, "arms": [{"name": "a", "depth": 1}]}', "arms.0: 'width' is missing"),
        ('{"schema": 1, "arms": [{"name": "a", "depth": 1, "width": 1, "resolution": 0}]}', "sum to 2"),
        ('{"schema": 1, "arms": [{"name": "a", "alpha": 0.5, "beta": 1, "gamma": 1}]}', "must be at least 1 each"),
        ('{"schema": 1, "arms": [{"name": "a", "depth": 1, "width": 0, "resolution": 0}], "x": 1}', "unknown key 'x'"),
        ('{"schema": 1, "arms": [{"name": "a", "depth": 1, "width": 0, "resolution": 0}]}', "1 arms are no study"),
        ('{"schema": 1, "arms": [{"name": "a/b", "depth": 1, "width": 0, "resolution": 0}]}', "without slashes"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_is_no_design_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        find_design(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_two_arms_of_one_name_or_one_mix_are_refused() -> None:
    half = Exponents(0.5, 0.5, 0)
    with pytest.raises(UserError, match="two arms are called 'a'"):
        Design("mine", "", (Arm("a", half), Arm("a", Exponents(1, 0, 0))))
    with pytest.raises(UserError, match="'a' and 'b' are the same mix"):
        Design("mine", "", (Arm("a", half), Arm("b", half)))


@pytest.mark.parametrize("name", ["fitted", "compound", "depth"])
def test_no_arm_takes_the_name_by_which_studies_know_another_mix(tmp_path: Path, name: str) -> None:
    taken = Arm(name, Exponents(0.2, 0.3, 0.5))
    path = tmp_path / "mine.json"
    path.write_text(to_json(Design("mine", "", (taken,))), "utf-8")
    with pytest.raises(UserError, match=rf"mine: an arm of 20%, 30%, 50% cannot be called '{name}', which studies"):
        make_designs(None, [path])
    with pytest.raises(UserError, match=f"cannot be called '{name}'"):
        make_designs(Design("mine", "", (taken,)))
    for design in DESIGNS.values():
        assert make_designs(design) == (design, ())


def test_the_arms_of_the_page_join_every_design(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "study.md").read_text("utf-8")
    path = tmp_path / "mine.json"
    path.write_text(page.split("```json\n")[1].split("```")[0], "utf-8")
    _, (mine,) = make_designs(None, [path])
    for design in DESIGNS.values():
        assert design.with_arms(mine.arms).arms == (*design.arms, *mine.arms)


def test_added_arms_join_once() -> None:
    mine = Arm("mine", Exponents(0.2, 0.2, 0.6))
    design = FIVE.with_arms((mine, FIVE.arms[0]))
    assert design.arms == (*FIVE.arms, mine)
    assert design.with_arms((mine,)) == design
