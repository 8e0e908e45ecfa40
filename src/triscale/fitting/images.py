"""What the images and the wish decide together: the preprocessing and the recipe."""

from triscale.arch import Architecture
from triscale.data import Data, Preprocess, fitting_preprocess
from triscale.fitting.wish import Wish
from triscale.training import Recipe, named, resolve


def make_preprocess(data: Data, architecture: Architecture, wish: Wish) -> Preprocess:
    """How the network sees the images; weights bring the preprocessing that they were learned with."""
    return fitting_preprocess(data, architecture) if wish.weights is None else wish.weights.preprocess


def make_recipe(data: Data, wish: Wish) -> Recipe:
    """The recipe for these images; for weights that are given the one for fine-tuning."""
    return scratch_recipe(data, wish) if wish.weights is None else _resolved("finetune", data, wish)


def scratch_recipe(data: Data, wish: Wish) -> Recipe:
    """For a network that knows nothing."""
    return _resolved("quick", data, wish)


def _resolved(name: str, data: Data, wish: Wish) -> Recipe:
    return resolve(named(name).recipe, data, batch=wish.batch, flip=wish.flip, balance=wish.balance)
