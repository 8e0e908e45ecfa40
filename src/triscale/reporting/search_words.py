"""What a search says, in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triscale.reporting.study_words import difference
from triscale.scaling.budget import show
from triscale.stats import FEWEST_APART
from triscale.units import format_count, format_epochs

Values = Mapping[str, Any]

REFERENCE = -1  # its order among the candidates
_SIGNS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_STRATEGIES = {
    "evolution": "regularised, Real et al. 2019: the best of some young candidates has a child that differs in one "
    "choice",
    "random": "any network within the limits, the control",
    "tpe": "tree-structured Parzen estimator, Bergstra et al. 2011",
}
AT_RANDOM = {"evolution": 20, "tpe": 20}  # so many candidates, before the strategy goes by them
_AIMS = {
    "constraint": "the best accuracy with every cost under its limit",
    "hard": "accuracy, times limit/cost where the cost is above the limit",
    "abs": "accuracy - {weight:g}·|cost/limit - 1|",
    "paper": "accuracy × (cost/limit)^{exponent:g}",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """figure and claim: the headline. lead: how sure it is. lines: what to know with it, one sentence or two each."""

    figure: str
    claim: str
    lead: str
    lines: tuple[str, ...]


def answer(values: Values) -> Answer:
    """What the search found and whether that is better than the reference; of one that goes on, who leads."""
    if not values["finished"]:
        return _so_far(values)
    reference, winner = values["reference"], by_order(values, values["winner"])
    name = reference["network"]["name"]
    lines = [] if winner is reference else [_measured(values, winner, f"The winner, {winner['label']}")]
    lines += [_measured(values, reference, f"The reference, {name}")]
    lines += [
        line for line in (_best_loser(values), _worth(values, winner), _too_slow(values), _failed(values)) if line
    ]
    if winner is reference:
        claim = f"than the reference was found: {name} keeps its place at {_costs(values, reference)}"
        return Answer("Nothing better", claim, _kept(values), (*lines, _looked_at(values)))
    claim = f"of the validation images named right by {winner['label']}, at {_costs(values, winner)}"
    return Answer(_percent(winner["accuracy"][0]), claim, _against(values, name), (*lines, _flatters(values)))


def by_order(values: Values, order: int) -> Values:
    """A candidate, or the reference."""
    if order == REFERENCE:
        found: Values = values["reference"]
        return found
    return next(one for one in values["candidates"] if one["order"] == order)


def leader(values: Values) -> Values | None:
    """The candidate that went furthest, and of those the one that is worth most there; None before any ended."""
    return max(values["candidates"], key=lambda one: (one["rung"], value(one), -one["order"]), default=None)


def cost_of(one: Values, term: str) -> float:
    """A limited cost; latency as it was measured at rest, once it was."""
    if term == "latency" and one["latency"] is not None:
        return float(one["latency"]["median"])
    return float(one["costs"][term])


def value(one: Values) -> float:
    """What it is worth by the full trainings, or where there are none the accuracy of its highest rung."""
    return float(highest(one) if one["value"] is None else one["value"])


def highest(one: Values) -> float:
    """The accuracy of its longest training; the mean where it had several so long."""
    runs = longest(one)
    return float(sum(runs) / len(runs)) if runs else 0.0


def longest(one: Values) -> list[float]:
    """The accuracies of its longest trainings, seed by seed: of the final ones where there are any, as it is judged by
    them and not by the one that chose it."""
    epochs = max((run["epochs"] for run in one["runs"]), default=0)
    runs = [run for run in one["runs"] if run["epochs"] == epochs]
    final = [run for run in runs if run["final"]]
    return [run["accuracy"] for run in final or runs]


def _so_far(values: Values) -> Answer:
    first, tried = leader(values), len(values["candidates"])
    lines = ["Everything below may change; of latency nothing is known until the end."]
    if first is None:
        return Answer("Nothing yet", "no candidate has ended its first rung", "", ())
    epochs, last = values["rungs"][first["rung"]], values["rungs"][-1]
    claim = f"of the validation images named right by {first['label']}, which leads so far at {_costs(values, first)}"
    lead = f"{tried:,} {'candidate has' if tried == 1 else 'candidates have'} ended a training. "
    lead += f"The leader has had {format_epochs(epochs)}" + (f" of {last}." if epochs < last else ", a full training.")
    return Answer(_percent(highest(first)), claim, lead, tuple(lines))


def _against(values: Values, name: str) -> str:
    """The winner's accuracy less the reference's, and whether that tells them apart."""
    gain, where = values["gain"], f"the reference, {name} {_limits_of(values, values['reference'])}"
    if gain is None:
        return f"It was not compared with {where}: no seed trained both."
    apart, (_, low, high) = difference(*gain), gain
    judged = values["judged"]
    how = f"paired over {len(judged['seeds'])} seeds, with the noise of all finalists together"
    if judged["out_of"] > 1:
        how += f" and corrected for naming the best of {judged['out_of']}"
    images = gain[0] * values["selection_images"]
    if low > 0 and images < FEWEST_APART:
        few = f"that is {images:.1f} of {values['selection_images']:,} validation images, and so few may be chance"
        return f"It is not shown to be better than {where}: {apart}, {how}; but {few}."
    if low > 0:
        return f"It beats {where}: {apart}, {how}."
    if high < 0:
        return f"It names fewer right than {where}: {apart}, {how}; it won for what it costs."
    return f"It is not shown to be better than {where}: {apart}, {how}; the interval contains zero."


def _limits_of(values: Values, reference: Values) -> str:
    """A reference that a file brings keeps its size, and may be above the limits that the candidates hold."""
    used = max(cost_of(reference, term) / limit for term, limit in values["objective"]["limits"].items())
    if used <= 1:
        return "at the same limits"
    if values["objective"]["kind"] != "constraint":
        return f"(it uses {100 * used:.1f} % of the limit)"
    return f"(it uses {100 * used:.1f} % of the limit, and so could not win)"


def _measured(values: Values, one: Values, which: str) -> str:
    """Its full trainings and what it costs."""
    if one["accuracy"] is None:
        return f"{which}: no full training, {_costs(values, one)}."
    trainings = len(longest(one))
    epochs = format_epochs(values["rungs"][-1])
    if len(one["accuracy"]) == 1:
        said = f"{_percent(one['accuracy'][0])} in one full training of {epochs}, which tells nothing of the noise"
    else:
        mean, low, high = one["accuracy"]
        bounds = f"{100 * max(0.0, low):.2f} to {100 * min(1.0, high):.2f}"
        said = f"{_percent(mean)}, mean of {trainings} full trainings of {epochs} with as many seeds "
        said += f"(95 % interval {bounds})"
    return f"{which}: {said}; {_costs(values, one)}."


def _costs(values: Values, one: Values) -> str:
    """MACs, and what else is limited, with the share of the limit."""
    limits = values["objective"]["limits"]
    said = [] if "macs" in limits else [f"{format_count(one['macs'])} MACs"]
    for term, limit in limits.items():
        cost = cost_of(one, term)
        said.append(f"{show(term, cost)}{_unit(term)} ({100 * cost / limit:.1f} % of the limit)")
    return _and(said)


def _unit(term: str) -> str:
    """What stands after a cost so that it can be told from others."""
    words = {"macs": "MACs", "params": "parameters", "latency": "an image", "size": "of weights", "memory": "of memory"}
    return f" {words.get(term, term)}"


def _worth(values: Values, winner: Values) -> str | None:
    """Where accuracy and cost are weighed, what both come to."""
    if values["objective"]["kind"] == "constraint" or winner["value"] is None:
        return None
    reference = values["reference"]
    words = f"By the objective, {aim(values)}, it is worth {winner['value']:.4f}"
    if winner is reference or reference["value"] is None:
        return f"{words}."
    return f"{words}; the reference {reference['value']:.4f}."


def _best_loser(values: Values) -> str | None:
    """Where the reference won: what came nearest to it."""
    if values["winner"] != REFERENCE:
        return None
    best = best_finalist(values)
    return None if best is None else _measured(values, best, f"The best finalist, {best['label']}")


def best_finalist(values: Values) -> Values | None:
    """By what its full trainings are worth; one that may win, if there is any."""
    finalists = [by_order(values, order) for order in values["finalists"]]
    able = [one for one in finalists if one not in _late(values)] or finalists
    # What is over a limit is worth nothing, however accurate it is.
    return max(able, key=lambda one: (value(one), highest(one)), default=None)


def _kept(values: Values) -> str:
    finalists, tried = len(values["finalists"]), len(values["candidates"])
    late = len(_late(values))
    if not finalists:
        return "No candidate could be trained in full, so the reference stands alone."
    none = "none of them is better"
    if late:
        none = f"none of the {finalists - late} that hold the limit is better"
    if late == finalists:
        none = "none of them holds the limit of latency when it is measured at rest"
    return f"Of {tried:,} candidates {finalists} were trained in full with several seeds; {none}."


def _late(values: Values) -> list[Values]:
    """Finalists that take longer at rest than is allowed, and so may not win."""
    limits, kind = values["objective"]["limits"], values["objective"]["kind"]
    if kind != "constraint" or "latency" not in limits:
        return []
    finalists = [by_order(values, order) for order in values["finalists"]]
    return [one for one in finalists if one["latency"] and one["latency"]["median"] > limits["latency"]]


def _too_slow(values: Values) -> str | None:
    late = [one["label"] for one in _late(values)]
    if not late:
        return None
    limit = show("latency", values["objective"]["limits"]["latency"])
    return f"Measured at rest, {_and(late)} took longer than {limit}, and so could not win."


def _failed(values: Values) -> str | None:
    count = values["failed"]
    some = "1 candidate" if count == 1 else f"{count:,} candidates"
    return f"{some} could not be trained, and took no further part." if count else None


def _flatters(values: Values) -> str:
    return (
        f"It was chosen by these same validation images, as the best of {len(values['finalists'])} finalists and the "
        "reference: its figure flatters a little. The honest figure comes from triscale fit, on test "
        "images, which this search never looked at."
    )


def _looked_at(values: Values) -> str:
    return (
        "All of this is of validation images. What the reference is worth on test images, which this search never "
        "looked at, triscale fit tells."
    )


def aim(values: Values) -> str:
    """The objective as one reads it."""
    exponent = values["objective"]["exponent"]
    return _AIMS[values["objective"]["kind"]].format(exponent=exponent, weight=abs(exponent))


def limited(values: Values) -> str:
    """What a network may cost, and which networks were looked for."""
    objective = values["objective"]
    most = "at most " if objective["kind"] == "constraint" else ""
    said = _and([f"{most}{show(term, limit)}{_unit(term)}" for term, limit in objective["limits"].items()])
    low, high = (100 * share for share in objective["band"])
    return f"{said}; networks were looked at that use {low:.0f} to {high:.0f} % of it"


def strategy(values: Values) -> str:
    """Its name and what it does, and what of that this search came to."""
    name = values["strategy"]
    if name not in _STRATEGIES:
        return str(name)
    said = f"{name} ({_STRATEGIES[name]})"
    if name not in AT_RANDOM:
        return said
    which = f"its first {AT_RANDOM[name]} candidates are drawn at random"
    return f"{said}; {which}{', and there are no others here' if all_at_random(values) else ''}"


def all_at_random(values: Values) -> bool:
    """Whether chance alone drew all candidates: the control does, and every strategy does at first."""
    name = values["strategy"]
    return name == "random" or all(one["order"] < AT_RANDOM.get(name, 0) for one in values["candidates"])


def said(choice: str, value: object) -> str:
    """A value of a choice: channels are times the reference's, blocks are added to its."""
    name = choice.rpartition(".")[2]
    if not isinstance(value, int | float):
        return str(value)
    return f"×{value:g}" if name == "channels" else f"{value:+g}" if name == "repeats" and value else f"{value:g}"


def large(count: float) -> str:
    """Up to a million as it is, and from there on 2.4 × 10¹⁹."""
    if count < 1e6:
        return f"{count:,.0f}"
    digits, power = f"{count:.1e}".split("e+")
    return f"{digits} × 10{str(int(power)).translate(_SIGNS)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _and(words: Sequence[str]) -> str:
    """One after the other."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
