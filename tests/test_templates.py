"""Templates of pages ask for nothing that their pages do not have, also where no test renders them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import jinja2
import pytest
from jinja2 import nodes

from triscale.reporting.card import CardPage
from triscale.reporting.comparison import ComparisonPage
from triscale.reporting.diagnosis import DiagnosisPage
from triscale.reporting.page import ReportPage
from triscale.reporting.search import SearchPage
from triscale.reporting.study import StudyPage
from triscale.reporting.whole import WholePage

TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("triscale.reporting"), trim_blocks=True)
PAGES: Mapping[str, type] = {
    "card.md.j2": CardPage,
    "comparison.html.j2": ComparisonPage,
    "diagnosis.html.j2": DiagnosisPage,
    "report.html.j2": ReportPage,
    "search.html.j2": SearchPage,
    "study.html.j2": StudyPage,
    "whole.html.j2": WholePage,
}


class Reader:
    """Reads a template as far as types go. What comes from JSON, from a filter or into a macro may be anything."""

    def __init__(self, page: type) -> None:
        self.names: dict[str, Any] = {name: _bare(kind) for name, kind in get_type_hints(page).items()}
        self.asked: set[str] = set()
        self.faults: list[str] = []

    def read(self, node: nodes.Node) -> Any:
        """The type of an expression, Any where it is not known."""
        match node:
            case nodes.Const():
                return type(node.value)
            case nodes.Name(ctx="load"):
                return self._name(node)
            case nodes.Getattr():
                return self._attribute(self.read(node.node), node)
            case nodes.Call():
                for each in node.args:
                    self.read(each)
                return self.read(node.node)
            case nodes.Getitem():
                of, _ = self.read(node.node), self.read(node.arg)
                return of if isinstance(node.arg, nodes.Slice) else _item(of, node.arg)
            case nodes.For():
                self._bind(node.target, _item(_bare(self.read(node.iter)), None))
            case nodes.Assign():
                self._bind(node.target, self.read(node.node))
            case nodes.Macro():
                self.names |= {node.name: Any} | {each.name: Any for each in node.args}
        for child in node.iter_child_nodes():
            self.read(child)
        return Any

    def _name(self, node: nodes.Name) -> Any:
        if node.name not in self.names and node.name != "loop":
            self.faults.append(f"line {node.lineno}: {node.name}")
        self.asked.add(node.name)
        return self.names.get(node.name, Any)

    def _attribute(self, of: Any, node: nodes.Getattr) -> Any:
        kind = get_origin(of) or of
        if kind is Any or (isinstance(kind, type) and issubclass(kind, Mapping)):
            return Any
        if hasattr(kind, node.attr) or node.attr in _hints(kind):
            return _attribute(kind, node.attr)
        self.faults.append(f"line {node.lineno}: {kind.__name__}.{node.attr}")
        return Any

    def _bind(self, target: nodes.Node, to: Any) -> None:
        if isinstance(target, nodes.Tuple):
            for place, each in enumerate(target.items):
                self._bind(each, _item(to, nodes.Const(place)))
        elif isinstance(target, nodes.Name):
            self.names[target.name] = _bare(to)


def _bare(of: Any) -> Any:
    """Without None; of several types none is known."""
    if get_origin(of) not in (UnionType, Union):
        return of
    others = [one for one in get_args(of) if one is not type(None)]
    return others[0] if len(others) == 1 else Any


def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind) if isinstance(kind, type) else {}


def _attribute(kind: type, name: str) -> Any:
    """A field, what a property gives, or what a method returns: it is called in any case."""
    if name in _hints(kind):
        return _bare(_hints(kind)[name])
    found = getattr(kind, name)
    found = found.fget if isinstance(found, property) else found.func if isinstance(found, cached_property) else found
    try:
        return _bare(get_type_hints(found).get("return", Any))
    except TypeError:  # of those that are built in nothing is known
        return Any


def _item(of: Any, at: nodes.Node | None) -> Any:
    """Of a sequence, or of a tuple one place, if it is known which."""
    kind, items = get_origin(of) or of, get_args(of)
    if not items or not isinstance(kind, type) or not issubclass(kind, Sequence):
        return Any
    if kind is not tuple or items[-1] is ...:
        return _bare(items[0])
    if isinstance(at, nodes.Const):
        return _bare(items[at.value])
    return _bare(items[0]) if len(set(items)) == 1 else Any


def read(source: str, page: type) -> Reader:
    reader = Reader(page)
    reader.read(TEMPLATES.parse(source))
    return reader


@pytest.mark.parametrize("name", TEMPLATES.list_templates(extensions=["j2"]))
def test_a_template_and_its_page_name_the_same_things(name: str) -> None:
    assert TEMPLATES.loader is not None
    page = PAGES[name]
    found = read(TEMPLATES.loader.get_source(TEMPLATES, name)[0], page)
    assert found.faults == []
    assert {field.name for field in fields(page)} <= found.asked, "what no template asks for is not handed to it"


@dataclass(frozen=True)
class Row:
    name: str
    runs: tuple[tuple[int, str], ...]

    @property
    def longest(self) -> "Row":
        return self

    def next(self) -> "Row | None":
        return None


@dataclass(frozen=True)
class Page:
    rows: Sequence[Row]
    first: Row | None
    values: Mapping[str, Any]


@pytest.mark.parametrize(
    "typo",
    [
        "{{ row }}",
        "{{ first.nam }}",
        "{{ rows[0].nam }}",
        "{% for one in rows %}{{ one.longest.nam }}{% endfor %}",
        "{% for one in rows[:3] %}{{ one.next().nam|length }}{% endfor %}",
        "{% for one in rows %}{% for n, who in one.runs %}{{ who.nam }}{% endfor %}{% endfor %}",
        "{% set one = first %}{% if one %}{{ one.nam }}{% endif %}",
    ],
)
def test_a_template_that_asks_for_what_its_page_has_not_is_found_out(typo: str) -> None:
    assert len(read(typo, Page).faults) == 1
    right = typo.replace("who.nam", "who").replace("nam", "name").replace("{{ row }}", "{{ rows[0].runs[0][1] }}")
    assert read(right, Page).faults == []
