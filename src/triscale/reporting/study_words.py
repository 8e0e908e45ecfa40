"""What a scaling study says, in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]

DIMENSIONS = ("depth", "width", "resolution")
NEARLY_ALL = 0.9  # of the mixes: a confidence set so large tells nothing


@dataclass(frozen=True, slots=True)
class Answer:
    """figure and claim: the headline. lead: what it means. lines: what bears it out, one sentence or two each. told:
    whether any mix is shown to be better than another."""

    told: bool
    figure: str
    claim: str
    lead: str
    lines: tuple[str, ...]


def answer(values: Values) -> Answer:
    """Which mix is best and how sure that is; of an unfinished study, so far and without test results."""
    factors, surface, seeds = values["factors"], values["surface"], len(values["seeds"])
    told = any(len(at["tied"]) < len(at["arms"]) for at in factors[:1])
    told |= surface is not None and _share_of_mixes(surface) < NEARLY_ALL
    figure, claim = _headline(values, told)
    lines: list[str | None] = []
    if values["finished"]:
        lines += [_verdict(at, seeds) for at in factors]
        lines += [_fitted(at) for at in factors]
    lines += [f"{_tied(at, seeds)}{_needed(at)}" for at in factors]
    lead = "" if surface is None else f"{_optimum(surface)}; {_set(surface)}."
    return Answer(told, figure, claim, lead, tuple(line for line in lines if line))


def _headline(values: Values, told: bool) -> tuple[str, str]:
    factors, surface, name = values["factors"], values["surface"], values["baseline"]["name"]
    so_far = "" if values["finished"] else " so far"
    if not factors:
        return "Nothing yet", "no two arms have all their seeds"
    if not told:
        return "Not told apart", f"no mix is shown to be better than another for {name}{so_far}"
    if surface is None:
        return factors[0]["best"], f"is the best of {len(factors[0]['arms'])} ways to grow {name}{so_far}"
    letters = zip("αβγ", ("alpha", "beta", "gamma"), strict=True)
    return ", ".join(
        f"{letter}\N{NO-BREAK SPACE}{surface[key]:.2f}" for letter, key in letters
    ), f"is the fitted best mix for {name}{so_far}"


def _share_of_mixes(surface: Values) -> float:
    return len(surface["compatible"]) / len(surface["grid"])


def _optimum(surface: Values) -> str:
    depth, width, resolution = (f"{100 * surface['optimum'][each]:.0f} %" for each in DIMENSIONS)
    return (
        f"The fitted optimum gives {depth} of the growth in MACs to depth, {width} to width, {resolution} to resolution"
    )


def _set(surface: Values) -> str:
    """The confidence set as ranges of shares."""
    count = f"{len(surface['compatible'])} of the {len(surface['grid'])} mixes looked at"
    if _share_of_mixes(surface) >= NEARLY_ALL:
        return f"but these data rule hardly any mix out: {count} may be the best one (95 % confidence)"
    ranges = surface["ranges"]
    words = [f"{_range(*ranges[each])} {each}" for each in DIMENSIONS]
    letters = zip("αβγ", ("alpha", "beta", "gamma"), strict=True)
    coefficients = _and([f"{letter} {_bounds(*ranges[key])}" for letter, key in letters])
    return f"with 95 % confidence the best mix has {_and(words)}, which is {coefficients} ({count})"


def _bounds(low: float, high: float) -> str:
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"from {low:.2f} to {high:.2f}"


def _range(low: float, high: float) -> str:
    if round(100 * low) == round(100 * high):
        return f"{100 * low:.0f} %"
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _tied(at: Values, seeds: int) -> str:
    best, n = _quoted(at["best"]), len(at["arms"])
    others = [_quoted(name) for name in at["tied"] if name != at["best"]]
    where = f"At ×{at['factor']:g} (selection images, {seeds} seeds)"
    if not others:
        return f"{where} {best} is better than {'the other arm' if n == 2 else f'each of the other {n - 1} arms'}."
    if len(others) == n - 1:
        rest = "the other arm is not" if n == 2 else f"none of the other {n - 1} arms is"
        return f"{where} {best} has the highest mean, but {rest} shown to be worse."
    return f"{where} {best} has the highest mean; {_and(others)} {'is' if len(others) == 1 else 'are'} tied with it."


def _needed(at: Values) -> str:
    """How many seeds would tell the best arm from the next one, where they are tied."""
    if len(at["tied"]) < 2:
        return ""
    if at["needed"] is None:
        return " The two highest means are equal, or nearly: not a million seeds would tell these two apart."
    return (
        f" If the two highest means differ as much as they seem to, {at['needed']:,} seeds show it four times in five, "
        "by the same test."
    )


def _verdict(at: Values, seeds: int) -> str | None:
    """Compound scaling against the best single dimension, on the test images."""
    compound = next((arm for arm in at["arms"] if "compound" in arm["names"]), None)
    if compound is None or compound["to_single"] is None:
        return None
    value, low, high = compound["to_single"]
    apart = f"{difference(value, low, high)} on the test images over {seeds} seeds"
    where, single = f"At ×{at['factor']:g} compound scaling by the paper's mix", _quoted(at["best_single"])
    if low > 0:
        return f"{where} beats the best single dimension, {single}: {apart}."
    if high < 0:
        return f"{where} is worse than the best single dimension, {single}: {apart}."
    return f"{where} is not told apart from the best single dimension, {single}: {apart}."


def _fitted(at: Values) -> str | None:
    """The fitted optimum where it was trained itself, against the paper's mix; where it is the best single dimension,
    the verdict has said it."""
    fitted = next((arm for arm in at["arms"] if "fitted" in arm["names"]), None)
    if fitted is None or fitted["to_compound"] is None or fitted["name"] == at["best_single"]:
        return None
    value, low, high = fitted["to_compound"]
    says = "beats" if low > 0 else "is worse than" if high < 0 else "is not told apart from"
    apart = difference(value, low, high)
    return (
        f"At ×{at['factor']:g} the fitted optimum, trained itself, {says} the paper's mix: {apart} on the test images."
    )


def difference(value: float, low: float, high: float) -> str:
    """Of two accuracies, in points of a hundred."""
    return f"{100 * value:+.2f} points (95 % interval {100 * low:+.2f} to {100 * high:+.2f})"


def _quoted(name: str) -> str:
    """A name that would fall apart among other words is put in quotes."""
    return f"“{name}”" if " " in name else name


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
