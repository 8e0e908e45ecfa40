"""The page of a search, from the plain values of its search.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from triscale.arch import from_dict
from triscale.reporting.search_networks import COLUMNS, Pair, changes, pairs
from triscale.reporting.search_plots import Learned, Spot, Standing, fronts, learned, seen_of
from triscale.reporting.search_progress import Progress, progressed
from triscale.reporting.search_words import (
    REFERENCE,
    Answer,
    aim,
    all_at_random,
    answer,
    best_finalist,
    by_order,
    cost_of,
    highest,
    large,
    leader,
    limited,
    longest,
    said,
    strategy,
    value,
)
from triscale.reporting.templating import render
from triscale.runs import write_whole
from triscale.scaling.budget import ANALYTIC
from triscale.units import format_epochs, format_seconds

Values = Mapping[str, Any]
Row = tuple[str, str]

STRONGEST = 8  # choices that are drawn
TOLD = 0.005  # of the variance that a choice explains, to be drawn


@dataclass(frozen=True, slots=True)
class Beside:
    """The reference and another candidate, part by part. won: whether that one is the winner. most: the largest share
    of the MACs that a part has. idle: whether a shortcut adds nothing. macs: of both networks."""

    label: str
    won: bool
    pairs: tuple[Pair, ...]
    most: float
    idle: bool
    macs: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Worth:
    """A value of a choice, in words: how many candidates had it, and their mean, with a 95 % interval if there is one.
    explained: by the choice, a share of the variance."""

    choice: str
    explained: float
    value: str
    n: int
    mean: Sequence[float]


@dataclass(frozen=True, slots=True)
class Choices:
    """The strongest as plots, the values of all as rows, of so many choices. at_random: whether chance alone drew all
    candidates."""

    plots: Sequence[Markup]
    title: str
    count: int
    rows: Sequence[Worth]
    at_random: bool


@dataclass(frozen=True, slots=True)
class Finalist:
    """values: of search.json. runs: accuracy by seed. costs: by limited term."""

    values: Values
    standing: Standing
    runs: Sequence[float | None]
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """values: of search.json. accuracy: after so many epochs, the mean of so many runs. changes: (stage, what it has
    instead of the reference's)."""

    values: Values
    epochs: int
    accuracy: float
    runs: int
    standing: Standing
    changes: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """search: search.json. reference: its name. commands: what for, and the words. earlier: epochs of the rungs before
    the last, the longest first. weighed: whether cost counts against accuracy. terms: limits that have a column of
    their own. turns: the fewest and the most runs of a latency, once where they are as many; none where none was
    measured. searched, how: rows of words."""

    search: Values
    finished: bool
    reference: str
    answer: Answer
    searched: Sequence[Row]
    commands: Sequence[tuple[str, tuple[str, ...]]]
    fronts: Sequence[Markup]
    earlier: Sequence[int]
    beside: Beside | None
    columns: Sequence[str]
    learned: Choices
    progress: Progress
    weighed: bool
    terms: Sequence[str]
    seeds: Sequence[int]
    finalists: Sequence[Finalist]
    turns: Sequence[int]
    candidates: Sequence[Candidate]
    how: Sequence[Row]


def write_search_page(path: Path, values: Values, others: Sequence[Values] = ()) -> None:
    """One self-contained page, whole. others: search.json of other searches, whose curves stand beside this one's.
    Raises `TriscaleError` where the disk refuses."""
    write_whole(path, search_page(values, others))


def search_page(values: Values, others: Sequence[Values] = ()) -> str:
    """The page of a search, finished or not. values: what search.json holds; the page depends on nothing else than it
    and the others."""
    return render("search.html.j2", _page(values, others))


def _page(values: Values, others: Sequence[Values]) -> SearchPage:
    every = [values["reference"], *values["candidates"]]
    turns = [one["latency"]["n"] for one in every if one["latency"] is not None]
    return SearchPage(
        search=values,
        finished=values["finished"],
        reference=values["reference"]["network"]["name"],
        answer=answer(values),
        searched=_searched(values),
        commands=_commands(values) if values["finished"] else [],
        fronts=[Markup(drawn) for drawn in (_front(values, "macs"), _front(values, "latency")) if drawn],
        earlier=values["rungs"][:-1][::-1],
        beside=_beside(values),
        columns=COLUMNS,
        learned=_choices(values),
        progress=progressed(values, others),
        weighed=_weighed(values),
        terms=[term for term in values["objective"]["limits"] if term not in ("macs", "params", "latency")],
        seeds=[values["seed"] + place for place in range(_seeds(values))],
        finalists=_finalists(values),
        turns=sorted({min(turns), max(turns)}) if turns else [],
        candidates=_candidates(values),
        how=_how(values),
    )


def _weighed(values: Values) -> bool:
    return bool(values["objective"]["kind"] != "constraint")


def _searched(values: Values) -> list[Row]:
    """What was asked, and what became of it."""
    space, rungs, tried = values["space"], values["rungs"], values["candidates"]
    ended = [sum(one["rung"] >= place for one in tried) for place in range(len(rungs))]
    reached = ", ".join(f"{count:,} of {format_epochs(epochs)}" for count, epochs in zip(ended, rungs, strict=True))
    networks = f"{large(space['points'])} points, {large(space['networks'])} different networks"
    judged, found = values["selection_images"], values["calibrated"]
    measured = ""
    if found is not None:
        low, high = (f"{found[bound]:.3f}" for bound in ("low", "high"))
        measured = f"; w was measured on these images: {found['exponent']:.3f} (95 % interval {low} to {high})"
        (term,) = values["objective"]["limits"]
        measured += "" if term in ANALYTIC else f"; it was measured over MACs, which {term} follows only roughly"
        measured += "; more cost brought no accuracy, so that w = 0 is used" if found["exponent"] > 0 else ""
    return [
        ("space", f"{space['name']}: {networks}"),
        ("limits", limited(values)),
        ("objective", aim(values) + measured),
        ("strategy", strategy(values)),
        (
            "candidates",
            f"{len(tried):,} tried; trainings ended: {reached}; the best of each rung went on to the next"
            + ("; no further one was found within the limits" if values["used_up"] else ""),
        ),
        ("images", f"{values['images']:,} to train on, the same for every trial; {judged:,} to validate by"),
        *_time(values["time"], values["workers"]),
    ]


def _time(time: Values | None, workers: int) -> list[Row]:
    """Of all sittings. Where one of them was killed its time is not known, and no shares follow."""
    if time is None:
        return [("workers", str(workers))]
    trials = f"{time['trials']:,} trials, {time['workers']} at a time"
    share, without = time["share_of_trials"], time["share_without_trials"]
    took = format_seconds(time["seconds"])
    if share is None or without is None or share > 1:
        told = f"{took} for {trials}, without the sittings that were killed, whose trials count as well"
        return [("time", told), ("time of all trials", f"{format_seconds(time['trained'])} together")]
    return [
        ("time", f"{took} for {trials}; {100 * without:.1f} % of it without trials: measuring, planning, concluding"),
        ("time of all trials", f"{format_seconds(time['trained'])} together, {100 * share:.1f} % of the workers' time"),
    ]


def _commands(values: Values) -> list[tuple[str, tuple[str, ...]]]:
    """What to do with network.json: what for, and the command."""
    baseline = "--baseline", "network.json"
    # Its own MACs and a rule that goes from its own pixels: with the search's limits `fit` would make it fill them.
    as_it_is = ("--rule", "compound", "--macs", str(by_order(values, values["winner"])["macs"]))
    return [
        (
            "train it, and judge it by test images",
            ("triscale", "fit", "IMAGES", *baseline, *as_it_is, "--time", "1h", "--out", "RUN"),
        ),
        (
            "learn how it is best grown on your images",
            ("triscale", "study", "IMAGES", *baseline, "--factor", "2", "--time", "1h", "--out", "STUDY"),
        ),
        ("grow it", ("triscale", "scale", "network.json", "--rule", "compound", "--factor", "2")),
    ]


def _standing(values: Values, one: Values) -> Standing:
    if one["order"] == values["winner"]:
        return "winner"
    if one["order"] == REFERENCE:
        return "reference"
    return "finalist" if one["order"] in values["finalists"] else "full"


def _front(values: Values, term: str) -> str | None:
    """None where nothing is known of that cost."""
    spots = []
    for one in (values["reference"], *values["candidates"]):
        timed = one["latency"] is not None
        if not one["runs"] or (term == "latency" and not timed):
            continue
        at = float(one["latency"]["median"] if term == "latency" else one["macs"])
        rung = len(values["rungs"]) - 1 - one["rung"]
        spots.append(Spot(at, highest(one), tuple(longest(one)), rung, _standing(values, one)))
    return fronts(spots, term, values["objective"]["limits"].get(term)) if spots else None


def _beside(values: Values) -> Beside | None:
    """The reference and the winner, stage by stage; where the reference won, and before anything did, the candidate
    that came nearest. None without one."""
    reference = values["reference"]
    winner = None if values["winner"] in (None, REFERENCE) else by_order(values, values["winner"])
    shown = winner or best_finalist(values) or leader(values)
    if shown is None:
        return None
    found = pairs(from_dict(reference["network"]), from_dict(shown["network"]))
    return Beside(
        label=shown["label"],
        won=shown is winner,
        pairs=found,
        most=max(part.share for pair in found for part in (pair.before, pair.after)),
        idle=any(part.idle for pair in found for part in (pair.before, pair.after)),
        macs=(reference["macs"], shown["macs"]),
    )


def _choices(values: Values) -> Choices:
    """Before two values of a choice were tried there are none."""
    known = values["learned"]
    drawn = [one for one in known[:STRONGEST] if one["explained"] >= TOLD]
    rows = [
        Worth(one["choice"], one["explained"], said(one["choice"], row["value"]), row["n"], row["mean"])
        for one in known
        for row in one["values"]
    ]
    choices = [(f"{one['choice']}: {100 * one['explained']:.0f} %", _worths(one)) for one in drawn]
    half = (len(choices) + 1) // 2
    title = f"mean {'worth' if _weighed(values) else 'validation accuracy'} after {format_epochs(values['rungs'][0])}"
    seen = seen_of([one for _, each in choices for one in each]) if choices else (0.0, 1.0)
    plots = [Markup(learned(each, seen, title)) for each in (choices[:half], choices[half:]) if each]
    return Choices(plots, title, len(known), rows, all_at_random(values))


def _worths(choice: Values) -> list[Learned]:
    rows = []
    for one in choice["values"]:
        mean, low, high = (*one["mean"], None, None)[:3]
        rows.append(Learned(said(choice["choice"], one["value"]), one["n"], mean, low, high))
    return rows


def _seeds(values: Values) -> int:
    """How many seeds full trainings had, at most."""
    top = values["rungs"][-1]
    every = [values["reference"], *values["candidates"]]
    return 1 + max((run["seed"] for one in every for run in one["runs"] if run["epochs"] == top), default=-1)


def _finalists(values: Values) -> list[Finalist]:
    """With the reference, what is worth most first. Empty before any full training."""
    top = values["rungs"][-1]
    among = [values["reference"], *(by_order(values, order) for order in values["finalists"])]
    rows = []
    for one in sorted(among, key=lambda one: -(value(one) if _weighed(values) else highest(one))):
        by_seed = {run["seed"]: run["accuracy"] for run in one["runs"] if run["epochs"] == top}
        runs = [by_seed.get(place) for place in range(_seeds(values))]
        costs = {term: cost_of(one, term) for term in values["objective"]["limits"]}
        rows.append(Finalist(one, _standing(values, one), runs, costs))
    return rows if values["finalists"] or values["reference"]["runs"] else []


def _candidates(values: Values) -> list[Candidate]:
    """All that were tried: what went furthest first, and of those the best."""
    reference = from_dict(values["reference"]["network"])
    rows = sorted(values["candidates"], key=lambda one: (-one["rung"], -highest(one), one["order"]))
    return [
        Candidate(
            values=one,
            epochs=values["rungs"][one["rung"]],
            accuracy=highest(one),
            runs=len(longest(one)),
            standing=_standing(values, one),
            changes=changes(reference, from_dict(one["network"])),
        )
        for one in rows
    ]


def _how(values: Values) -> list[Row]:
    """How all trials computed."""
    how, recipe, seeds = values["how"], values["recipe"], _seeds(values)
    optimizer, rate = recipe["optimizer"], recipe["rate"]
    last = values["seed"] + max(0, seeds - 1)
    used = "" if last == values["seed"] else f" to {last}"
    return [
        ("epochs", " → ".join(f"{epochs:,}" for epochs in values["rungs"])),
        ("batch", str(recipe["batch"])),
        ("optimizer", f"{optimizer['kind']} with a decay of {optimizer['decay']:g}"),
        ("rate", f"{rate['kind']}, up to {rate['peak']:.3g}"),
        ("label smoothing", f"{recipe['smoothing']:g}"),
        ("augmentation", _augmentation(recipe["augment"])),
        ("precision", how["precision"]),
        ("device", how["device"]),
        ("threads of a trial", str(how["threads"])),
        ("kernels", "Triscale's own, where a layer has one" if how["kernels"] else "PyTorch's"),
        ("workers", str(values["workers"])),
        ("seeds", f"{values['seed']}{used}: rungs take the first, finalists and the reference the others"),
    ]


def _augmentation(augment: Values) -> str:
    crop, policy = augment["crop_scale"], augment["policy"]
    said = [f"shifts up to {100 * augment['shift']:g} %"] if augment["shift"] and not crop else []
    said += ["mirroring"] if augment["flip"] else []
    said += [f"crops from {100 * crop[0]:g} % of the area"] if crop else []
    said += [str(policy)] if policy else []
    said += [f"{name} {augment[name]:g}" for name in ("erase", "mixup", "cutmix") if augment[name]]
    return ", ".join(said) or "none"
