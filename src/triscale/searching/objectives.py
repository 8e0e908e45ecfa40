"""What a candidate is worth: accuracy under a limit, or accuracy and cost in one number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from triscale.errors import UserError
from triscale.scaling.budget import check_limits

Kind = Literal["constraint", "hard", "abs", "paper"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WEIGHING: tuple[Kind, ...] = ("abs", "paper")  # cost against accuracy, by an exponent
ABOUT: Mapping[str, str] = {
    "constraint": "the best accuracy with every cost under its limit",
    "hard": "accuracy, times limit/cost where the cost is above the limit (MnasNet, equation 2 with α = 0, β = -1)",
    "abs": "accuracy - |w|·|cost/limit - 1| (TuNAS, Bender et al. 2020)",
    "paper": "accuracy × (cost/limit)^w (EfficientNet, section 4; MnasNet, equation 2)",
}
EXPONENT = -0.07  # the paper's w: twice the cost must buy 5 % of the accuracy
BAND = (0.85, 1.0)  # of the limit, where candidates are looked for: below it accuracy is given away
SOFT = (0.5, 2.0)  # the same where cost and accuracy are weighed, and cost may go either way


@dataclass(frozen=True)
class Objective:
    """limits: by term, see `scaling.Budget`; several for `constraint` only. exponent: w of `paper`, and of `abs`."""

    limits: Mapping[str, float]
    kind: Kind = "constraint"
    exponent: float = EXPONENT

    def __post_init__(self) -> None:
        check_limits(self.limits)
        if self.kind not in KINDS:
            raise UserError(f"--objective {self.kind!r}: is none; take {', '.join(KINDS)}")
        if self.kind != "constraint" and len(self.limits) > 1:
            raise UserError(
                f"--objective {self.kind}: weighs one cost, not {' and '.join(self.limits)}; name one limit"
            )
        if not -10 <= self.exponent <= 0:
            raise UserError(f"--exponent {self.exponent:g}: from -10 to 0; the paper's is {EXPONENT:g}")

    @property
    def band(self) -> tuple[float, float]:
        """The least and the most of the limits that a candidate uses."""
        return BAND if self.kind == "constraint" else SOFT

    def used(self, costs: Mapping[str, float]) -> float:
        """The largest share of a limit that is used."""
        return max(costs[term] / limit for term, limit in self.limits.items())

    def admits(self, costs: Mapping[str, float]) -> bool:
        """Whether a network of these costs is worth a training."""
        low, high = self.band
        return low <= self.used(costs) <= high

    def value(self, accuracy: float, costs: Mapping[str, float]) -> float:
        """What a network of this accuracy and these costs is worth; larger is better."""
        used = self.used(costs)
        if self.kind == "constraint":
            return accuracy if used <= 1 else 0.0
        if self.kind == "hard":
            return accuracy / max(1.0, used)
        if self.kind == "abs":
            return accuracy + self.exponent * abs(used - 1)
        return float(accuracy * used**self.exponent)
