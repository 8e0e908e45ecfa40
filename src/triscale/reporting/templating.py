"""How templates become pages: values are escaped, a name that is missing is an error."""

from dataclasses import fields
from typing import TYPE_CHECKING

import jinja2

from triscale.scaling.budget import label, show
from triscale.units import format_bytes, format_count, format_epochs, format_seconds

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def render(template: str, page: "DataclassInstance") -> str:
    """A template of this room, filled in with a page, whose fields are the names that it knows."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("triscale.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": format_count,
        "bytes": format_bytes,
        "epochs": format_epochs,
        "seconds": format_seconds,
        "percent": _percent,
        "label": label,
        "show": show,
    }
    return environment.get_template(template).render(named(page))


def named(page: "DataclassInstance") -> dict[str, object]:
    """The fields of a page, by name."""
    return {field.name: getattr(page, field.name) for field in fields(page)}


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
