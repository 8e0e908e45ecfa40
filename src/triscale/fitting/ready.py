"""What a plan is carried out with, beside the plan itself."""

from dataclasses import dataclass

from triscale.data import Data, Prepared
from triscale.models.model import Model


@dataclass(frozen=True, eq=False)
class Ready:
    """What a plan is carried out with: the model before its first step, and the images as it sees them."""

    model: Model
    images: Data
    training: Prepared
    held_out: Prepared
    test: Prepared
