"""What all studies together say of balanced scaling: the sentences of docs/paper.md that the numbers choose.

Used by paper_executed.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paper_studies import (
    COMPOUND,
    DIMENSIONS,
    FITTED,
    NONE_YET,
    Interval,
    Study,
    Values,
    arm_named,
    counted,
    describes,
    holds_paper,
    machine_hours,
    mix,
    verdict,
)
from scipy import stats

from triscale.units import format_count


@dataclass(frozen=True)
class Comparison:
    """By how much one way to grow is better than another, on the test images. difference: None for the same network."""

    title: str
    factor: float
    difference: Interval | None

    @property
    def verdict(self) -> str:
        """wins, ties or loses."""
        return "ties" if self.difference is None else verdict(self.difference)


def against_best(studies: Sequence[Study]) -> list[Comparison]:
    """The paper's mix against the best single dimension, once a study and factor that have both."""
    return [
        Comparison(study.title, at["factor"], arm["to_single"])
        for study, at, arm in _arms(studies, COMPOUND)
        if at["best_single"] is not None
    ]


def against_worst(studies: Sequence[Study]) -> list[Comparison]:
    """The paper's mix against the single dimension that was lowest on the selection images, of at least two. It was
    picked by the same trainings, so the interval is as much wider as lets it hold whichever it is (Bonferroni)."""
    found = []
    for study, at, _ in _arms(studies, COMPOUND):
        alone = [arm for arm in at["arms"] if set(arm["names"]) & set(DIMENSIONS)]
        if len(alone) > 1:
            worst = min(alone, key=lambda arm: arm["selection_mean"][0])
            apart = _widened(_turned(worst["to_compound"]), at["df"], len(alone))
            found.append(Comparison(study.title, at["factor"], apart))
    return found


def _widened(difference: Interval | None, df: int, out_of: int) -> Interval | None:
    """A difference that was picked among so many, from its 95 % interval alone."""
    if difference is None:
        return None
    value, low, high = difference
    half = (high - low) / 2 * float(stats.t.isf(0.025 / out_of, df) / stats.t.isf(0.025, df))
    return value, value - half, value + half


def fitted_against_paper(studies: Sequence[Study]) -> list[Comparison]:
    """The fitted optimum against the paper's mix, where both were trained: at the squared factor."""
    return [
        Comparison(study.title, at["factor"], arm["to_compound"])
        for study, at, arm in _arms(studies, FITTED)
        if arm_named(at, COMPOUND) is not None
    ]


def _arms(studies: Sequence[Study], name: str) -> Iterator[tuple[Study, Values, Values]]:
    for study in studies:
        for at in study.values["factors"]:
            arm = arm_named(at, name)
            if arm is not None:
                yield study, at, arm


def _turned(difference: Interval | None) -> Interval | None:
    return None if difference is None else (-difference[0], -difference[2], -difference[1])


def conclusions(studies: Sequence[Study]) -> str:
    """Advantages, experiments and conclusion, in sentences that the numbers choose."""
    if not studies:
        return NONE_YET
    best, worst, own = against_best(studies), against_worst(studies), fitted_against_paper(studies)
    said = [_against_best(best), _against_worst(worst), _own(own)]
    conclusion = f"**Conclusion.** {' '.join(sentence for sentence in said if sentence)}"
    return "\n\n".join((_advantages(studies, best, worst, own), _experiments(studies), conclusion))


def _advantages(
    studies: Sequence[Study], best: Sequence[Comparison], worst: Sequence[Comparison], own: Sequence[Comparison]
) -> str:
    lines = [
        *_tallies("the paper's mix against the best single dimension", best),
        *_tallies("the paper's mix against the worst single dimension", worst),
        *_tallies("the fitted optimum against the paper's mix", own),
    ]
    lines += _sets(studies)
    return "**Advantages, tested.**\n\n" + "\n".join(f"- {line}" for line in lines)


