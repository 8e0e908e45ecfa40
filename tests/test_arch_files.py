"""What a network's JSON promises: it comes back equal, and whatever is wrong with it is said in one line."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from specs import architectures

from triscale.arch import ZOO, Architecture, SpecError, from_dict, from_json, load, published, resolve, to_dict, to_json
from triscale.costing import cost

Json = Any
B0 = published("efficientnet_b0")


def put(place: str, value: Json) -> Callable[[dict[str, Json]], None]:
    """An edit that sets what is at a dotted place."""
    *parents, last = (int(part) if part.isdigit() else part for part in place.split("."))

    def edit(values: Json) -> None:
        for parent in parents:
            values = values[parent]
        values[last] = value

    return edit


def drop(place: str) -> Callable[[dict[str, Json]], None]:
    *parents, last = (int(part) if part.isdigit() else part for part in place.split("."))

    def edit(values: Json) -> None:
        for parent in parents:
            values = values[parent]
        del values[last]

    return edit


def edited(edit: Callable[[dict[str, Json]], None]) -> dict[str, Json]:
    values = copy.deepcopy(to_dict(B0))
    edit(values)
    return values


@given(architectures())
@settings(max_examples=150, deadline=None)
def test_a_network_comes_back_from_its_json_equal_and_with_its_name(architecture: Architecture) -> None:
    back = from_json(to_json(architecture))
    assert back == architecture
    assert back.name == architecture.name
    assert to_json(back) == to_json(architecture)
    assert from_dict(json.loads(json.dumps(to_dict(architecture)))) == architecture


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_network_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(to_json(published(name)), encoding="utf-8")
    assert load(path) == resolve(path) == published(name)
    assert load(path).name == name


def test_a_file_has_a_stage_a_line() -> None:
    lines = to_json(B0).splitlines()
    assert sum('"kind"' in line for line in lines) == len(B0.stages)


def test_keys_left_out_take_the_defaults() -> None:
    values = {"schema": 1, "stages": [{"block": {"kind": "mbconv"}, "channels": 16}]}
    architecture = from_dict(values)
    assert architecture.stem == B0.stem
    assert architecture.resolution == (224, 224)


def test_a_whole_number_is_read_where_a_number_is_meant() -> None:
    assert from_dict(edited(put("stochastic_depth", 0))).stochastic_depth == 0.0


WRONG: list[tuple[str, Callable[[dict[str, Json]], None], tuple[str, ...]]] = [
    ("unknown key", put("depth", 3), ("'depth'", "the keys are stages")),
    ("unknown key of a stage", put("stages.2.width", 3), ("stages.2:", "'width'", "channels")),
    ("unknown key of a block", put("stages.2.block.ratio", 3), ("stages.2.block:", "'ratio'", "squeeze_excite")),
    ("even kernel", put("stages.1.block.kernel", 4), ("stages.1.block:", "kernel", "odd", "not 4")),
    ("kernel too large", put("stages.1.block.kernel", 33), ("stages.1.block:", "from 1 to 31", "not 33")),
    ("zero channels", put("stages.3.channels", 0), ("stages.3:", "channels", "from 1", "not 0")),
    ("negative channels", put("stages.3.channels", -16), ("stages.3:", "channels", "not -16")),
    ("zero repeats", put("stages.3.repeats", 0), ("stages.3:", "repeats", "not 0")),
    ("zero stride", put("stages.3.stride", 0), ("stages.3:", "stride", "not 0")),
    ("negative stride", put("stages.3.stride", -2), ("stages.3:", "stride", "not -2")),
    ("negative stem stride", put("stem.stride", -2), ("stem:", "stride", "not -2")),
    ("stride that empties the map", put("resolution", [16, 16]), ("stages.5:", "stride 2", "1×1", "16×16")),
    ("zero pixels", put("resolution", [0, 16]), ("resolution", "from 1", "not 0")),
    ("one side", put("resolution", [224]), ("resolution:", "2 values", "[224]")),
    ("three sides", put("resolution", [3, 224, 224]), ("resolution:", "2 values", "[3, 224, 224]")),
    ("a number for sides", put("resolution", 224), ("resolution:", "list", "224")),
    ("text for a side", put("resolution", [224, "224"]), ("resolution.1:", "whole number", '"224"')),
    ("no stages", put("stages", []), ("stages", "not 0")),
    ("65 stages", lambda values: values.update(stages=values["stages"][:1] * 65), ("stages", "64", "not 65")),
    ("stages an object", put("stages", {}), ("stages:", "list", "{}")),
    ("stages null", put("stages", None), ("stages:", "list", "null")),
    ("stages missing", drop("stages"), ("'stages' is missing",)),
    ("a stage is a list", put("stages.0", [1]), ("stages.0:", "object", "[1]")),
    ("channels missing", drop("stages.4.channels"), ("stages.4:", "'channels' is missing")),
    ("block missing", drop("stages.4.block"), ("stages.4:", "'block' is missing")),
    ("kind missing", drop("stages.4.block.kind"), ("stages.4.block:", '"kind"', "mbconv", "not null")),
    ("unknown kind", put("stages.4.block.kind", "mb"), ("stages.4.block:", "mbconv", '"mb"')),
    ("kind a list", put("stages.4.block.kind", ["mbconv"]), ("stages.4.block:", "mbconv", '["mbconv"]')),
    ("block a name", put("stages.4.block", "mbconv"), ("stages.4.block:", "mbconv", '"mbconv"')),
    ("true for a whole number", put("stages.0.channels", True), ("stages.0.channels:", "whole number", "true")),
    ("float for a whole number", put("stages.0.channels", 16.0), ("stages.0.channels:", "whole number", "16.0")),
    ("text for a whole number", put("head.classes", "10"), ("head.classes:", "whole number", '"10"')),
    ("null for a whole number", put("head.classes", None), ("head.classes:", "whole number", "null")),
    ("true for a number", put("stochastic_depth", True), ("stochastic_depth:", "a number", "true")),
    ("text for a number", put("head.dropout", "0.2"), ("head.dropout:", "a number", '"0.2"')),
    ("1 for true", put("stages.0.deepens", 1), ("stages.0.deepens:", "true or false", "not 1")),
    ("null for text", put("name", None), ("name:", "text", "null")),
    ("a path for a name", put("name", "../../x"), ("name", "../../x", "slashes")),
    ("an empty name", put("name", ""), ("name", "''")),
    ("a name of two lines", put("name", "a\nb"), ("name", "printable")),
    ("unknown activation", put("stem.activation", "swish"), ("stem.activation:", "silu, relu", '"swish"')),
    ("activation a list", put("stem.activation", ["silu"]), ("stem.activation:", "silu, relu", '["silu"]')),
    ("unknown padding", put("padding", "valid"), ("padding:", "same, symmetric", '"valid"')),
    ("unknown skip", put("stages.1.skip", True), ("stages.1.skip:", "identity, pool, none", "true")),
    ("unknown head width", put("rounding.head", ""), ("rounding.head:", "scaled, fixed, never_narrower", '""')),
    ("divisor of zero", put("rounding.divisor", 0), ("rounding:", "divisor", "not 0")),
    ("certain dropout", put("head.dropout", 1.0), ("head:", "dropout", "below 1", "not 1.0")),
    ("negative dropout", put("head.dropout", -0.1), ("head:", "dropout", "not -0.1")),
    ("epsilon of zero", put("norm.epsilon", 0.0), ("norm:", "epsilon", "above 0")),
    ("nan", put("norm.epsilon", float("nan")), ("norm:", "epsilon", "nan")),
    ("infinity", put("norm.momentum", float("inf")), ("norm:", "momentum", "inf")),
    ("1e400", put("stochastic_depth", float("1e400")), ("stochastic_depth", "from 0", "inf")),
    ("channels in the millions", put("stages.0.channels", 10**6), ("stages.0:", "65,536", "1,000,000")),
    ("repeats in the millions", put("stages.0.repeats", 10**6), ("stages.0:", "1,024", "1,000,000")),
    ("pixels in the millions", put("resolution", [10**6, 16]), ("resolution", "8,192", "1,000,000")),
    ("a number of 400 digits", put("channels", 10**400), ("channels", "65,536", "1329 bits")),
    ("a number of 400 digits for a share", put("stochastic_depth", 10**400), ("stochastic_depth:", "10000")),
    ("schema missing", drop("schema"), ('"schema": 1',)),
    ("unknown schema", put("schema", 2), ("schema 2", "reads schema 1")),
    ("schema of true", put("schema", True), ("schema true", "reads schema 1")),
    ("schema of 1.0", put("schema", 1.0), ("schema 1.0", "reads schema 1")),
    ("schema a list", put("schema", [1]), ("schema [1]", "reads schema 1")),
]


@pytest.mark.parametrize(("edit", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_value_is_named_with_its_file_and_place_in_one_line(
    edit: Callable[[dict[str, Json]], None], words: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(edited(edit)), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


NOT_JSON: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not JSON"),
    ("cut short", to_json(B0).encode()[:100], "not JSON"),
    ("two values", b"{} {}", "not JSON"),
    ("not UTF-8", b'{"name": "\xff\xfe"}', "not JSON"),
    ("binary", bytes(range(256)), "not JSON"),
    ("a list", b"[]", "a network is a JSON object, not []"),
    ("null", b"null", "a network is a JSON object, not null"),
    ("a number", b"1", "a network is a JSON object, not 1"),
    ("a repeated key", b'{"schema": 1, "stages": [], "stages": []}', "'stages' is given twice"),
    ("a repeated key inside", b'{"schema": 1, "stem": {"kernel": 3, "kernel": 5}}', "'kernel' is given twice"),
    ("a number of 5,000 digits", b'{"schema": ' + b"1" * 5000 + b"}", "not JSON"),
    ("deep lists", b"[" * 100_000, "nested too deep"),
    ("deep objects", b'{"a":' * 100_000, "nested too deep"),
]


@pytest.mark.parametrize(("content", "words"), [case[1:] for case in NOT_JSON], ids=[case[0] for case in NOT_JSON])
def test_what_is_no_network_file_is_told_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("depth", [*range(100, 1000, 50), *range(940, 1000, 2), 2000])
def test_nesting_of_any_depth_is_a_spec_error(depth: int) -> None:
    with pytest.raises(SpecError):
        from_json('{"schema": 1, "stages": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(SpecError):
        from_json('{"schema": 1, "stages": [' + '{"block": ' * depth + "1" + "}" * depth + "]}")


@pytest.mark.parametrize("value", [10**5000, -(10**5000), [10**5000]], ids=["large", "negative", "in a list"])
@pytest.mark.parametrize("place", ["channels", "stochastic_depth", "name", "stages.0", "schema", "padding"])
def test_numbers_too_long_to_print_are_refused(place: str, value: Json) -> None:
    with pytest.raises(SpecError) as caught:
        from_dict(edited(put(place, value)))
    assert len(str(caught.value)) < 400


def test_a_file_too_large_for_a_network_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(to_json(B0) + " " * 4_000_000, encoding="utf-8")
    with pytest.raises(SpecError, match="larger than 4,000,000 bytes"):
        load(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.json: No such file"):
        load(tmp_path / "missing.json")
    with pytest.raises(SpecError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(SpecError, match="null byte"):
        load(Path("a\0.json"))
    with pytest.raises(SpecError, match="name too long"):
        load(tmp_path / ("x" * 5000 + ".json"))


def test_a_message_shows_at_most_a_glimpse_of_a_long_value() -> None:
    with pytest.raises(SpecError) as caught:
        from_dict(edited(put("padding", "x" * 10_000)))
    assert len(str(caught.value)) < 200
    with pytest.raises(SpecError) as caught:
        from_dict(edited(put("padding", "first\nsecond\u2028third\ud800")))
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode("utf-8")


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-3, 9),
        st.sampled_from((10**400, -(10**30), 2**63)),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(("mbconv", "silu", "same", "pool", "none")),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Json, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*at, key))
    return found


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_stands_at_whatever_place_is_a_network_or_a_spec_error(data: st.DataObject) -> None:
    values: Json = copy.deepcopy(to_dict(data.draw(st.sampled_from((B0, published("resnet18"))) | architectures())))
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(values)
        if not found:
            break
        *parents, last = data.draw(st.sampled_from(found))
        parent = values
        for key in parents:
            parent = parent[key]
        what = data.draw(st.sampled_from(("replace", "delete", "rename", "add")))
        if what == "delete":
            del parent[last]
        elif what == "rename" and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=8))] = parent.pop(last)
        elif what == "add" and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=8))] = data.draw(anything)
        else:
            parent[last] = data.draw(anything)
    try:
        architecture = from_json(json.dumps(values), "the file")
    except SpecError as error:
        message = str(error)
    else:
        assert from_json(to_json(architecture)) == architecture
        assert cost(architecture).params > 0
        return
    assert message.startswith("the file: ")
    assert len(message.splitlines()) == 1


@given(anything)
@settings(max_examples=200, deadline=None)
def test_any_json_at_all_is_a_spec_error(value: Json) -> None:
    with pytest.raises(SpecError):
        from_json(json.dumps(value))
    with pytest.raises(SpecError):
        from_dict(value)


@given(st.text() | st.binary())
@settings(max_examples=200, deadline=None)
def test_any_text_at_all_is_a_spec_error(text: str | bytes) -> None:
    with pytest.raises(SpecError):
        from_json(text)
