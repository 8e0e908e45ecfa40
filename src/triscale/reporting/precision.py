"""In which precision a run's model answers, and why, as its report, its card and the end of `fit` say it."""

from collections.abc import Mapping
from typing import Any

from triscale.stats import PairedDifference


def half_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the result of a run.json says of half precision.

    Earlier versions judged bf16 alone, and the first ones nothing: of those, None.
    """
    if "half" in result:
        return dict(result["half"])
    found = result.get("bf16")
    return None if found is None else {"precision": "bf16", "only_half_right": found.get("only_bf16_right"), **found}


def precision_words(result: Mapping[str, Any]) -> str | None:
    """From the result of a run.json; None of runs of earlier versions, which say nothing of it."""
    found = half_of(result)
    if found is None:
        return None
    precision = found["precision"] or "half precision"
    if found["why"] is not None:
        return f"Answers are in fp32; {precision} was not judged: {found['why']}."
    n, most = int(found["images"]), 100 * float(found["most_lost"])
    change = PairedDifference(int(found["only_half_right"]), int(found["only_fp32_right"]), n)
    low, high = (100 * bound for bound in change.interval())
    seen = (
        f"accuracy on {n:,} validation images {100 * change.value:+.2f} points from that in fp32 (95 % interval "
        f"{low:+.2f} to {high:+.2f}), {int(found['same_class']):,} get the same class"
    )
    if found["holds"]:
        return f"Answers are in {precision} where the processor is fastest in it: {seen}."
    return f"Answers are in fp32; {precision} might cost more than {most:g} points: {seen}."
