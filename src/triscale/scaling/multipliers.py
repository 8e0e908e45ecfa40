"""Multipliers, coefficients and exponents: three ways to say how a network grows, and the identities between them."""

import math
from dataclasses import dataclass

from triscale.errors import UserError

MAX_COEFFICIENT = 100.0  # one step of φ at most; no power of it within φ's range overflows


@dataclass(frozen=True, slots=True)
class Multipliers:
    """(d, w, r): depth, width and resolution relative to the baseline. All 1 is the baseline."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0

    @property
    def factor(self) -> float:
        """The nominal factor in MACs, d·w²·r² (paper, section 3.3): what the unrounded multipliers give."""
        return self.depth * self.width**2 * self.resolution**2


@dataclass(frozen=True, slots=True)
class Exponents:
    """Shares of a cost factor that go to depth, width and resolution; they sum to 1.

    For a factor s: d = s^depth, w = s^(width/2), r = s^(resolution/2), so that d·w²·r² = s exactly.
    Raises `UserError` for a negative share or another sum.
    """

    depth: float
    width: float
    resolution: float

    def __post_init__(self) -> None:
        shares = (self.depth, self.width, self.resolution)
        if not all(math.isfinite(share) and share >= 0 for share in shares):
            raise UserError(f"exponents {shares} must not be negative; each is a share of the cost factor")
        if not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise UserError(f"exponents {shares} sum to {sum(shares):g}; shares of one cost factor sum to 1")

    def at(self, factor: float) -> Multipliers:
        """The multipliers whose nominal factor is `factor` (above 0; below 1 shrinks)."""
        return Multipliers(factor**self.depth, factor ** (self.width / 2), factor ** (self.resolution / 2))

    def coefficients(self, product: float = 2.0) -> "Coefficients":
        """The α, β, γ with these shares and α·β²·γ² = `product`."""
        multipliers = self.at(product)
        return Coefficients(multipliers.depth, multipliers.width, multipliers.resolution)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """(α, β, γ) of the paper's equation 3, used as given: d = α^φ, w = β^φ, r = γ^φ.

    The paper's 1.2, 1.1, 1.15 have the product α·β²·γ² = 1.920, not 2. Raises `UserError` for a coefficient below 1,
    or where none is above 1.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        values = (self.alpha, self.beta, self.gamma)
        if not all(1 <= value <= MAX_COEFFICIENT for value in values):
            raise UserError(
                f"coefficients {values} must be at least 1 each (paper, equation 3), and at most {MAX_COEFFICIENT:g}"
            )
        if not self.product > 1:
            raise UserError(f"coefficients {values} grow nothing; at least one must be above 1")

    @property
    def product(self) -> float:
        """α·β²·γ²: the factor in MACs of one step of φ."""
        return self.alpha * self.beta**2 * self.gamma**2

    def at(self, phi: float) -> Multipliers:
        """The multipliers of step φ (any real number; below 0 shrinks)."""
        return Multipliers(self.alpha**phi, self.beta**phi, self.gamma**phi)

    def exponents(self) -> Exponents:
        """The same mix as shares of a cost factor, normalised: ln α, 2·ln β, 2·ln γ over ln(α·β²·γ²)."""
        total = math.log(self.product)
        # Not what the others leave of 1: a coefficient of 1 has a share of exactly 0, and its multiplier stays 1.
        return Exponents(
            math.log(self.alpha) / total, 2 * math.log(self.beta) / total, 2 * math.log(self.gamma) / total
        )
