"""Spaces: every point is a network, and the same one however it is made; what is no space is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
import torch
from choices import differing
from hypothesis import given, settings
from hypothesis.strategies import DrawFn, SearchStrategy
from scipy.stats import chisquare
from specs import SKIPS, architectures, expansions, kernels, ratios

from triscale.arch import (
    ZOO,
    Architecture,
    MBConv,
    Stage,
    Stem,
    adapt,
    from_dict,
    published,
    resolve,
    to_dict,
)
from triscale.costing import cost
from triscale.errors import UserError
from triscale.nn import build
from triscale.searching import Codes, NetworkSpace, Space, StageChoices, around, mnasnet, space_from_dict
from triscale.searching.networks import Kind, points, space_file
from triscale.searching.references import mini

MOBILE = published("mobilenet_v2")
MNASNET = mnasnet(MOBILE)

some_values = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)
spaces = st.lists(some_values, min_size=1, max_size=6).map(
    lambda many: Space.of({f"choice {place}": values for place, values in enumerate(many)})
)
seeds = st.integers(0, 10_000).map(Random)


def some(values: SearchStrategy[Any], most: int = 3) -> SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=1, max_size=most, unique=True).map(tuple)


def stage_choices(most: int = 3) -> SearchStrategy[StageChoices]:
    """Anything that may stand in a stage, every kind of block."""
    return st.builds(
        StageChoices,
        kind=some(st.sampled_from(get_args(Kind)), most),
        kernel=some(kernels, most),
        expansion=some(expansions, most),
        squeeze_excite=some(ratios, most),
        skip=some(st.sampled_from(SKIPS), most),
        channels=some(st.sampled_from((0.01, 0.4, 0.75, 1.0, 1.25, 2.0)), most),
        repeats=some(st.integers(-2, 2), most),
    )


@st.composite
def network_spaces(draw: DrawFn, most: int = 3) -> NetworkSpace:
    """Around any network: `around` it, MnasNet's, or what a file might hold."""
    reference = draw(architectures())
    if draw(st.booleans()):
        return draw(st.sampled_from((around, mnasnet)))(reference)
    stages = [draw(st.none() | stage_choices(most)) for _ in reference.stages]
    stages[draw(st.integers(0, len(stages) - 1))] = draw(stage_choices(most))
    return NetworkSpace(reference, tuple(stages), draw(st.text(max_size=9)))


def in_space(space: Space, codes: Codes) -> bool:
    return [type(code) for code in codes] == [int] * len(space.names) and all(
        0 <= code < count for code, count in zip(codes, space.counts, strict=True)
    )


# --- any discrete space ---


@given(spaces, seeds, st.integers(1, 8))
def test_what_is_drawn_mutated_and_crossed_stays_in_the_space(space: Space, rng: Random, changes: int) -> None:
    one, other = space.sample(rng), space.sample(rng)
    mutant, child = space.mutate(one, rng, changes), space.cross(one, other, rng)
    assert all(in_space(space, codes) for codes in (one, other, mutant, child))
    assert differing(one, mutant) == min(changes, sum(count > 1 for count in space.counts))
    assert all(code in pair for code, pair in zip(child, zip(one, other, strict=True), strict=True))


@given(spaces)
def test_all_are_as_many_as_it_says_each_once_and_in_order(space: Space) -> None:
    every = list(space.all())
    assert len(every) == space.size
    assert every == sorted(set(every))
    assert all(in_space(space, codes) for codes in every)


@given(spaces, seeds)
def test_encoding_is_the_inverse_of_decoding(space: Space, rng: Random) -> None:
    codes = space.sample(rng)
    choice = space.decode(codes)
    assert list(choice) == list(space.names)
    assert all(choice[name] in values for name, values in zip(space.names, space.values, strict=True))
    assert space.encode(dict(reversed(choice.items()))) == codes


def test_points_neighbours_and_children_are_drawn_equally_often() -> None:
    space, rng = Space.of({"a": [0, 1, 2], "b": ["x", "y", "z"], "c": [0.5, 1.5, 2.5]}), Random(0)
    every, start = list(space.all()), (1, 0, 2)
    neighbours = [codes for codes in every if differing(codes, start) == 1]
    children = [codes for codes in every if {*codes} <= {0, 1}]
    for expected, draw in (
        (every, lambda: space.sample(rng)),
        (neighbours, lambda: space.mutate(start, rng)),
        (children, lambda: space.cross((0, 0, 0), (1, 1, 1), rng)),
    ):
        drawn = [draw() for _ in range(200 * len(expected))]
        assert {*drawn} == {*expected}
        assert chisquare([drawn.count(codes) for codes in expected]).pvalue > 0.01


