"""Why a trial came to nothing: a value of its own, from the process that attempted it to the ledger."""

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What is at fault, which decides what follows.

    TRIAL: what it is; it would come to nothing again wherever it ran. WORKER: who carried it out was ended; another
    one may do it, unless it ends every one. SURROUNDINGS: what any trial needs is missing, as images that are gone;
    once that is mended it may be done.
    """

    TRIAL = "trial"
    WORKER = "worker"
    SURROUNDINGS = "surroundings"


@dataclass(frozen=True, slots=True)
class Failure:
    """In place of an outcome. why: one line for people."""

    cause: Cause
    why: str
