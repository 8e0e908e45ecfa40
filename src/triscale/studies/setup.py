"""What a study holds fixed for all its trials, and what it chose from the ladder; both frozen in run.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triscale.arch import Architecture, from_dict, to_dict
from triscale.errors import UserError
from triscale.plain import from_plain, to_plain
from triscale.studies.designs import Arm, Design
from triscale.studies.growing import Grown, grow_arm
from triscale.studies.planning import Effort, Fidelity
from triscale.training import Recipe
from triscale.trials import Entry, How, Trial


@dataclass(frozen=True)
class Setup:
    """One recipe, one fidelity, one way to compute, the same seeds: what all arms share.

    data: fingerprint. pixels: (h, w) of the images, None where they differ. workers: trials at once. seed: of the first
    one; the others count on from there.
    """

    baseline: Architecture
    factor: float
    recipe: Recipe
    fidelity: Fidelity
    how: How
    workers: int
    seed: int
    data: str
    pixels: tuple[int, int] | None
    effort: Effort

    def trial(self, network: Architecture, seed: int) -> Trial:
        """A network's training with the seed of that position."""
        return Trial(network, self.recipe, self.data, self.fidelity.images, self.seed + seed, self.how)

    def grow(self, arm: Arm, factor: float) -> Grown:
        """The arm at a factor."""
        return grow_arm(self.baseline, arm, factor, self.pixels)

    def entry(self, grown: Grown | None, seed: int) -> Entry:
        """What the ledger is told; of the baseline for none."""
        network = self.baseline if grown is None else grown.network
        shares = grown.arm.point if grown else (0.0, 0.0, 0.0)
        parameters = dict(zip(("depth", "width", "resolution"), shares, strict=True))
        parameters |= {"factor": grown.factor if grown else 1.0, "seed": float(self.seed + seed)}
        label = f"{grown.label if grown else 'baseline'}, seed {self.seed + seed}"
        return Entry(self.trial(network, seed), label, parameters)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives an equal one back."""
        values = {"baseline": to_dict(self.baseline), "factor": self.factor, "recipe": to_plain(self.recipe)}
        values |= {"fidelity": to_plain(self.fidelity), "how": to_plain(self.how), "workers": self.workers}
        values |= {"seed": self.seed, "data": self.data, "pixels": None if self.pixels is None else list(self.pixels)}
        return values | {"effort": to_plain(self.effort)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str) -> "Setup":
        """Raises `UserError` where another version wrote it, or it is damaged."""
        try:
            return cls(
                baseline=from_dict(values["baseline"], source),
                factor=values["factor"],
                recipe=from_plain(Recipe, values["recipe"], source, "setup.recipe"),
                fidelity=from_plain(Fidelity, values["fidelity"], source, "setup.fidelity"),
                how=from_plain(How, values["how"], source, "setup.how"),
                workers=values["workers"],
                seed=values["seed"],
                data=values["data"],
                pixels=None if values["pixels"] is None else tuple(values["pixels"]),
                effort=from_plain(Effort, values["effort"], source, "setup.effort"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source}: not a study that this version can go on with ({error!r})") from None


@dataclass(frozen=True)
class Choice:
    """The rung that was taken. noise: sd of a run's accuracy as the baseline's runs showed it. ladder: as printed."""

    design: Design
    seeds: int
    twice: bool
    noise: float
    ladder: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = {"design": to_plain(self.design), "seeds": self.seeds, "twice": self.twice}
        return values | {"noise": self.noise, "ladder": [dict(line) for line in self.ladder]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str) -> "Choice":
        """Raises `UserError` where another version wrote it, or it is damaged."""
        try:
            design = from_plain(Design, values["design"], source, "choice.design")
            ladder = tuple(values["ladder"])
            return cls(design, values["seeds"], values["twice"], values["noise"], ladder)
        except (KeyError, TypeError) as error:
            raise UserError(f"{source}: not a study that this version can go on with ({error!r})") from None
