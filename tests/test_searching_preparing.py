"""Before the first trial: the space of what was asked, and what the least and the most of its networks take."""

import json
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from test_searching_space import network_spaces

from triscale.arch import Architecture, Basic, Head, Stage, Stem, adapt, published, to_dict
from triscale.costing import cost
from triscale.data import Data
from triscale.errors import UserError
from triscale.searching import Asked, NetworkSpace, StageChoices, around, mnasnet
from triscale.searching.halving import FEWEST, FINALISTS, SEEDS
from triscale.searching.preparing import Amount, _amount, _passes, _space, extremes
from triscale.searching.references import mini
from triscale.training import Recipe

CPU = torch.device("cpu")


def every_point(space: NetworkSpace) -> tuple[Architecture, Architecture]:
    """The oracle: of each stage all points are gone through, with the others at their first."""
    counts, width = space.space.counts, len(StageChoices.__slots__)
    least, most = list[int](), list[int]()
    for at in range(0, len(counts), width):
        before, after = (0,) * at, (0,) * (len(counts) - at - width)
        points = product(*map(range, counts[at : at + width]))
        found = [(cost(space.network((*before, *codes, *after))).macs, codes) for codes in points]
        least += min(found)[1]
        most += max(found)[1]
    return space.network(tuple(least)), space.network(tuple(most))


@given(network_spaces(most=2))
@settings(max_examples=40)
def test_the_extremes_are_those_of_all_points(space: NetworkSpace) -> None:
    assert extremes(space) == every_point(space)


@pytest.mark.parametrize("name", ["mini", "mobilenet_v1", "mnasnet_a1", "resnet18", "resnet50"])
def test_the_extremes_of_the_shipped_spaces_are_those_of_all_points(name: str) -> None:
    reference = mini() if name == "mini" else published(name)
    some = replace(reference, stages=reference.stages[:2])
    for space in (around(some), mnasnet(some)):
        assert extremes(space) == every_point(space)


def test_a_space_of_many_values_is_not_gone_through_point_by_point() -> None:
    """A stage has 13 million points: there is no memory to keep them."""
    choices = StageChoices(
        kind=("mbconv", "fused_mbconv", "basic", "conv"),
        kernel=tuple(range(1, 33, 2)),
        expansion=tuple(range(1, 17)),
        squeeze_excite=tuple(place / 32 for place in range(33)),
        skip=("identity", "none", "pool"),
        channels=tuple(0.25 + place / 4 for place in range(8)),
        repeats=tuple(range(-4, 12)),
    )
    space = NetworkSpace(mini(), (None, choices, None, choices))
    smallest, largest = extremes(space)
    assert len(space._built) < 20_000
    drawn = [cost(space.network(space.space.sample(Random(seed)))).macs for seed in range(50)]
    assert cost(smallest).macs < min(drawn)
    assert max(drawn) < cost(largest).macs


@pytest.mark.parametrize(("macs", "reference"), [(1.2e6, None), (2e6, None), (1e6, "resnet18")])
def test_mnasnets_space_keeps_its_choices_at_small_limits(data: Data, macs: float, reference: str | None) -> None:
    asked = Asked({"macs": macs}, space="mnasnet", reference=reference, candidates=8)
    space, named = _space(data, asked, CPU), published(reference or "mobilenet_v2")
    assert [one is None for one in space.stages] == [stage.repeats == 1 for stage in named.stages]
    assert space.networks > 10**8
    assert 0.85 < cost(space.reference).macs / macs <= 1


def test_the_space_around_a_reference_does_not_depend_on_its_scale(data: Data) -> None:
    for name in ("efficientnet_b0", "mobilenet_v2", "resnet18"):
        scaled = _space(data, Asked({"macs": 1.5e6}, reference=name, candidates=8), CPU)
        assert scaled == around(scaled.reference)
        assert scaled.name == around(scaled.reference).name


def own(pixels: int, path: Path) -> Path:
    network = adapt(published("mobilenet_v2"), resolution=(pixels, pixels), channels=1, classes=10)
    path.write_text(json.dumps(to_dict(network)))
    return path


