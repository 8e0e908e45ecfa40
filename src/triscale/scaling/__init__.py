"""How a network grows: multipliers, rules, budgets, the solver. No torch."""

from triscale.scaling.budget import Budget
from triscale.scaling.multipliers import Coefficients, Exponents, Multipliers
from triscale.scaling.rules import RULES, Capped, Power, Rule, Tiny, find_rule
from triscale.scaling.solver import Scaled, TooSmallError, grow, solve
from triscale.scaling.suiting import scale_to
from triscale.scaling.trim import Step

__all__ = [
    "RULES",
    "Budget",
    "Capped",
    "Coefficients",
    "Exponents",
    "Multipliers",
    "Power",
    "Rule",
    "Scaled",
    "Step",
    "Tiny",
    "TooSmallError",
    "find_rule",
    "grow",
    "scale_to",
    "solve",
]
