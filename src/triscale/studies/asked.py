"""What a study is called with, checked before a single image is looked at."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from triscale.arch import ZOO, Architecture, resolve, to_dict
from triscale.asking import check_count, check_seed
from triscale.errors import UserError
from triscale.plain import to_plain
from triscale.studies.wanted import Wanted
from triscale.training import NamedRecipe, find_recipe
from triscale.training.asking import check_training
from triscale.training.machine import find_device
from triscale.training.session import FEWEST as LEAST

LARGEST_FACTOR = 16.0


@dataclass(frozen=True)
class Asked:
    """None leaves it to the images, the machine or the time. wanted: what decides the design. macs: of the baseline.
    cluster: the address of a Ray cluster; "" for one that is begun here. Raises `UserError` for a value that is none;
    see `check_enough` for what is missing."""

    baseline: str | Path | Architecture
    wanted: Wanted
    factor: float = 2.0
    images: int | None = None
    epochs: int | None = None
    macs: float | None = None
    resolution: tuple[int, int] | None = None
    recipe: NamedRecipe | None = None
    seed: int = 0
    workers: int | None = None
    device: str | None = None
    cluster: str | None = None
    on_bad: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 1 < self.factor <= LARGEST_FACTOR:
            raise UserError(
                f"--factor {self.factor:g}: how many times the baseline's MACs, above 1, at most {LARGEST_FACTOR:g}"
            )
        check_count("images", self.images, LEAST)
        check_count("epochs", self.epochs)
        check_count("workers", self.workers)
        check_seed(self.seed)
        check_training(self.device, self.epochs)

    @property
    def published(self) -> bool:
        """Whether the baseline is one of the zoo, which is adapted to the images."""
        return not isinstance(self.baseline, Architecture) and str(self.baseline) in ZOO

    @property
    def network(self) -> Architecture:
        """The baseline as named. Raises `UserError`."""
        return self.baseline if isinstance(self.baseline, Architecture) else resolve(self.baseline)

    @property
    def recipe_named(self) -> NamedRecipe:
        """The recipe, `quick` if none is named."""
        return self.recipe or find_recipe("quick")

    def check_enough(self) -> None:
        """Raises `UserError` where something is missing to begin a study by it, or does not go together."""
        if self.wanted.time is None and (self.wanted.seeds is None or self.epochs is None):
            raise UserError("say how long it may take: --time 1h; or how much to train: --seeds 3 --epochs 6")
        _ = self.wanted.rungs  # says what does not go together

    def fixed(self) -> dict[str, Any]:
        """The verb, and what all trials share, as JSON: a study that goes on cannot change it. A file counts by what it
        holds. Raises `UserError`."""
        return {
            "verb": "study",
            "baseline": to_dict(self.network),
            "factor": self.factor,
            "images": self.images,
            "epochs": self.epochs,
            "macs": self.macs,
            "resolution": None if self.resolution is None else list(self.resolution),
            "recipe": to_plain(self.recipe_named.recipe),
            "seed": self.seed,
            "on_bad": self.on_bad,
        }

    def named(self, said: Collection[str]) -> dict[str, Any]:
        """Of what all trials share, and of the device, the fields that are in `said`: what `resume_study` compares."""
        shared = self.fixed() | {"device": find_device(self.device).type}
        return {key: value for key, value in shared.items() if key in said}
