"""What the images themselves decide: the resolution to start from, the preprocessing, the recipe."""

import math
from dataclasses import replace

from triscale.arch import Architecture
from triscale.data import Data, Preprocess, statistics
from triscale.fitting.wish import Wish
from triscale.training import Recipe

SMALLEST_SIDE = 16  # pixels: smaller images are enlarged to it
LARGEST_SIDE = 224  # pixels: the baselines were designed for it; the rule may go above
LONGEST_SIDE = 1024  # pixels: of very elongated images, which are squashed to it
FINE_RATE, FINE_DECAY, FINE_CROP = 5e-4, 0.9, 0.5  # of fine-tuning; see `training.Recipe`
# Epochs in a row that validation finds worse: half of them all, for few images judge noisily while the rate is high.
PATIENCE, FEWEST_PATIENCE = 0.5, 5
PHOTOGRAPH = 64  # pixels: from here on a random crop of a third still shows something


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
    """Mean and deviation of the training images; centre crops of 87.5 % only for photographs of different sizes.

    Weights bring the preprocessing that they were learned with.
    """
    if wish.weights is not None:
        return wish.weights.preprocess
    crop = 1.0 if data.uniform or min(data.size) < PHOTOGRAPH else 0.875
    mean, std = statistics(data.train, architecture.resolution, architecture.channels, crop=crop)
    squash = data.uniform and max(image_resolution(data)) == LONGEST_SIDE
    return Preprocess(architecture.resolution, architecture.channels, mean, std, crop=crop, squash=squash)


def make_recipe(data: Data, wish: Wish) -> Recipe:
    """The recipe for these images, one epoch long; for weights that are given the one for fine-tuning."""
    scratch = scratch_recipe(data, wish)
    return scratch if wish.weights is None else fine_tuning(scratch)


def scratch_recipe(data: Data, wish: Wish) -> Recipe:
    """For a network that knows nothing: photographs are cropped and mirrored, small or gray images only shifted a
    little."""
    photographs = min(data.size) >= PHOTOGRAPH and not data.uniform
    return Recipe(
        epochs=1,
        batch=min(128, max(8, len(data.train) // 16)) if wish.batch is None else wish.batch,
        flip=data.channels == 3 if wish.flip is None else wish.flip,
        balance=wish.balance,
        crop=0.35 if photographs else None,
    )


def fine_tuning(recipe: Recipe) -> Recipe:
    """The recipe for weights that know much already: a gentle rate that falls from block to block towards the stem,
    normalisation as it was learned, and an end where validation no longer gets better."""
    return replace(
        recipe,
        rate=FINE_RATE,
        depth_decay=FINE_DECAY,
        frozen_norm=True,
        patience=FEWEST_PATIENCE,
        crop=None if recipe.crop is None else FINE_CROP,
    )


def lasting(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe for so many epochs."""
    patience = None if recipe.patience is None else max(FEWEST_PATIENCE, math.ceil(PATIENCE * epochs))
    return replace(recipe, epochs=epochs, patience=patience)