def _tallies(what: str, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """A sentence a factor: how often it wins, ties and loses, and where."""
    for factor in sorted({one.factor for one in comparisons}):
        here = [one for one in comparisons if one.factor == factor]
        parts = []
        for word in ("wins", "ties", "loses"):
            titles = [one.title for one in here if one.verdict == word]
            if titles:
                parts.append(f"{word} in {len(titles)} of {len(here)} ({'; '.join(titles)})")
        yield f"×{factor:g}, {what}: {', '.join(parts)}."


def _sets(studies: Sequence[Study]) -> Iterator[str]:
    """Whether the paper's mix may be the best one, and whether one mix may be for all studies."""
    fitted = [study for study in studies if study.values["surface"] is not None]
    usable = [study for study in fitted if describes(study)]
    if len(usable) < len(fitted):
        titles = "; ".join(study.title for study in fitted if study not in usable)
        yield f"Left out of what follows, since their surfaces do not describe their arms: {titles}."
    n = len(usable)
    if usable:
        held = sum(map(holds_paper, usable))
        yield f"The paper's mix may be the best one in {held} of {counted(n, 'study', 'studies')} (95 % sets)."
    if n > 1:
        sets = [set(map(mix, study.values["surface"]["compatible"])) for study in usable]
        common, grid = len(set.intersection(*sets)), len(usable[0].values["surface"]["grid"])
        yield (
            f"{common} of the {grid} mixes may be the best one in all {n} studies: these data do not show that "
            "networks or images need coefficients of their own."
            if common
            else f"No mix may be the best one in all {n} studies: the best mix depends on the network or the images."
        )


def _experiments(studies: Sequence[Study]) -> str:
    factors = [at for study in studies for at in study.values["factors"]]
    sizes = [arm["macs"] for at in factors for arm in at["arms"]]
    epochs = [study.values["epochs"] for study in studies]
    shows = [100 * at["detects"] for at in factors]
    trials, seeds = sum(study.values["time"]["trials"] for study in studies), [len(s.values["seeds"]) for s in studies]
    return (
        f"**Experiments.** {counted(len(studies), 'study', 'studies')}, {trials:,} trials, "
        f"{sum(map(machine_hours, studies)):.1f} machine-hours; networks of {format_count(min(sizes))} to "
        f"{format_count(max(sizes))} MACs, {_range(seeds, 'd')} seeds, {_range(epochs, 'd')} epochs. Differences that "
        f"they show four times in five between two networks chosen beforehand: {_range(shows, '.2f')} points; smaller "
        "ones mostly end as ties."
    )


def _against_best(comparisons: Sequence[Comparison]) -> str:
    """The verdict over all comparisons of the paper's mix with the best single dimension."""
    won, lost, n = _score(comparisons)
    if not n:
        return "No study has both the paper's mix and a single dimension: nothing follows for balanced scaling."
    if won == n:
        return f"Balanced scaling beats the best single dimension in {_of(won, n)}, as the paper says."
    if won and not lost:
        return (
            f"Balanced scaling beats the best single dimension in {_of(won, n)} and is shown to be worse in none: what "
            "the paper says, where a difference shows at all."
        )
    if won:
        return (
            f"It depends: balanced scaling beats the best single dimension in {_of(won, n)} and is worse in {lost}. "
            "The paper's claim does not hold for every network and image set of this size."
        )
    if lost:
        return (
            f"Balanced scaling by the paper's coefficients is worse than the best single dimension in {_of(lost, n)} "
            "and shown to be better in none: the paper's claim is not borne out at this size."
        )
    return (
        f"Balanced scaling and the best single dimension are told apart in {_of(0, n)}: the paper's claim is neither "
        "borne out nor refuted at this size."
    )


def _against_worst(comparisons: Sequence[Comparison]) -> str:
    """What a dimension chosen blindly may cost."""
    won, lost, n = _score(comparisons)
    if not n:
        return ""
    if won == n:
        return f"It beats the worst one in {_of(won, n)}: the safer choice where nothing has been measured."
    return f"It beats the worst one in {_of(won, n)}" + (f" and is worse in {lost}." if lost else ".")


def _own(comparisons: Sequence[Comparison]) -> str:
    """Whether coefficients of one's own are worth a study."""
    won, lost, n = _score(comparisons)
    if not n:
        return ""
    if not won and not lost:
        return f"Fitted coefficients and the paper's are told apart in {_of(0, n)}."
    if not won:
        return f"Fitted coefficients are worse than the paper's in {_of(lost, n)} and shown to be better in none."
    worse = f"are worse in {lost}" if lost else "are shown to be worse in none"
    return f"Fitted coefficients beat the paper's in {_of(won, n)} and {worse}."


def _score(comparisons: Sequence[Comparison]) -> tuple[int, int, int]:
    """(won, lost, all)."""
    words = [one.verdict for one in comparisons]
    return words.count("wins"), words.count("loses"), len(words)


def _of(number: int, n: int) -> str:
    if number == n:
        return "the only comparison" if n == 1 else f"each of {n} comparisons"
    return f"{number or 'none'} of {n} comparisons" if n > 1 else "no comparison"


def _range(numbers: Sequence[float], form: str) -> str:
    low, high = format(min(numbers), form), format(max(numbers), form)
    return low if low == high else f"{low} to {high}"
