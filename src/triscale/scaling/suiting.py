"""What scales a network where nobody names a rule."""

from dataclasses import dataclass

from triscale.arch.spec import Architecture
from triscale.errors import UserError
from triscale.scaling.budget import Budget
from triscale.scaling.multipliers import Multipliers
from triscale.scaling.rules import RULES, Rule
from triscale.scaling.solver import SMALLEST, Scaled, TooSmallError, grow, measuring_once, share_used, solve

WIDEST = 4.0  # d·w² where pixels are given up: what needs it is far below the baseline


@dataclass(frozen=True, slots=True)
class _Fewer:
    """`slim` with a share of the pixels on each side, whatever the factor."""

    share: float
    name: str = "slim with fewer pixels"
    moves_width: bool = True
    promise: float = 2.0  # φ counts doublings

    def at_factor(self, factor: float) -> Multipliers:
        if factor > WIDEST * self.share**2:
            raise UserError(f"a factor of {factor:.4g} is more than {self.name} is for")
        slim = RULES["slim"].at_factor(factor / self.share**2)
        return Multipliers(slim.depth, slim.width, self.share)

    def at_phi(self, phi: float) -> Multipliers:
        return self.at_factor(self.promise**phi)


def scale_to(baseline: Architecture, rule: Rule | None, budget: Budget) -> Scaled:
    """The baseline scaled to the budget by the rule; without one, by what suits the direction.

    Growing takes the paper's compound rule. Shrinking takes `slim`, which keeps every pixel of images that have few;
    where the slimmest network is still too large, it gives up as few pixels as that takes. Raises `UserError` for an
    impossible budget.
    """
    if rule is not None:
        return solve(baseline, rule, budget)
    budget = measuring_once(budget)
    if share_used(budget)(baseline) <= 1:
        return solve(baseline, RULES["compound"], budget)
    try:
        return solve(baseline, RULES["slim"], budget)
    except TooSmallError:
        return _with_fewer_pixels(baseline, budget)


def _with_fewer_pixels(baseline: Architecture, budget: Budget) -> Scaled:
    """Of the slimmest networks the one of most pixels that holds the budget, filled up to it by depth and width."""
    side, used = min(baseline.resolution), share_used(budget)
    fits, too_many = 1, side
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        slimmest = grow(baseline, _Fewer(middle / side), factor=SMALLEST).architecture
        if used(slimmest) <= 1:
            fits = middle
        else:
            too_many = middle
    for pixels in range(fits, 1, -1):
        try:
            return solve(baseline, _Fewer(pixels / side), budget)
        except TooSmallError:  # what is measured follows the pixels only roughly
            continue
    return solve(baseline, _Fewer(1 / side), budget)
