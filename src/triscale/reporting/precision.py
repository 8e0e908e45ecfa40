"""In which precision a run's model answers, and why, as its report and its card say it."""

from collections.abc import Mapping
from typing import Any

from triscale.stats import PairedDifference


def precision_words(result: Mapping[str, Any]) -> str | None:
    """From the result of a run.json; None of runs of earlier versions, which say nothing of it."""
    found = result.get("bf16")
    if found is None:
        return None
    if found["why"] is not None:
        return f"Answers are in fp32; bf16 was not judged: {found['why']}."
    n, most = int(found["images"]), 100 * float(found["most_lost"])
    lost = PairedDifference(int(found["only_fp32_right"]), int(found["only_bf16_right"]), n)
    seen = f"of {n:,} validation images {int(found['same_class']):,} get the same class as in fp32, lost are {lost}"
    if found["holds"]:
        return f"Answers are in bf16 where the processor multiplies it: {seen}."
    return f"Answers are in fp32; in bf16 more than {most:g} points might be lost: {seen}."
