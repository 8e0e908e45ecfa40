"""How templates become pages: values are escaped, a name that is missing is an error."""

from collections.abc import Mapping
from typing import Any

import jinja2

from triscale.units import format_bytes, format_count, format_epochs, format_seconds


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this room with its values filled in."""
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
    }
    return environment.get_template(template).render(values)


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
