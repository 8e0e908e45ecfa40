"""Which epoch's weights are kept, where validation decides it."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from triscale.models.model import Model
from triscale.training.watching import Validation


@dataclass
class Best:
    """Where the recipe has patience: the model of the last epoch whose validation loss is within a standard error of
    the lowest (Breiman et al. 1984, section 3.4.3). What few images cannot tell apart, the longer training decides."""

    patience: int | None
    model: Model | None = None
    lowest: Validation | None = None
    epoch: int = 0

    def consider(self, epoch: int, model: Model, validation: Validation) -> None:
        """After that epoch, from 1."""
        if self.patience is None:
            return
        if self.lowest is None or validation.loss < self.lowest.loss:
            self.lowest = validation
        elif not validation.loss <= self.lowest.loss + self.lowest.error:
            return
        self.model, self.epoch = deepcopy(model), epoch

    def settled(self, epoch: int) -> bool:
        """Whether so many epochs went by without a better one that no more are made."""
        return self.patience is not None and self.model is not None and epoch - self.epoch >= self.patience

    def values(self) -> dict[str, Any]:
        """For a checkpoint, beside the model's tensors."""
        return {"epoch": self.epoch, "lowest": None if self.lowest is None else asdict(self.lowest)}

    def restore(self, values: dict[str, Any], like: Model, tensors: dict[str, Tensor]) -> None:
        """Back to what `values` and the model's tensors say; like: a model of the same kind."""
        self.epoch = values["epoch"]
        self.lowest = None if values["lowest"] is None else Validation(**values["lowest"])
        self.model = None
        if tensors:
            self.model = deepcopy(like)
            self.model.load_state_dict(tensors)
            self.model.trained = True
