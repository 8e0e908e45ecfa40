import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triscale.errors import UserError
from triscale.units import (
    format_bytes,
    format_count,
    format_epochs,
    format_seconds,
    parse_bytes,
    parse_count,
    parse_seconds,
    parse_seconds_or_none,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400M", 400_000_000),
        ("1.2G", 1_200_000_000),
        ("10k", 10_000),
        ("7", 7),
        (" 5 m ", 5_000_000),
        ("1_000", 1000),
        ("1,200k", 1_200_000),
    ],
)
def test_counts_are_read_as_people_type_them(text: str, value: int) -> None:
    assert parse_count(text) == value


def test_bytes_are_decimal_unless_they_say_otherwise() -> None:
    assert parse_bytes("50MB") == 50_000_000
    assert parse_bytes("1MiB") == 2**20


def test_times_are_seconds() -> None:
    assert parse_seconds("10ms") == pytest.approx(0.01)
    assert parse_seconds("5m") == 300
    assert parse_seconds("1.5h") == 5400
    assert parse_seconds("1h30m") == parse_seconds(" 1 h 30 min ") == 5400
    assert parse_seconds("2m0.5s") == 120.5


@given(st.floats(1e-6, 1e6))
@example(3879.0)  # 1 h 4 min 39 s
def test_a_time_as_it_is_printed_can_be_typed(seconds: float) -> None:
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("text", ["1m1h", "1h1h", "1h30", "1h 30m 5", "0h0m", "1h,30m", "1x30m", "1h-30m"])
def test_parts_of_a_time_that_do_not_add_up_are_named(text: str) -> None:
    with pytest.raises(UserError, match=f"{text!r} is not a quantity"):
        parse_seconds(text)


@pytest.mark.parametrize(
    "text", ["banana", "", "-5M", "0", "1e999", "5 parsecs", "nan", "inf", "0.2", "1..2", "M", "1,5M", "1,2G"]
)
def test_what_is_no_count_is_named_with_an_example(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_count(text, "--macs")
    assert "--macs" in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "400M" in str(caught.value)


@given(st.text(max_size=12))
def test_any_text_is_a_count_or_a_user_error(text: str) -> None:
    with contextlib.suppress(UserError):
        assert parse_count(text) >= 1


@given(st.integers(1, 10**15))
def test_a_formatted_count_reads_back_within_half_a_thousandth(value: int) -> None:
    assert parse_count(format_count(value)) == pytest.approx(value, rel=5.1e-4)


def test_quantities_are_shown_with_four_digits() -> None:
    assert format_count(385_814_752) == "385.8M"
    assert format_count(999_990) == "1M"
    assert format_bytes(21_154_192) == "21.15 MB"
    assert format_seconds(0.0042) == "4.2 ms"
    assert [format_seconds(value) for value in (0.9994, 0.9995, 0.9999, 1.0)] == ["999 ms", "1 s", "1 s", "1 s"]
    assert format_seconds(310) == "5 min 10 s"
    assert format_seconds(7500) == "2 h 5 min"
    assert [format_epochs(count) for count in (1, 1200)] == ["1 epoch", "1,200 epochs"]


@pytest.mark.parametrize("text", ["0", "0s", "0ms", "0.0", ".0", " 0 s ", "0µs", "0 MS", "00h"])
def test_none_is_none_in_whatever_unit(text: str) -> None:
    assert parse_seconds_or_none(text, "--wait") == 0.0


@pytest.mark.parametrize("text", ["", "s", ".", "-0", "00x1", "none", "0banana", "0.0.0", "0 0"])
def test_what_is_no_time_is_not_taken_for_none(text: str) -> None:
    with pytest.raises(UserError, match="--wait"):
        parse_seconds_or_none(text, "--wait")
