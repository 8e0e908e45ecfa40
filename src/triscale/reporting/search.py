"""The page of a search, from the plain values of its search.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triscale.runs import write_whole

Values = Mapping[str, Any]


def write_search_page(path: Path, values: Values, others: Sequence[Values] = ()) -> None:
    """report.html, whole. others: search.json of other searches, whose curves stand beside this one's."""
    write_whole(path, f"<p>{values['strategy']}</p>")