BAD_SPACES: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "the space has no choices"),
    "a list": ([("a", [1, 2])], "a mapping of choice name to values, not list"),
    "no values": ({"a": [1], "b": []}, "choice 'b' has no values"),
    "twice": ({"a": [1, 2, 1]}, "choice 'a' has the value 1 twice"),
    "true is one": ({"a": [1, True]}, "choice 'a' has the value True twice"),
    "a text": ({"a": "123"}, "choice 'a': its values must be a list, not '123'"),
    "a set": ({"a": {1}}, r"choice 'a': its values must be a list, not \{1\}"),
    "a number": ({"a": 3}, "choice 'a': its values must be a list, not 3"),
    "lists": ({"a": [[1], [2]]}, r"texts, numbers or tuples \(unhashable type: 'list'\)"),
}


@pytest.mark.parametrize(("values", "said"), BAD_SPACES.values(), ids=BAD_SPACES)
def test_what_is_no_space_is_named(values: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Space.of(values)


def test_a_choice_or_a_point_that_the_space_does_not_have_is_named() -> None:
    space = Space.of({"a": [1, 2], "b": ["x"]})
    for choice, said in (
        ({"a": 1, "b": "x", "z": 0}, "choice 'z' is not in the space; it has a, b"),
        ({"a": 1}, "choice 'b' is missing"),
        ({"a": 3, "b": "x"}, "choice 'a' is 3; it may be 1, 2"),
    ):
        with pytest.raises(UserError, match=said):
            space.encode(choice)
    for codes in ((0,), (0, 1), (-1, 0), (0, 0, 0)):
        with pytest.raises(UserError, match="is no point of a space of 2 choices"):
            space.decode(codes)


# --- spaces of networks ---


@given(network_spaces(), seeds)
def test_every_point_is_the_valid_network_that_the_checks_would_have_let_through(
    space: NetworkSpace, rng: Random
) -> None:
    for codes in (space.space.sample(rng) for _ in range(5)):
        network = space.network(codes, "one of many")
        checked = from_dict(to_dict(network))
        assert (checked, checked.name, hash(checked)) == (network, "one of many", hash(network))
        assert cost(checked) == cost(network)
        assert replace(network, stages=space.reference.stages) == space.reference
        for kept, choices, stage in zip(space.reference.stages, space.stages, network.stages, strict=True):
            assert (stage.stride, stage.deepens) == (kept.stride, kept.deepens)
            assert choices is not None or stage == kept


@given(network_spaces(), seeds)
def test_a_point_says_what_its_network_has(space: NetworkSpace, rng: Random) -> None:
    codes = space.space.sample(rng)
    chosen, network, divisor = space.space.decode(codes), space.network(codes), space.reference.rounding.divisor
    for place, (kept, choices, stage) in enumerate(
        zip(space.reference.stages, space.stages, network.stages, strict=True)
    ):
        if choices is None:
            continue
        said: Any = {name: chosen[f"stages.{place}.{name}"] for name in StageChoices.__slots__}
        for name in ("kind", "kernel", "expansion", "squeeze_excite"):
            assert getattr(stage.block, name, said[name]) == said[name]
        assert stage.block.activation == kept.block.activation
        assert stage.skip == said["skip"]
        assert stage.repeats == max(1, kept.repeats + said["repeats"])
        wanted = kept.channels * said["channels"]
        if stage.channels == kept.channels:  # also where the nearest multiple is not on the side that was asked for
            assert abs(stage.channels - wanted) < divisor
        else:
            assert (stage.channels < kept.channels) == (wanted < kept.channels)
            assert stage.channels % divisor == 0
            assert abs(stage.channels - wanted) <= divisor / 2 or stage.channels == divisor > wanted


@pytest.mark.usefixtures("one_thread")
@given(network_spaces(), seeds)
@settings(max_examples=15)
def test_every_network_of_a_space_builds_and_answers(space: NetworkSpace, rng: Random) -> None:
    network = space.network(space.space.sample(rng))
    module = build(network).eval()
    with torch.no_grad():
        answer = module(torch.zeros(1, network.channels, *network.resolution))
    assert answer.shape == (1, network.classes)
    assert torch.isfinite(answer).all()
    assert sum(tensor.numel() for tensor in module.parameters()) == cost(network).params


@given(network_spaces())
def test_a_space_survives_its_json(space: NetworkSpace) -> None:
    again = space_from_dict(json.loads(json.dumps(space.to_dict())), "file")
    assert again == space
    assert (again.name, again.reference.name) == (space.name, space.reference.name)
    assert again.space == space.space


@given(architectures())
def test_the_reference_is_a_point_of_what_lies_around_it(reference: Architecture) -> None:
    space = around(reference)
    codes = space.nearest(reference)
    assert codes is not None
    assert space.network(codes) == reference


@pytest.mark.parametrize("name", ZOO)
def test_every_published_network_has_a_space_around_it(name: str) -> None:
    for reference in (published(name), adapt(published(name), resolution=(28, 28), channels=1, classes=10)):
        space = around(reference)
        codes = space.nearest(reference)
        assert codes is not None
        assert space.network(codes) == reference


@given(network_spaces(), seeds)
def test_every_network_of_a_space_is_found_in_it_and_no_other(space: NetworkSpace, rng: Random) -> None:
    network = space.network(space.space.sample(rng))
    codes = space.nearest(network)
    assert codes is not None
    assert space.network(codes) == network
    assert space.nearest(replace(network, head=replace(network.head, classes=network.classes + 1))) is None
    stage = replace(network.stages[0], deepens=not network.stages[0].deepens)
    assert space.nearest(replace(network, stages=(stage, *network.stages[1:]))) is None


def test_a_network_of_fewer_or_more_stages_is_not_in_the_space() -> None:
    for stages in (MOBILE.stages[:3], (*MOBILE.stages, MOBILE.stages[-1])):
        assert around(MOBILE).nearest(replace(MOBILE, stages=stages)) is None


@given(network_spaces(most=2))
@settings(max_examples=25)
def test_the_number_of_networks_is_that_of_the_different_ones(space: NetworkSpace) -> None:
    first = next(place for place, choices in enumerate(space.stages) if choices is not None)
    kept = [None if place != first else choices for place, choices in enumerate(space.stages)]
    alone = NetworkSpace(space.reference, tuple(kept))
    assert alone.networks == len({alone.network(codes) for codes in alone.space.all()})
    assert space.networks % alone.networks == 0
    assert space.networks <= space.space.size


def test_mnasnets_space_has_324_different_stages_in_five_places_of_mobilenet_v2() -> None:
    assert [stage is None for stage in MNASNET.stages] == [True, False, False, False, False, False, True]
    assert MNASNET.networks == 324**5
    assert MNASNET.space.size == 648**5
    (one,) = {choices for choices in MNASNET.stages if choices is not None}
    assert points(one).size == 648
    assert MNASNET.nearest(MOBILE) is not None


def test_spaces_that_have_no_choice_to_offer_are_refused() -> None:
    with pytest.raises(UserError, match="keeps every stage has one network; give choices for a stage"):
        NetworkSpace(MOBILE, (None,) * 7)
    with pytest.raises(UserError, match="what may stand there: 7, not 2"):
        NetworkSpace(MOBILE, around(MOBILE).stages[:2])


def with_stage(**changed: Any) -> dict[str, Any]:
    """MnasNet's space as a file has it, its second stage changed; a value of ... is left out."""
    values = MNASNET.to_dict()
    stage = {**values["stages"][1], **changed}
    values["stages"][1] = {key: value for key, value in stage.items() if value is not ...}
    return values


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in MNASNET.to_dict().items() if name != key}


