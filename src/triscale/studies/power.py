"""What a study can see: the smallest difference of two arms that so many seeds tell from chance."""

import math

from scipy import optimize, stats  # type: ignore[import-untyped]

from triscale.errors import UserError

POWER = 0.8
LEVEL = 0.05


def power(shift: float, df: int, level: float = LEVEL) -> float:
    """How often a two-sided t test at `level` sees a true difference of `shift` standard errors: the noncentral t,
    exact for normal errors (Johnson and Welch 1940)."""
    critical = stats.t.isf(level / 2, df)
    return float(stats.nct.sf(critical, df, abs(shift)) + stats.nct.sf(critical, df, -abs(shift)))


def detectable(arms: int, seeds: int, sigma: float, corrected: bool = False) -> float:
    """The smallest true difference of two arms that is seen with a power of 80 % at 5 %, two-sided, in sigma's unit.

    sigma: the standard deviation of one run once the seeds' own effects are taken away, estimated from all the arms
    with (arms - 1)(seeds - 1) degrees of freedom. The 5 % is uncorrected: of one comparison, chosen beforehand.
    corrected: Bonferroni's share of it among all pairs of arms, the least that Holm's correction over them leaves to
    one: what a study that says which arms are tied sees at least so often.
    Raises `UserError` for fewer than two arms or seeds, or a sigma that is negative or not finite.
    """
    if arms < 2 or seeds < 2:
        raise UserError(f"{arms} arms with {seeds} seeds tell nothing apart; take at least two of each")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise UserError(f"a standard deviation of {sigma} is none; it must be finite and not negative")
    df, level = (arms - 1) * (seeds - 1), LEVEL / math.comb(arms, 2) if corrected else LEVEL
    beyond = 2 * stats.t.isf(level / 2, df) + 2  # standard errors; a power above 95 % whatever the degrees of freedom
    shift = optimize.brentq(lambda tried: power(tried, df, level) - POWER, 0.0, beyond)
    return float(shift * sigma * math.sqrt(2 / seeds))
