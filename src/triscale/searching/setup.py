"""What a search holds fixed for all its trials, frozen in run.json before the first."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.errors import UserError
from triscale.plain import from_plain, to_plain
from triscale.scaling.budget import MEASURED
from triscale.searching.networks import NetworkSpace, space_from_dict
from triscale.searching.objectives import Objective
from triscale.searching.space import Codes
from triscale.training import Recipe, regularised
from triscale.trials import Entry, How, Trial
from triscale.units import format_epochs

REFERENCE = "reference"
COST = "cost."  # before the name of a measured cost among a trial's parameters


@dataclass(frozen=True)
class Setup:
    """One space, one objective, one recipe, one way to compute.

    images: of a trial. rungs: the epochs of each, the last is a full training. pace: seconds of an image and a
    multiply-add in a step with everything around it. judged: images that a trial judges, in trained ones; selection:
    how many that is. time: seconds for all of it, or None; candidates: how many are tried, or None for what the time
    allows. quiet: seconds of an image through the reference before any trial ran, where latency is limited. beside:
    other searches that the page shows.
    """

    space: NetworkSpace
    objective: Objective
    strategy: str
    recipe: Recipe
    images: int
    rungs: tuple[int, ...]
    how: How
    workers: int
    seed: int
    data: str
    pace: float
    judged: float
    selection: int
    time: float | None
    candidates: int | None
    quiet: float | None = None
    beside: tuple[str, ...] = ()

    @property
    def reference(self) -> Architecture:
        """The network that the space lies around."""
        return self.space.reference

    @property
    def top(self) -> int:
        """The epochs of a full training."""
        return self.rungs[-1]

    def network(self, codes: Codes) -> Architecture:
        """As it is trained: with the reference's regularisation, by the same rule for all."""
        return regularised(self.space.network(codes, name="candidate"), self.reference)

    def trial(self, network: Architecture, epochs: int, seed: int) -> Trial:
        """A training of so many epochs with the seed of that position."""
        recipe = self.recipe.lasting(epochs)
        return Trial(network, recipe, self.data, self.images, self.seed + seed, self.how)

    def entry(
        self, codes: Codes | None, epochs: int, seed: int, label: str, costs: Mapping[str, float] = MappingProxyType({})
    ) -> Entry:
        """What the ledger is told: a candidate by the integers of its choices; the reference by none."""
        network = regularised(self.reference, self.reference) if codes is None else self.network(codes)
        parameters = {} if codes is None else dict(zip(self.space.space.names, map(float, codes), strict=True))
        parameters |= {"epochs": float(epochs), "seed": float(seed)}
        if codes is not None:
            parameters |= {f"{COST}{term}": value for term, value in costs.items() if term in MEASURED}
        return Entry(
            self.trial(network, epochs, seed), f"{label}, {format_epochs(epochs)}, seed {self.seed + seed}", parameters
        )

    def measured(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """The costs of a candidate that were measured when it was first asked for."""
        return {term: parameters[f"{COST}{term}"] for term in MEASURED if f"{COST}{term}" in parameters}

    def codes(self, parameters: Mapping[str, float]) -> Codes | None:
        """The inverse: which candidate a trial of the ledger was of; None for the reference."""
        names = self.space.space.names
        return tuple(int(parameters[name]) for name in names) if names[0] in parameters else None

    def seconds(self, network: Architecture, epochs: int) -> float:
        """What a trial is expected to take."""
        return self.pace * cost(network).macs * (self.images * epochs + self.judged)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives an equal one back."""
        fixed = {"strategy": self.strategy, "images": self.images, "rungs": list(self.rungs), "workers": self.workers}
        fixed |= {"seed": self.seed, "data": self.data, "pace": self.pace, "judged": self.judged, "time": self.time}
        fixed |= {"selection": self.selection}
        fixed |= {"candidates": self.candidates, "quiet": self.quiet, "beside": list(self.beside)}
        objective = {"limits": dict(self.objective.limits), "kind": self.objective.kind}
        return fixed | {
            "space": self.space.to_dict(),
            "objective": objective | {"exponent": self.objective.exponent},
            "recipe": to_plain(self.recipe),
            "how": to_plain(self.how),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str) -> "Setup":
        """Raises `UserError` where another version wrote it, or it is damaged."""
        try:
            plain = {
                key: values[key]
                for key in ("strategy", "images", "workers", "seed", "data", "pace", "judged", "selection")
            }
            return cls(
                **plain,
                **{key: values[key] for key in ("time", "candidates", "quiet")},
                rungs=tuple(values["rungs"]),
                beside=tuple(values["beside"]),
                space=space_from_dict(values["space"], source),
                objective=Objective(**values["objective"]),
                recipe=from_plain(Recipe, values["recipe"], source, "setup.recipe"),
                how=from_plain(How, values["how"], source, "setup.how"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source}: not a search that this version can go on with ({error!r})") from None
