"""What scales a network where nobody names a rule."""

from triscale.arch.spec import Architecture
from triscale.scaling.budget import Budget
from triscale.scaling.rules import RULES, Rule
from triscale.scaling.solver import Scaled, TooSmallError, solve


def scale_to(baseline: Architecture, rule: Rule | None, budget: Budget) -> Scaled:
    """The baseline scaled to the budget by the rule; without one, by what suits the direction.

    Growing takes the paper's compound rule. Shrinking takes `slim`, which keeps every pixel of images that have few,
    and `tiny` where the slimmest network is still too large. Raises `UserError` for an impossible budget.
    """
    if rule is not None:
        return solve(baseline, rule, budget)
    if budget.used(budget.values(baseline)) <= 1:
        return solve(baseline, RULES["compound"], budget)
    try:
        return solve(baseline, RULES["slim"], budget)
    except TooSmallError:
        return solve(baseline, RULES["tiny"], budget)
