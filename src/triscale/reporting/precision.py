"""In which precision a run's model answers, and why, as its report, its card and the end of `fit` say it."""

from collections.abc import Mapping
from typing import Any

from triscale.stats import PairedDifference


def precision_words(found: Mapping[str, Any]) -> str:
    """From what the result of a run.json holds as `half`."""
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
