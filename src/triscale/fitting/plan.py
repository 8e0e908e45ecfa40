"""The plan of a run: decided before training starts, and frozen."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from triscale.arch import Architecture, adapt, to_dict
from triscale.data import Data, Preprocess, statistics
from triscale.scaling import RULES, Budget, Rule, Scaled, TooSmallError, solve
from triscale.scaling.summary import summary
from triscale.training import Machine, Recipe
from triscale.training.recipe import regularised

SMALLEST_SIDE = 16  # pixels: smaller images are enlarged to it
LARGEST_SIDE = 224  # pixels: the baselines were designed for it; the rule may go above
LONGEST_SIDE = 1024  # pixels: of very elongated images, which are squashed to it
PHOTOGRAPH = 64  # pixels: from here on a random crop of a third still shows something


@dataclass(frozen=True)
class Plan:
    """Which network, seen through which preprocessing, trained how, where."""

    scaled: Scaled
    architecture: Architecture
    preprocess: Preprocess
    recipe: Recipe
    machine: Machine
    steps: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "baseline": to_dict(self.scaled.baseline),
            "architecture": to_dict(self.architecture),
            "scaling": summary(self.scaled),
            "preprocess": self.preprocess.to_json(),
            "recipe": asdict(self.recipe),
            "machine": asdict(self.machine),
            "steps": self.steps,
            "seed": self.seed,
        }


def image_resolution(data: Data) -> tuple[int, int]:
    """The baseline's resolution for these images, (height, width).

    Their own size, where all have it, with the shorter side between 16 and 224 pixels and the longer at most 1024;
    otherwise a square of the median image's shorter side, within the same bounds.
    """
    height, width = data.size if data.uniform else (min(data.size),) * 2
    short = min(height, width)
    wanted = min(max(short, SMALLEST_SIDE), LARGEST_SIDE)
    return min(round(height * wanted / short), LONGEST_SIDE), min(round(width * wanted / short), LONGEST_SIDE)


def check_recipe(epochs: int, batch: int | None) -> None:
    """What of a recipe can be wrong before the images are known. Raises `UserError`."""
    Recipe(epochs=epochs, batch=2 if batch is None else batch)


def make_recipe(data: Data, epochs: int, batch: int | None, flip: bool | None) -> Recipe:
    """The recipe for these images: photographs are cropped and mirrored, small or gray images only shifted a little."""
    photographs = min(data.size) >= PHOTOGRAPH and not data.uniform
    size = min(128, max(8, len(data.train) // 16)) if batch is None else batch
    return Recipe(
        epochs=epochs,
        batch=size,
        flip=data.channels == 3 if flip is None else flip,
        crop=0.35 if photographs else None,
    )


def scale_to(baseline: Architecture, rule: Rule | None, budget: Budget) -> Scaled:
    """The baseline scaled to the budget by the rule; without one, by what suits the direction.

    Growing takes the paper's compound rule. Shrinking takes width alone, which keeps every pixel of images that have
    few, and `tiny` where the narrowest network is still too large. Raises `UserError` for an impossible budget.
    """
    if rule is not None:
        return solve(baseline, rule, budget)
    if budget.used(budget.values(baseline)) <= 1:
        return solve(baseline, RULES["compound"], budget)
    try:
        return solve(baseline, RULES["width"], budget)
    except TooSmallError:
        return solve(baseline, RULES["tiny"], budget)


def make_network(data: Data, baseline: Architecture, rule: Rule | None, budget: Budget) -> tuple[Scaled, Architecture]:
    """The baseline adapted to the images, grown or shrunk to the budget, and that network regularised for its size."""
    adapted = adapt(baseline, resolution=image_resolution(data), channels=data.channels, classes=len(data.classes))
    scaled = scale_to(adapted, rule, budget)
    named = replace(regularised(scaled.architecture, baseline), name=f"{baseline.name[:100]}-fit")
    return scaled, named


def make_preprocess(data: Data, architecture: Architecture) -> Preprocess:
    """Mean and deviation of the training images; centre crops of 87.5 % only for photographs of different sizes."""
    crop = 1.0 if data.uniform or min(data.size) < PHOTOGRAPH else 0.875
    mean, std = statistics(data.train, architecture.resolution, architecture.channels, crop=crop)
    squash = data.uniform and max(image_resolution(data)) == LONGEST_SIDE
    return Preprocess(architecture.resolution, architecture.channels, mean, std, crop=crop, squash=squash)