BAD_FILES: dict[str, tuple[Any, str]] = {
    "a list": ([1], '"schema": 1'),
    "no schema": (without("schema"), '"schema": 1'),
    "another schema": ({**MNASNET.to_dict(), "schema": 2}, '"schema": 1'),
    "schema true": ({**MNASNET.to_dict(), "schema": True}, '"schema": 1'),
    "unknown key": ({**MNASNET.to_dict(), "stage": []}, "unknown key 'stage'; the keys are"),
    "no reference": (without("reference"), "a space has a reference"),
    "no stages": (without("stages"), "and stages: an object or null for each"),
    "too few stages": ({**MNASNET.to_dict(), "stages": [None]}, "what may stand there: 7, not 1"),
    "only null": ({**MNASNET.to_dict(), "stages": [None] * 7}, "keeps every stage has one network"),
    "a number as name": ({**MNASNET.to_dict(), "name": 3}, "a space has a reference"),
    "a number as stage": ({**MNASNET.to_dict(), "stages": [None, 3]}, "stages.1: must be an object, not 3"),
    "no such reference": ({**MNASNET.to_dict(), "reference": "mobilenet_v9"}, "'mobilenet_v9' is no network"),
    "a broken reference": ({**MNASNET.to_dict(), "reference": {"schema": 1}}, "'stages' is missing"),
    "unknown choice": (with_stage(width=[1]), "stages.1: unknown key 'width'"),
    "missing choice": (with_stage(skip=...), "stages.1: 'skip' is missing"),
    "a kind that is none": (with_stage(kind=["mbconv", "vit"]), "stages.1.kind.1: must be one of conv"),
    "an even kernel": (with_stage(kernel=[3, 4]), "stages.1: kernel must be odd"),
    "half a kernel": (with_stage(kernel=[3.5]), "stages.1.kernel.0: must be a whole number, not 3.5"),
    "no list": (with_stage(kernel=3), "stages.1.kernel: must be a list, not 3"),
    "no values": (with_stage(repeats=[]), "stages.1: repeats: give from 1 to 64 values, not 0"),
    "too many values": (with_stage(repeats=[*range(65)]), "stages.1: repeats: give from 1 to 64 values, not 65"),
    "a value twice": (with_stage(kernel=[3, 5, 3]), "stages.1: choice 'kernel' has the value 3 twice"),
    "too much": (with_stage(expansion=[65]), "stages.1: expansion must be from 1 to 64, not 65"),
    "a share above 1": (with_stage(squeeze_excite=[1.5]), "stages.1: squeeze_excite must be from 0 to 1, not 1.5"),
    "a shortcut that is none": (with_stage(skip=["dense"]), "stages.1.skip.0: must be one of identity, pool, none"),
    "no channels": (with_stage(channels=[0]), "stages.1: channels: 0 times the reference's; from 0.01 to 100"),
    "NaN channels": (with_stage(channels=[float("nan")]), "stages.1: channels: nan times"),
    "too deep": (with_stage(repeats=[-2000]), "stages.1: repeats: -2000 more than the reference's"),
}


