"""Dataclasses and JSON, both ways: what is written comes back, and nothing else is taken."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triscale.errors import UserError
from triscale.plain import from_plain, read_json, short, to_plain


@dataclass(frozen=True)
class Dot:
    size: int
    kind: Literal["dot"] = "dot"


@dataclass(frozen=True)
class Line:
    length: float
    dashed: bool = False
    kind: Literal["line"] = "line"

    def __post_init__(self) -> None:
        if self.length < 0:
            raise UserError(f"length {self.length:g} is negative")


@dataclass(frozen=True)
class Drawing:
    name: str
    shape: Dot | Line
    colour: Literal["red", "blue"] = "red"
    title: str | None = None
    box: tuple[float, float] | None = None
    shapes: tuple[Dot, ...] = ()
    made: int = field(init=False, default=7)


shapes = st.builds(Dot, st.integers()) | st.builds(Line, st.floats(0, 1e300), st.booleans())
drawings = st.builds(
    Drawing,
    st.text(),
    shapes,
    st.sampled_from(("red", "blue")),
    st.none() | st.text(),
    st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
    st.lists(st.builds(Dot, st.integers()), max_size=3).map(tuple),
)
WHOLE = {"name": "a", "shape": {"kind": "dot", "size": 1}, "box": [0.5, 1.0], "shapes": [{"kind": "dot", "size": 2}]}


@given(drawings)
def test_what_is_written_comes_back_as_it_was(drawing: Drawing) -> None:
    plain = to_plain(drawing)
    del plain["made"]
    assert from_plain(Drawing, read_json(json.dumps(plain), "file"), "file") == drawing


def test_the_kind_comes_first_as_a_reader_expects_it() -> None:
    assert list(to_plain(Line(1.0))) == ["kind", "length", "dashed"]
    assert list(to_plain(Drawing("a", Dot(1)))["shape"]) == ["kind", "size"]


def test_of_several_dataclasses_the_kind_says_which() -> None:
    for shape in (Dot(3), Line(2.0)):
        assert from_plain(Drawing, {"name": "a", "shape": to_plain(shape)}, "file").shape == shape


def test_a_whole_number_is_a_number_too_but_no_number_is_whole_by_chance() -> None:
    line = from_plain(Line, {"length": 3}, "file")
    assert (line.length, type(line.length)) == (3.0, float)
    with pytest.raises(UserError, match=r"size: must be a whole number, not 3\.0"):
        from_plain(Dot, {"size": 3.0}, "file")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"extra": 1}, r"^file: unknown key 'extra'; the keys are name, shape, colour, title, box, shapes$"),
        ({"made": 1}, r"^file: unknown key 'made'"),
        ({"name": None}, r"^file: name: must be text, not null$"),
        ({"name": 3}, r"^file: name: must be text, not 3$"),
        ({"colour": "green"}, r'^file: colour: must be one of red, blue, not "green"$'),
        ({"colour": ["red"]}, r'^file: colour: must be one of red, blue, not \["red"\]$'),
        ({"box": 1}, r"^file: box: must be a list, not 1$"),
        ({"box": [1, 2, 3]}, r"^file: box: must have 2 values, not \[1, 2, 3\]$"),
        ({"box": [1, True]}, r"^file: box\.1: must be a number, not true$"),
        ({"shapes": [{"size": 1}, {"size": "2"}]}, r'^file: shapes\.1\.size: must be a whole number, not "2"$'),
        ({"shapes": [{"size": True}]}, r"^file: shapes\.0\.size: must be a whole number, not true$"),
        ({"shapes": {"size": 1}}, r"^file: shapes: must be a list"),
        ({"shape": {"size": 1}}, r'^file: shape: "kind" must be one of dot, line, not null$'),
        ({"shape": {"kind": "cube", "size": 1}}, r'^file: shape: "kind" must be one of dot, line, not "cube"$'),
        ({"shape": {"kind": ["dot"]}}, r'^file: shape: "kind" must be one of dot, line, not \["dot"\]$'),
        ({"shape": "dot"}, r'^file: shape: "kind" must be one of dot, line, not "dot"$'),
        ({"shape": {"kind": "dot"}}, r"^file: shape: 'size' is missing$"),
        ({"shape": {"kind": "line", "size": 1}}, r"^file: shape: unknown key 'size'"),
        ({"shape": {"kind": "line", "length": -1}}, r"^file: shape: length -1 is negative$"),
        ({"shape": {"kind": "line", "length": 10**40}}, r"^file: shape\.length: must be a number, not 1000"),
    ],
    ids=str,
)
def test_whatever_is_wrong_is_one_line_with_the_place_and_the_value(change: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        from_plain(Drawing, WHOLE | change, "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 1, "text", [], [WHOLE]])
def test_what_is_no_object_is_named(value: object) -> None:
    with pytest.raises(UserError, match=r"^file: must be an object, not "):
        from_plain(Drawing, value, "file")


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"^file: 'shape' is missing$"):
        from_plain(Drawing, {"name": "a"}, "file")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a' is given twice"),
        ('{"b": {"a": 1, "a": 2}}', "'a' is given twice"),
        ("{", "not JSON"),
        ("", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"\x80", "not even text"),
        ("[" * 100_000, "nested too deep"),
        ("1" * 5000, "not JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_text_that_is_not_strict_json_is_one_line_that_names_the_file(text: str | bytes, told: str) -> None:
    with pytest.raises(UserError, match=rf"^my file: .*{told}") as caught:
        read_json(text, "my file")
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*sorted(WHOLE), "colour", "title", "shape.size", "shapes.0"]), json_values)
def test_whatever_stands_at_whatever_place_is_a_drawing_or_a_user_error(place: str, value: object) -> None:
    values = json.loads(json.dumps(WHOLE))
    *path, last = place.split(".")
    target = values
    for key in path:
        target = target[key]
    target[int(last) if last.isdigit() else last] = value
    try:
        drawing = from_plain(Drawing, values, "file")
    except UserError:
        return
    assert from_plain(Drawing, {k: v for k, v in to_plain(drawing).items() if k != "made"}, "file") == drawing


@given(json_values | st.integers(10**4999, 10**5000))
def test_a_value_in_an_error_line_is_short(value: object) -> None:
    assert len(short(value)) <= 60


def test_values_that_no_line_can_show_are_told_of_all_the_same() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert short(deep) == "a list too large to show"


def test_a_key_of_any_length_is_named_in_a_line_that_can_be_read() -> None:
    with pytest.raises(UserError, match=rf"^file: unknown key '{'x' * 57}…'; the keys are name"):
        from_plain(Drawing, WHOLE | {"x" * 10**6: 1}, "file")
    twice = '{"' + "x" * 1000 + '": 1, "' + "x" * 1000 + '": 2}'
    with pytest.raises(UserError, match=rf"^file: not JSON: '{'x' * 57}…' is given twice$"):
        read_json(twice, "file")
