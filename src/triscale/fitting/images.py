"""What the images themselves decide: the resolution to start from, the preprocessing, the recipe."""

from triscale.arch import Architecture
from triscale.data import Data, Preprocess, statistics
from triscale.fitting.wish import Wish
from triscale.training import Recipe, named, resolve
from triscale.training.recipes import PHOTOGRAPH

SMALLEST_SIDE = 16  # pixels: smaller images are enlarged to it
LARGEST_SIDE = 224  # pixels: the baselines were designed for it; the rule may go above
LONGEST_SIDE = 1024  # pixels: of very elongated images, which are squashed to it


def image_resolution(data: Data) -> tuple[int, int]:
    """The baseline's resolution for these images, (height, width).

    Their own size, where all have it, with the shorter side between 16 and 224 pixels and the longer at most 1024;
    otherwise a square of the median image's shorter side, within the same bounds.
    """
    height, width = data.size if data.uniform else (min(data.size),) * 2
    short = min(height, width)
    wanted = min(max(short, SMALLEST_SIDE), LARGEST_SIDE)
    return min(round(height * wanted / short), LONGEST_SIDE), min(round(width * wanted / short), LONGEST_SIDE)


def make_preprocess(data: Data, architecture: Architecture, wish: Wish) -> Preprocess:
    """How the network sees the images; weights bring the preprocessing that they were learned with."""
    return fitting_preprocess(data, architecture) if wish.weights is None else wish.weights.preprocess


def fitting_preprocess(data: Data, architecture: Architecture) -> Preprocess:
    """Mean and deviation of the training images; centre crops of 87.5 % only for photographs of different sizes."""
    crop = 1.0 if data.uniform or min(data.size) < PHOTOGRAPH else 0.875
    mean, std = statistics(data.train, architecture.resolution, architecture.channels, crop=crop)
    squash = data.uniform and max(image_resolution(data)) == LONGEST_SIDE
    return Preprocess(architecture.resolution, architecture.channels, mean, std, crop=crop, squash=squash)


def make_recipe(data: Data, wish: Wish) -> Recipe:
    """The recipe for these images; for weights that are given the one for fine-tuning."""
    return scratch_recipe(data, wish) if wish.weights is None else _resolved("finetune", data, wish)


def scratch_recipe(data: Data, wish: Wish) -> Recipe:
    """For a network that knows nothing."""
    return _resolved("quick", data, wish)


def _resolved(name: str, data: Data, wish: Wish) -> Recipe:
    return resolve(named(name).recipe, data, batch=wish.batch, flip=wish.flip, balance=wish.balance)
