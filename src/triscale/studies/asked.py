"""What a study is called with, checked before a single image is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from triscale.arch import ZOO, Architecture, resolve, to_dict
from triscale.asking import check_count, check_seed
from triscale.errors import UserError
from triscale.plain import short, to_plain
from triscale.studies.wanted import Wanted
from triscale.training import NamedRecipe, find_recipe
from triscale.training.asking import check_training
from triscale.units import format_count

LARGEST_FACTOR = 16.0


@dataclass(frozen=True)
class Asked:
    """None leaves it to the images, the machine or the time. wanted: what decides the design. macs: of the baseline.
    cluster: the address of a Ray cluster; "" for one that is begun here."""

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
        if self.wanted.time is None and (self.wanted.seeds is None or self.epochs is None):
            raise UserError("say how long it may take: --time 1h; or how much to train: --seeds 3 --epochs 6")
        _ = self.wanted.rungs  # says now what does not go together
        check_count("images", self.images)
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

    def fixed(self) -> dict[str, Any]:
        """The verb, and what all trials share; see `shared_values`."""
        return {"verb": "study"} | shared_values(
            baseline=self.baseline,
            factor=self.factor,
            images=self.images,
            epochs=self.epochs,
            macs=self.macs,
            resolution=self.resolution,
            recipe=self.recipe,
            seed=self.seed,
            on_bad=self.on_bad,
        )


def shared_values(
    *,
    baseline: str | Path | Architecture,
    factor: float,
    images: int | None,
    epochs: int | None,
    macs: float | None,
    resolution: tuple[int, int] | None,
    recipe: NamedRecipe | None,
    seed: int,
    on_bad: str,
) -> dict[str, Any]:
    """What all trials share, as JSON: a study that goes on cannot change it. A file counts by what it holds. Raises
    `UserError`."""
    network = baseline if isinstance(baseline, Architecture) else resolve(baseline)
    named = recipe or find_recipe("quick")
    return {
        "baseline": to_dict(network),
        "factor": factor,
        "images": images,
        "epochs": epochs,
        "macs": macs,
        "resolution": None if resolution is None else list(resolution),
        "recipe": to_plain(named.recipe),
        "seed": seed,
        "on_bad": on_bad,
    }


def check_same(named: Mapping[str, Any], before: Mapping[str, Any], in_effect: Mapping[str, Any], place: Path) -> None:
    """Raises `UserError` where what all trials share is named anew, and is neither what the study was begun with nor
    what came of that."""
    for key, value in named.items():
        if value not in (before.get(key), in_effect.get(key)):
            was = in_effect.get(key, before.get(key))
            option = f"--{key.replace('_', '-')}"
            what = "another one" if isinstance(was, dict) else "none" if was is None else _typed(key, was)
            said = option if isinstance(value, dict) else f"{option} {_typed(key, value)}"
            raise UserError(
                f"{said}: {place} was begun with {what}, and all trials share it; leave {option} out to go on, or name "
                "another --out"
            )


def _typed(key: str, value: object) -> str:
    """A value as people type it."""
    if key == "macs" and isinstance(value, int | float):
        return format_count(value)
    if key == "resolution" and isinstance(value, list):
        return "x".join(map(str, value))
    return short(value)