def test_a_reference_of_ones_own_that_is_too_large_is_told_the_pixels_of_the_images(data: Data, tmp_path: Path) -> None:
    asked = Asked({"macs": 2e6}, reference=own(224, tmp_path / "mine.json"), candidates=8)
    with pytest.raises(UserError, match="--resolution 16x16, as the images have; the reference keeps its 224×224"):
        _space(data, asked, CPU)
    assert _space(data, replace(asked, resolution=(16, 16)), CPU).reference.resolution == (16, 16)


def test_a_reference_of_the_images_pixels_that_is_too_large_is_told_to_have_fewer(data: Data) -> None:
    with pytest.raises(UserError, match="or a --resolution below 16×16"):
        _space(data, Asked({"macs": 1e4}, candidates=8), CPU)


@pytest.mark.parametrize("limit", [{"size": 1000.0}, {"params": 250.0}])
def test_limits_that_pixels_do_not_change_are_not_told_to_take_fewer(data: Data, limit: dict[str, float]) -> None:
    with pytest.raises(UserError, match="no network that small") as told:
        _space(data, Asked(limit, candidates=8), CPU)
    assert "--resolution" not in str(told.value)


@pytest.mark.parametrize("limit", [{"macs": 1.2}, {"params": 1.2}])
def test_a_reference_that_no_scale_brings_nearer_to_the_limits_is_taken_as_it_is(
    data: Data, limit: dict[str, float], tmp_path: Path
) -> None:
    """Its stem has half a step of channels: a whole one is too much already."""
    stem = Stem(4, stride=1)
    mine = Architecture(
        (Stage(Basic(3), 8),), stem=stem, head=Head(3, None), resolution=(16, 16), channels=1, name="mine"
    )
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(to_dict(mine)))
    total = cost(adapt(mine, classes=len(data.classes), channels=data.channels))
    limits = {term: times * getattr(total, term) for term, times in limit.items()}
    assert cost(_space(data, Asked(limits, reference=path, candidates=8), CPU).reference) == total
    with pytest.raises(UserError, match="no network that small"):
        _space(data, Asked({term: limit / 2 for term, limit in limits.items()}, reference=path, candidates=8), CPU)


@dataclass(frozen=True)
class Many:
    """Images of which nothing but their number counts."""

    train: range


def amount(passes: float, images: int, workers: int) -> Amount:
    asked, recipe = Asked({"macs": 1e6}, time=3600.0), Recipe(epochs=9, batch=128)
    return _amount(passes, Many(range(images)), asked, recipe, 3_000.0, workers)  # type: ignore[arg-type]


PASSES, IMAGES, WORKERS = st.floats(1e4, 1e8), st.integers(200, 100_000), st.integers(1, 128)


@given(PASSES, IMAGES, WORKERS)
@settings(max_examples=60, deadline=None)
def test_one_candidate_and_the_final_runs_fit_the_time_however_many_workers_there_are(
    passes: float, images: int, workers: int
) -> None:
    found = amount(passes, images, workers)
    if found.candidates >= FEWEST:
        trials = [found.images * epochs + 3_000.0 for epochs in found.rungs]
        one_after_the_other = math.ceil((FINALISTS + 1) * SEEDS / workers)
        assert sum(trials) + one_after_the_other * trials[-1] <= passes


@given(PASSES, IMAGES, WORKERS, WORKERS)
@settings(max_examples=60, deadline=None)
def test_more_workers_never_train_less(passes: float, images: int, workers: int, more: int) -> None:
    few, many = amount(passes, images, workers), amount(passes, images, workers + more)
    assert many.images * many.rungs[-1] >= few.images * few.rungs[-1]


@given(IMAGES, WORKERS)
@settings(max_examples=60, deadline=None)
def test_the_time_that_the_least_search_is_said_to_take_suffices(images: int, workers: int) -> None:
    found = amount(1.0, images, workers)
    assert found.candidates < FEWEST
    needed = _passes(FEWEST, found.images, found.rungs, 3_000.0, workers)
    assert amount(needed, images, workers).candidates >= FEWEST
