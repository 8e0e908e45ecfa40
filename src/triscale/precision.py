"""In which numbers networks are computed."""

from typing import Literal, get_args

from triscale.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]  # the engine's C++ side knows them by their places here
HalfPrecision = Literal["bf16", "fp16"]
TrainingPrecision = Literal["fp32", "bf16"]

ANSWERING: tuple[Precision, ...] = get_args(Precision)  # that a network can be asked to answer in
TRAINING: tuple[TrainingPrecision, ...] = get_args(TrainingPrecision)  # that a network can be trained in


def check_precision(word: str) -> Precision:
    """The precision of that name, whatever is here. Raises `UserError` for another word."""
    if word not in ANSWERING:
        raise UserError(f"--precision {word}: is none of {', '.join(ANSWERING)}")
    return word
