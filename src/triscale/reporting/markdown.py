"""Markdown in which a value is text and nothing else, whatever characters it has."""

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jinja2

from triscale.reporting.templating import named
from triscale.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Numbers instead of a backslash: a backslash before a pipe is read differently within a table and outside of one.
_ENTITIES: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "\\": "&#92;", "`": "&#96;"}
_HARMLESS = " ,;%'\"?/@("
_JOINERS = "\u200c\u200d"  # no sign of their own, and yet part of words and of emoji


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def shown(text: str) -> str:
    """The text on one line: a character that has no sign (a line's end, a change of direction, half of a pair) is
    written as Python writes it, `\\n`; spaces of whatever width stay."""
    return "".join(one if _is_sign(one) else repr(one)[1:-1] for one in text)


def escape(text: object) -> Markdown:
    """Markdown that is read as `shown(text)` in a paragraph, a heading or a cell of a table: no markup, no HTML, no end
    of the cell or the line."""
    if isinstance(text, Markdown):
        return text
    plain = shown(str(text))
    inner = plain.strip()
    begin = len(plain) - len(plain.lstrip())
    middle = "".join(_escaped(inner, i) for i in range(len(inner)))
    return Markdown(_spaces(plain[:begin]) + middle + _spaces(plain[begin + len(inner) :]))


def render_markdown(template: str, page: "DataclassInstance") -> str:
    """A Markdown template of this room, filled in with a page, whose fields are the names that it knows: every value
    that is not `Markdown` is escaped; a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("triscale.reporting"),
        autoescape=False,  # that is for HTML; `finalize` does it here
        undefined=jinja2.StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": lambda value: Markdown(format_count(value)),
        "whole": lambda value: Markdown(f"{value:,}"),
        "bytes": lambda value: Markdown(format_bytes(value)),
        "seconds": lambda value: Markdown(format_seconds(value)),
        "percent": _percent,
        "number": _number,
    }
    return environment.get_template(template).render(named(page))


def _spaces(text: str) -> str:
    """By number: those at an end would be taken off."""
    return "".join(f"&#{ord(one)};" for one in text)


def _is_sign(one: str) -> bool:
    return one.isprintable() or one in _JOINERS or unicodedata.category(one) == "Zs"


def _escaped(text: str, at: int) -> str:
    one = text[at]
    if one in _ENTITIES:
        return _ENTITIES[one]
    if not one.isascii() or one.isalnum() or one in _HARMLESS:
        return one
    around = text[at - 1 : at] + text[at + 1 : at + 2]
    within = len(around) == 2 and around.isascii() and around.isalnum()
    # In the middle of a word they mean nothing, but for the beginning of an address.
    if one in "-_+." and within and not text[:at].lower().endswith("www"):
        return one
    if one == ")" and not text[:at].isdigit():  # after a number alone it would begin a list
        return one
    return "\\" + one


def _number(value: float, form: str) -> Markdown:
    return Markdown(format(value, form))


def _percent(share: float, digits: int = 2) -> Markdown:
    return Markdown(f"{100 * share:.{digits}f} %")