@pytest.mark.parametrize(("values", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_space_of_networks_is_one_line_that_names_the_file_once_and_the_place(
    values: Any, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as caught:
        space_file(path)
    line = str(caught.value)
    assert said in line
    assert line.startswith(f"{path}: ")
    assert line.count(str(path)) == 1
    assert len(line.splitlines()) == 1


def test_a_space_file_may_name_its_reference_and_leave_its_own_name_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**without("name"), "reference": "mobilenet_v2"}))
    assert space_file(path) == replace(MNASNET, name="space")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"{", "not JSON"), (b'{"schema": 1, "schema": 1}', "'schema' is given twice")],
)
def test_a_space_file_that_cannot_be_read_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        space_file(path)
    assert str(path) in str(caught.value)


def test_a_space_that_is_neither_a_name_nor_a_file_is_told_the_names() -> None:
    with pytest.raises(UserError, match="--space arround: neither around nor mnasnet nor a JSON file"):
        space_file("arround")


def test_the_small_reference_is_the_example_s_baseline() -> None:
    example = Path(__file__).parent.parent / "examples" / "baselines" / "efficientnet_mini.json"
    assert mini() == resolve(example)


def of_stages(*stages: Stage) -> Architecture:
    return Architecture(stages, stem=Stem(8), resolution=(32, 32), name="mine")


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7, 10, 12, 20])
def test_channels_of_less_than_once_the_references_are_not_more_nor_those_of_more_fewer(channels: int) -> None:
    space = around(of_stages(Stage(MBConv(), channels)))
    (choices,) = space.stages
    assert choices is not None
    fewer, same, more = (space._channels(space.reference.stages[0], times) for times in choices.channels)
    assert fewer <= same == channels <= more


def test_a_reference_of_single_blocks_has_a_mnasnet_space_too() -> None:
    space = mnasnet(of_stages(Stage(MBConv(3, 3), 32), Stage(MBConv(3, 6), 64, stride=2)))
    assert None not in space.stages
    assert space.networks == 216**2


def test_what_scaling_leaves_of_a_stage_does_not_take_its_choices() -> None:
    single = replace(MOBILE, stages=tuple(replace(stage, repeats=1) for stage in MOBILE.stages))
    space = MNASNET.at(single)
    assert (space.stages, space.name, space.reference) == (MNASNET.stages, MNASNET.name, single)
    assert space.networks == 216**5
    assert space.network(MNASNET.space.sample(Random(0))).stages[0] == single.stages[0]
