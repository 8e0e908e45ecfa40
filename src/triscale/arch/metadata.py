"""What a model file says beside its architecture that is read with and without torch: format and precision."""

from collections.abc import Mapping

from triscale.precision import ANSWERING, Precision

FORMAT = "1"  # as `models.Model.save` writes it


def check_format(metadata: Mapping[str, str]) -> None:
    """Raises `ValueError` for a file of another format, `KeyError` for one that says none."""
    if metadata["format"] != FORMAT:
        raise ValueError(f"format {metadata['format']}")


def precision_of(metadata: Mapping[str, str]) -> Precision:
    """In which the model answers where nobody names one. Raises `ValueError` for one that there is not."""
    precision = metadata.get("precision", "fp32")
    if precision not in ANSWERING:
        raise ValueError(f"precision {precision}")
    return precision


def unreadable(source: str, error: Exception) -> str:
    """What is told of a model file that cannot be read, in one line."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, RecursionError):
        reason = "it is nested too deep"
    return f"{source}: not a model that this version can read ({reason}); copy or train it again"
