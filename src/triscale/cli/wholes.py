"""`triscale fit --search --study`: all stages in one run."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from triscale.cli import arguments
from triscale.cli.bars import Bar
from triscale.cli.console import Output, print_table, table
from triscale.cli.stopping import going_on, stopping_gently
from triscale.errors import UserError
from triscale.runs.directory import ALL_STAGES
from triscale.units import format_count, format_seconds, parse_count, parse_seconds

if TYPE_CHECKING:
    from triscale.fitting.whole import Grown, Listeners

MANIFEST = ALL_STAGES
# Parameters of `fit` that all stages take; the others they decide themselves, or only a single fit takes them.
TAKES = frozenset({"macs", "search", "study", "baseline", "seed", "device", "on_bad"}) | {
    *("data", "out", "time", "resume", "as_json")
}
STAGES = {
    "search": "searching a baseline",
    "study": "measuring how it pays off to grow it",
    "fit": "growing it, and training what came out",
    "zoo": "the model and its report are ready; training networks of the zoo for as many epochs, to compare",
}


def is_begun(out: Path | None) -> bool:
    """Whether a run of all stages lies there."""
    return out is not None and (out / MANIFEST).is_file()


@dataclass(frozen=True)
class Words:
    """What all stages take, as it is typed; None where nothing is."""

    macs: str | None
    time: str | None
    search: bool
    study: bool
    baselines: Sequence[str]
    seed: int
    device: str | None
    on_bad: str

    @property
    def baseline(self) -> str | None:
        """The one that is named. Raises `UserError` for several."""
        if len(self.baselines) > 1:
            raise UserError("--search and --study take one --baseline; name the one to begin with")
        return self.baselines[0] if self.baselines else None

    def named(self, said: Collection[str]) -> dict[str, Any]:
        """As values, those in `said`, to be compared with what a run was begun with."""
        from triscale.training.machine import find_device

        values = {
            "macs": None if self.macs is None else parse_count(self.macs, "--macs"),
            "search": self.search,
            "study": self.study,
            "baseline": self.baseline,
            "seed": self.seed,
            "device": find_device(self.device).type,
            "on_bad": arguments.on_bad(self.on_bad),
        }
        return {key: value for key, value in values.items() if key in said}


def begin(output: Output, data: Path, out: Path | None, words: Words, said: frozenset[str]) -> None:
    """All stages in a new directory. said: the parameters that were typed."""
    for option in sorted(said - TAKES):
        raise UserError(
            f"--{option.replace('_', '-')} does not go with --search or --study, which decide what is trained; "
            "leave it out"
        )
    if words.macs is None or words.time is None:
        raise UserError("--search and --study need a budget and a time: --macs 10M --time 2h")
    if out is None:
        raise UserError("say where the run shall lie: --out RUN, a new or empty directory")
    from triscale.fitting.whole import Whole, fit_whole

    asked = Whole(
        macs=parse_count(words.macs, "--macs"),
        time=parse_seconds(words.time, "--time"),
        search=words.search,
        study=words.study,
        baseline=words.baseline,
        seed=words.seed,
        device=words.device,
        on_bad=arguments.on_bad(words.on_bad),
    )
    _carry_out(output, out, lambda listeners: fit_whole(data, asked, out, listeners))


def go_on(output: Output, out: Path | None, data: Path | None, words: Words, said: frozenset[str]) -> None:
    """The run there, to its end. said: the parameters that were typed."""
    assert out is not None  # it has been looked into
    arguments.check_as_begun(out, said, takes=TAKES, another="only --time may be another; ")
    from triscale.fitting.whole import resume_whole

    seconds = None if words.time is None else parse_seconds(words.time, "--time")
    named = words.named(said)
    _carry_out(output, out, lambda listeners: resume_whole(out, data, listeners, seconds, named), data)


def _carry_out(output: Output, out: Path, work: "Callable[[Listeners], Grown]", moved: Path | None = None) -> None:
    """moved: where the images lie now, if somebody had to say so."""
    from triscale.cli.search_watching import SearchWatcher
    from triscale.cli.study_watching import StudyWatcher
    from triscale.cli.watching import Watcher
    from triscale.fitting.whole import Listeners

    with stopping_gently(going_on("fit", out, moved)) as signalled, ExitStack() as shown:
        fitting = Watcher(output, signalled, may_balance=False)  # the stages are trained without it
        search, study = SearchWatcher(output), StudyWatcher(output)
        bars: dict[str, Bar] = {"search": search, "study": study}

        def stage(name: str) -> None:
            shown.close()  # only one bar at a time
            signalled.begun, signalled.gentle = True, False
            output.notes.print(f"— {STAGES[name]}")
            shown.enter_context(bars.get(name, fitting))

        grown = work(Listeners(search, study, fitting, stage))
    values = grown.values
    output.result(
        {"run": str(out), "report": str(out / "report.html"), **values}, lambda console: show(console, values, out)
    )
    output.next_command("triscale", "predict", out, "PICTURE")


def show(console: Console, values: Mapping[str, Any], out: Path) -> None:
    """What it answers to a person."""
    made = table("network", "pixels", "MACs", "parameters", "latency", "test", "95 % interval", "to the grown one")
    for row in values["result"]["networks"]:
        apart = row["apart"]
        made.add_row(
            row["name"],
            "×".join(map(str, row["resolution"])),
            format_count(row["macs"]),
            format_count(row["params"]),
            format_seconds(row["latency"]),
            f"{row['test'][0]:.2%}",
            f"{row['test'][1]:.2%} to {row['test'][2]:.2%}",
            "" if apart is None else f"{100 * apart[0]:+.2f} ({100 * apart[1]:+.2f} to {100 * apart[2]:+.2f})",
        )
    print_table(console, made)
    took = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in values["seconds"].items())
    console.print(f"took {took}")
    console.print(f"report: {out / 'report.html'}")
