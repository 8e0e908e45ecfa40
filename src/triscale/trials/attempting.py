"""One attempt at what a driver asks of a process: the same in a worker of this machine and on a node of a cluster."""

import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from triscale.errors import TriscaleError, UserError, is_out_of_memory
from triscale.training import StoppedError, Watch, steady_allocator
from triscale.trials.failing import Cause, Failure
from triscale.trials.keeping import keeper_in
from triscale.trials.running import Pictures, Probe, run_trial, seconds_per_image
from triscale.trials.trial import Outcome, Trial


@dataclass(frozen=True, slots=True)
class Pace:
    """The answer to a probe: seconds an image."""

    seconds: float


def settle() -> None:
    """What every process does before it attempts anything, that all of them compute alike."""
    steady_allocator()
    torch.set_num_threads(1)  # a trial says how many it takes


def attempt(
    asked: Trial | Probe, pictures: Pictures, watch: Watch, place: Path | None = None
) -> Outcome | Pace | Failure | None:
    """What was asked for, why there is none, or nothing where the driver has gone. place: a folder in which a trial
    leaves what another attempt goes on from.

    What goes wrong would go wrong again, for a trial depends on nothing but its values; unless what all of them need is
    missing: the images, a disk.
    """
    try:
        if isinstance(asked, Probe):
            return Pace(seconds_per_image(asked))
        return run_trial(asked, pictures, watch, None if place is None else keeper_in(place))
    except (StoppedError, ConnectionError):
        return None
    except UserError as error:
        return Failure(Cause.SURROUNDINGS, str(error))
    except TriscaleError as error:
        return Failure(Cause.TRIAL, str(error))
    except Exception as error:
        if is_out_of_memory(error):
            return Failure(Cause.TRIAL, "not enough memory for a step of it")
        if isinstance(error, OSError):
            return Failure(Cause.SURROUNDINGS, _of_the_system(error))
        traceback.print_exc()  # a fault of this program: everything that helps to find it
        return Failure(Cause.TRIAL, f"{type(error).__name__}: {error}")


def _of_the_system(error: OSError) -> str:
    why = error.strerror or str(error)
    return f"{error.filename}: {why}" if error.filename else why
