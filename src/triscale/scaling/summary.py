"""What a scaling says of itself, as plain values: the same for the command line, run.json and reports."""

from dataclasses import asdict
from typing import Any

from triscale.scaling.solver import Scaled


def summary(scaled: Scaled) -> dict[str, Any]:
    """Rule, multipliers, asked / nominal / realised, trim, and each budget's limit, value and used share."""
    limits, values = scaled.limits or {}, scaled.values or {}
    return {
        "rule": scaled.rule,
        "multipliers": asdict(scaled.multipliers),
        "asked": scaled.asked,
        "nominal": scaled.nominal,
        "realised": scaled.realised,
        "trim": [asdict(step) for step in scaled.trim],
        "budget": {
            term: {"limit": limit, "value": values[term], "used": values[term] / limit}
            for term, limit in limits.items()
        },
    }
