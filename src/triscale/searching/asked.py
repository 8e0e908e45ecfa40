"""What a search is called with, checked before a single image is looked at."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from triscale.arch import ZOO, Architecture, resolve, to_dict
from triscale.asking import check_count, check_seed, check_time
from triscale.errors import UserError
from triscale.plain import to_plain
from triscale.searching.halving import FEWEST
from triscale.searching.networks import SPACES, space_file
from triscale.searching.objectives import EXPONENT, KINDS, WEIGHING, Objective
from triscale.searching.strategies import STRATEGIES
from triscale.training import NamedRecipe, find_recipe
from triscale.training.asking import check_training
from triscale.training.machine import find_device
from triscale.training.session import FEWEST as LEAST


@dataclass(frozen=True)
class Asked:
    """None leaves it to the images, the machine or the time. limits: by term. reference: what the space lies around.
    calibrate: w is measured before. candidates: how many are tried. cluster: the address of a Ray cluster; "" for one
    that is begun here. beside: run directories of other searches that the page shows. Raises `UserError` for a value
    that is none; see `check_enough` for what is missing."""

    limits: Mapping[str, float]
    reference: str | Path | Architecture | None = None
    space: str | Path = "around"
    objective: str = "constraint"
    exponent: float | None = None
    calibrate: bool = False
    strategy: str = "evolution"
    time: float | None = None
    candidates: int | None = None
    images: int | None = None
    epochs: int | None = None
    resolution: tuple[int, int] | None = None
    recipe: NamedRecipe | None = None
    seed: int = 0
    workers: int | None = None
    device: str | None = None
    cluster: str | None = None
    on_bad: Literal["error", "skip"] = "error"
    beside: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(f"--strategy {self.strategy!r}: is none; take {', '.join(STRATEGIES)}")
        check_extent(self.time, self.candidates)
        check_count("images", self.images, LEAST)
        check_count("epochs", self.epochs)
        check_count("workers", self.workers)
        check_seed(self.seed)
        if str(self.space) not in SPACES:
            space_file(self.space)
        elif self.reference is not None:
            _ = self.network
        check_training(self.device, self.epochs)

    def check_enough(self) -> None:
        """Raises `UserError` where something is missing to begin a search by it, or does not go together."""
        self.wanted()
        if self.calibrate and self.objective != "paper":
            raise UserError("--calibrate measures the w of the paper's objective; say --objective paper too")
        if self.exponent is not None and self.objective not in WEIGHING:
            raise UserError(
                f"--exponent {self.exponent:g}: is the w of the objectives paper and abs; say --objective paper too"
            )
        if self.exponent is not None and self.calibrate:
            raise UserError(f"--exponent {self.exponent:g}: --calibrate measures it; leave one of the two out")
        if self.time is None and self.candidates is None:
            raise UserError("say how long it may take: --time 1h; or how many networks to try: --candidates 50")
        if str(self.space) not in SPACES and self.reference is not None:
            raise UserError(f"--space {self.space}: a file brings its own reference; leave --reference out")

    def wanted(self) -> Objective:
        """The objective. Raises `UserError`."""
        if self.objective not in KINDS:
            raise UserError(f"--objective {self.objective!r}: is none; take {', '.join(KINDS)}")
        return Objective(self.limits, self.objective, EXPONENT if self.exponent is None else self.exponent)

    @property
    def published(self) -> bool:
        """Whether the reference is one of the zoo or left to the images: then it is adapted to them."""
        return not isinstance(self.reference, Architecture) and (self.reference is None or str(self.reference) in ZOO)

    @property
    def network(self) -> Architecture | None:
        """The reference as named; of a space that is a file, its own; None where the images decide. Raises
        `UserError`."""
        if str(self.space) not in SPACES:
            return space_file(self.space).reference
        named = self.reference
        return resolve(named) if isinstance(named, str | Path) else named

    @property
    def recipe_named(self) -> NamedRecipe:
        """The recipe, `quick` if none is named."""
        return self.recipe or find_recipe("quick")

    def fixed(self) -> dict[str, Any]:
        """What all trials share, as JSON: a search that goes on cannot change it."""
        return {
            "verb": "search",
            "limits": dict(self.limits),
            "reference": None if (named := self.network) is None else to_dict(named),
            "space": str(self.space) if str(self.space) in SPACES else space_file(self.space).to_dict(),
            "objective": self.objective,
            "exponent": EXPONENT if self.exponent is None else self.exponent,
            "calibrate": self.calibrate,
            "strategy": self.strategy,
            "images": self.images,
            "epochs": self.epochs,
            "resolution": None if self.resolution is None else list(self.resolution),
            "recipe": to_plain(self.recipe_named.recipe),
            "seed": self.seed,
            "on_bad": self.on_bad,
        }

    def named(self, said: Collection[str]) -> dict[str, Any]:
        """Of what all trials share, each limit by its term, and of the device, the fields that are in `said`: what
        `resume_search` compares."""
        shared = by_term(self.fixed()) | {"device": find_device(self.device).type}
        return {key: value for key, value in shared.items() if key in said}


def by_term(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What `Asked.fixed` gives, with each limit in its own place, as it is typed."""
    return {**fixed, **fixed.get("limits", {})}


def check_extent(time: float | None, candidates: int | None) -> None:
    """Raises `UserError` for a time that is not positive, and for candidates too few to search among."""
    check_time(time, "1h")
    if candidates is not None and candidates < FEWEST:
        raise UserError(f"--candidates {candidates}: at least {FEWEST}; fewer are no search")
