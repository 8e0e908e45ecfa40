"""`triscale doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import TaskID

from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.errors import UserError

if TYPE_CHECKING:
    from triscale.doctoring import Diagnosis, Finding

FIRST = 3  # files that are named of each finding
MOST_CLASSES = 12
UNSOUND = 3  # exit code


def command(
    data: arguments.Data,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write a page with the pictures: one HTML file.", show_default=False),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Whether images are sound to train on: damaged files, copies across splits, classes that cannot be learned.

    Reads every file in full and changes nothing. Exit code 3 where training or its test figure would be wrong.

    Example: triscale doctor IMAGES --out check.html
    """
    output = Output(as_json)
    if out is not None:
        _check_place(out, data)
    from triscale.doctoring import doctor

    with output.progress() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        found = doctor(data, progress=progress)
    if out is not None:
        from triscale.reporting.diagnosis import write_diagnosis

        write_diagnosis(found, out)
    output.result({**found.values(), "page": out and str(out)}, lambda console: _show(console, found))
    _tell_next(output, found, data, out)
    if not found.sound:
        raise typer.Exit(UNSOUND)


def _check_place(out: Path, data: Path) -> None:
    """Before the long reading: that the page can be written, and not into the data."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page is HTML; name it for example check.html")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise UserError(f"--out {out}: name a file in a folder that exists")
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise UserError(f"--out {out}: lies inside the data, which are never changed; name a place outside")


def _tell_next(output: Output, found: "Diagnosis", data: Path, out: Path | None) -> None:
    errors = {finding.kind for finding in found.of("error")}
    if out is not None:
        output.notes.print(f"to look at: {out}")
    if not errors:
        output.next_command("triscale", "fit", data, "--macs", "10M", "--out", "run")
    elif out is None:
        output.next_command("triscale", "doctor", data, "--out", "check.html")
    elif errors <= {"unreadable", "bomb"}:
        output.next_command("triscale", "fit", data, "--on-bad", "skip", "--macs", "10M", "--out", "run")
    else:
        output.next_command("triscale", "doctor", data, hint="  (once the errors are gone)")


def _show(console: Console, found: "Diagnosis") -> None:
    console.print(f"{found.pictures:,} readable pictures of {_several(len(found.classes))} in {found.path}")
    if found.sizes is not None:
        sizes = (found.sizes.least, found.sizes.median, found.sizes.most)
        least, median, most = ("×".join(map(str, size)) for size in sizes)
        forms = ", ".join(f"{form} {n:,}" for form, n in found.forms.items())
        console.print(f"height × width from {least} to {most}, median {median}; {forms}")
    if 0 < len(found.classes) <= MOST_CLASSES:
        rows = table("class", *found.counts)
        for label in found.classes:
            rows.add_row(label, *(f"{counts[label]:,}" for counts in found.counts.values()))
        print_table(console, rows)
    else:
        totals = ", ".join(f"{split} {sum(counts.values()):,}" for split, counts in found.counts.items())
        console.print(totals)
    for finding in found.findings:
        console.print(f"{finding.severity:7}  {finding.message}")
        for line in _examples(finding):
            console.print(f"{'':9}{line}")
        if finding.advice:
            console.print(f"{'':7}→ {finding.advice}")
    errors, warnings = len(found.of("error")), len(found.of("warning"))
    verdict = "sound" if found.sound else "unsound"
    console.print(f"{verdict}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _examples(finding: "Finding") -> list[str]:
    """The first few files, pairs or groups, and how many there are besides."""
    if finding.pairs:
        lines = [f"{pair.first} ~ {pair.second}  {pair.likeness:.1%}" for pair in finding.pairs[:FIRST]]
        rest = len(finding.pairs) - FIRST
    elif finding.groups:
        lines = [" = ".join(group[:4]) + (" = …" if len(group) > 4 else "") for group in finding.groups[:FIRST]]
        rest = len(finding.groups) - FIRST
    elif finding.reasons:
        told = zip(finding.files, finding.reasons, strict=True)
        lines = [f"{name} ({reason})" for name, reason in list(told)[:FIRST]]
        rest = len(finding.files) - FIRST
    else:
        lines = [", ".join(finding.files[:FIRST])] if finding.files else []
        rest = len(finding.files) - FIRST
    if rest > 0:
        lines[-1] += f" and {rest:,} more"
    return lines


def _several(classes: int) -> str:
    return f"{classes:,} class{'es' if classes != 1 else ''}"


def _count(n: int, what: str) -> str:
    return f"no {what}" if not n else f"{n:,} {what}{'s' if n > 1 else ''}"
