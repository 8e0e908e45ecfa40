"""What a study is called with, checked before a single image is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from triscale.arch import ZOO, Architecture, resolve, to_dict
from triscale.errors import UserError
from triscale.kernels import status
from triscale.plain import to_plain
from triscale.studies.designs import Design, find_design, read_design
from triscale.studies.planning import check_least
from triscale.training import NamedRecipe, Recipe, find_recipe
from triscale.training.machine import find_device

LARGEST_FACTOR = 16.0
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Asked:
    """None leaves it to the images, the machine or the time. macs: of the baseline. again:
    whether the best arms are trained at the squared factor too. arms: designs whose arms are added.
    cluster: the address of a Ray cluster; "" for one that is begun here."""

    baseline: str | Path | Architecture
    factor: float = 2.0
    time: float | None = None
    design: Design | None = None
    arms: tuple[Design, ...] = ()
    seeds: int | None = None
    again: bool | None = None
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
            raise UserError(f"--factor {self.factor:g}: how many times the baseline's MACs, above 1, at most 16")
        if self.time is None and (self.seeds is None or self.epochs is None):
            raise UserError("say how long it may take: --time 1h; or how much to train: --seeds 3 --epochs 6")
        if self.time is not None and not 0 < self.time < float("inf"):
            raise UserError(f"--time of {self.time:g} seconds is not positive; write for example 1h")
        for option, value in {"images": self.images, "epochs": self.epochs, "workers": self.workers}.items():
            if value is not None and value < 1:
                raise UserError(f"--{option} {value}: at least 1")
        if self.seeds is not None:
            check_least(self.design, self.seeds)
            if self.seeds > MOST_SEEDS:
                raise UserError(f"--seeds {self.seeds}: at most {MOST_SEEDS}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed}: a seed is from 0 to {2**31 - 1}")
        find_device(self.device)
        status()  # names a wrong setting of them
        Recipe(epochs=1 if self.epochs is None else self.epochs)

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
        """What all trials share, as JSON: a study that goes on cannot change it. A file counts by what it holds."""
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


def check_same(asked: Asked, before: Mapping[str, Any], given: frozenset[str], place: Path) -> None:
    """Raises `UserError` where what is given now differs from what the study was begun with."""
    for key, value in asked.fixed().items():
        if key in given and value != before.get(key):
            raise UserError(
                f"--{key.replace('_', '-')} is not what {place} was begun with; all trials share it: leave it out to "
                "go on, or name another --out"
            )


def make_designs(design: str | Path | None, arms: tuple[Path, ...]) -> tuple[Design | None, tuple[Design, ...]]:
    """The design that is named, and those whose arms are added to it. Raises `UserError`."""
    more = tuple(read_design(path, "--arms") for path in arms)
    if design is None:
        return None, more
    found = find_design(design)
    for one in more:
        found = found.with_arms(one.arms)
    return found, more
