"""What a request for trainings gets wrong that this machine or a recipe knows: said before an image is looked at."""

from triscale.kernels import status
from triscale.training.machine import find_device
from triscale.training.recipe import Recipe


def check_training(device: str | None, epochs: int | None = None, batch: int | None = None) -> None:
    """Raises `UserError` for a device that is not here, a setting of the kernels that is none, and numbers of epochs or
    of images a step that no recipe takes; None leaves it open."""
    find_device(device)
    status()  # names a wrong setting of them
    Recipe(epochs=1 if epochs is None else epochs, batch=2 if batch is None else batch)
