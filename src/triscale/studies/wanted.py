"""What decides the design of a study. It is frozen with the run; a later sitting may name some of it anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triscale.asking import check_time
from triscale.errors import UserError
from triscale.studies.designs import Design, check_names, find_design, read_design
from triscale.studies.planning import Rung, check_least, ladder

MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """None leaves it to the time. time: seconds for the whole study, of all sittings. arms: designs whose arms are
    added. again: whether the best arms are trained at the squared factor too. Raises `UserError`."""

    time: float | None = None
    design: Design | None = None
    arms: tuple[Design, ...] = ()
    seeds: int | None = None
    again: bool | None = None

    def __post_init__(self) -> None:
        check_time(self.time, "1h")
        if self.seeds is not None:
            check_least(None, self.seeds)
            if self.seeds > MOST_SEEDS:
                raise UserError(f"--seeds {self.seeds}: at most {MOST_SEEDS}")

    @property
    def rungs(self) -> list[Rung]:
        """The ladder for it: with so many seeds where they are named, with the best arms again or not. Raises
        `UserError` where arms do not go together, or are too few."""
        rungs = ladder(self.design, self.arms)
        if self.seeds is not None:
            by_name = {rung.design.name: rung.design for rung in rungs}
            rungs = [Rung(design, self.seeds, twice) for design in by_name.values() for twice in (False, True)]
        for rung in rungs:
            check_least(rung.design, rung.seeds)
        return rungs if self.again is None else [rung for rung in rungs if rung.twice == self.again]

    def changed(self, by: "Wanted") -> "Wanted":
        """The same with what another one names; its arms are added."""
        return Wanted(
            time=self.time if by.time is None else by.time,
            design=self.design if by.design is None else by.design,
            arms=(*self.arms, *(one for one in by.arms if one not in self.arms)),
            seeds=self.seeds if by.seeds is None else by.seeds,
            again=self.again if by.again is None else by.again,
        )


def make_designs(
    design: str | Path | Design | None, arms: Sequence[Path] = ()
) -> tuple[Design | None, tuple[Design, ...]]:
    """The design that is named, and those whose arms are added. Raises `UserError`."""
    named = design if design is None or isinstance(design, Design) else find_design(design)
    more = tuple(check_names(read_design(path, "--arms")) for path in arms)
    return named if named is None else check_names(named), more
