"""Arms as networks: equal cost, and the mix that was asked for."""

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pictures import digit_folder

from triscale.arch import Architecture, adapt, published, resolve
from triscale.costing import cost
from triscale.data import read
from triscale.errors import UserError
from triscale.scaling import Exponents
from triscale.studies.designs import TEN, Arm
from triscale.studies.growing import baseline_for, deepened, grow_arm, realised_shares, slimmed

BASELINES = Path(__file__).parent.parent / "examples" / "baselines"


def baselines() -> dict[str, Architecture]:
    own = {path.stem: resolve(path) for path in sorted(BASELINES.glob("*.json"))}
    b0 = adapt(published("efficientnet_b0"), resolution=(44, 44), channels=1, classes=62)
    return own | {"efficientnet_b0": b0}


@pytest.mark.parametrize("name", baselines())
@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_arms_that_move_width_cost_what_was_asked_to_a_percent(name: str, factor: float) -> None:
    for arm in TEN.arms:
        grown = grow_arm(baselines()[name], arm, factor, None)
        if arm.shares.width > 0:
            assert -0.01 <= grown.off <= 0, grown.label
            assert grown.close
        else:  # a block or a pixel row is the step
            assert abs(grown.off) < 0.12, grown.label


@pytest.mark.parametrize("name", baselines())
def test_what_each_dimension_bought_is_near_what_the_mix_gives_it(name: str) -> None:
    for arm in TEN.arms:
        grown = grow_arm(baselines()[name], arm, 4.0, None)
        for asked, found in zip(
            arm.point, (grown.shares.depth, grown.shares.width, grown.shares.resolution), strict=True
        ):
            assert abs(asked - found) < 0.15, (grown.label, arm.point, grown.shares)
        if arm.single:
            assert (grown.shares.depth, grown.shares.width, grown.shares.resolution) == pytest.approx(arm.point)


def test_most_arms_are_different_networks() -> None:
    for name, baseline in baselines().items():
        networks = {replace(grow_arm(baseline, arm, 4.0, None).network, name="one") for arm in TEN.arms}
        assert len(networks) >= 9, name


@given(st.integers(0, 60))
def test_blocks_are_added_one_by_one_and_in_proportion(blocks: int) -> None:
    baseline = published("efficientnet_b0")
    grown, before = deepened(baseline, blocks), sum(stage.repeats for stage in baseline.stages)
    assert sum(stage.repeats for stage in grown.stages) == before + blocks
    for stage, own in zip(grown.stages, baseline.stages, strict=True):
        assert abs(stage.repeats - own.repeats * (1 + blocks / before)) < 1


def test_stages_that_do_not_deepen_keep_their_blocks() -> None:
    baseline = published("efficientnet_lite0")
    grown = deepened(baseline, 9)
    assert [s.repeats for s in grown.stages if not s.deepens] == [s.repeats for s in baseline.stages if not s.deepens]
    assert sum(stage.repeats for stage in grown.stages) == sum(stage.repeats for stage in baseline.stages) + 9


@given(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).filter(lambda t: sum(t) > 0.1), st.floats(1.5, 6))
@settings(max_examples=40)
def test_any_mix_grows_any_baseline(shares: tuple[float, float, float], factor: float) -> None:
    total = sum(shares)
    arm = Arm("any", Exponents(*(share / total for share in shares)))
    grown = grow_arm(baselines()["efficientnet_mini"], arm, factor, (28, 28))
    assert grown.scaled.realised <= factor * 1.25
    assert grown.upscaled == (max(grown.network.resolution) > 28)
    assert sum((grown.shares.depth, grown.shares.width, grown.shares.resolution)) == pytest.approx(1)


def test_an_arm_that_depth_alone_would_pay_for_is_refused_where_no_stage_deepens() -> None:
    mini = baselines()["resnet_mini"]
    flat = replace(mini, stages=tuple(replace(stage, deepens=False) for stage in mini.stages))
    for shares in ((1, 0, 0), (0.5, 0, 0.5)):
        with pytest.raises(UserError, match=r"arm deep at a factor of 2: more blocks make .* at most ×1, .*--design"):
            grow_arm(flat, Arm("deep", Exponents(*shares)), 2.0, None)
    assert grow_arm(flat, Arm("mixed", Exponents(1 / 3, 1 / 3, 1 / 3)), 2.0, None).close
    assert grow_arm(flat, Arm("resolution", Exponents(0, 0, 1)), 2.0, None).network.resolution > flat.resolution


def test_a_network_that_did_not_grow_leans_nowhere() -> None:
    b0 = published("efficientnet_b0")
    assert realised_shares(b0, b0) == Exponents(1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize(("side", "expected"), [(28, 18), (32, 20), (64, 30), (96, 44), (224, 106), (8, 16)])
def test_a_baseline_of_the_zoo_leaves_pixels_to_gain(tmp_path: Path, side: int, expected: int) -> None:
    data = read(digit_folder(tmp_path / "digits"))
    data = replace(data, size=(side, side))
    found = baseline_for(published("efficientnet_b0"), data, 4.0, published=True, resolution=None)
    assert found.resolution == (expected, expected)
    assert (found.channels, found.classes) == (1, 3)


def test_a_baseline_of_a_file_keeps_its_resolution_unless_told_one(digits: Path) -> None:
    data, mini = read(digits), resolve(BASELINES / "efficientnet_mini.json")
    assert baseline_for(mini, data, 4.0, published=False, resolution=None).resolution == (18, 18)
    assert baseline_for(mini, data, 4.0, published=False, resolution=(12, 20)).resolution == (12, 20)


def test_slimming_keeps_pixels_and_name() -> None:
    b0 = adapt(published("efficientnet_b0"), resolution=(32, 32))
    small = slimmed(b0, 8e6)
    assert cost(small).macs <= 8e6
    assert (small.resolution, small.name) == (b0.resolution, b0.name)
    assert slimmed(small, 9e9) is small
