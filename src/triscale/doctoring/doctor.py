"""`doctor`: everything that is wrong with data, found in one go and told in order of severity."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from warnings import catch_warnings, filterwarnings

from triscale.data.decoding import MAX_PIXELS
from triscale.data.folders import Entry
from triscale.data.pictures import Files, Memory, Source
from triscale.data.splitting import SPLITS
from triscale.data.threads import ordered_map
from triscale.doctoring.copies import find_copies
from triscale.doctoring.examining import Examined, examine, examine_pixels
from triscale.doctoring.findings import Diagnosis, Finding, in_order
from triscale.doctoring.judging import forms_of, judge_classes, judge_files, judge_others, judge_pictures, sizes_of
from triscale.doctoring.surveying import Survey, survey

Progress = Callable[[str, int, int], None]


def doctor(path: str | Path, *, max_pixels: int = MAX_PIXELS, progress: Progress | None = None) -> Diagnosis:
    """Whether labelled pictures are sound to train on: class folders, a manifest or IDX files, as `data.read` takes.

    Every file is decoded in full, on all usable cores, and nothing is written. Where `read` stops at the first fault,
    this lists all: files that cannot be read or claim more than ``max_pixels`` pixels, faults of the layout, classes
    that cannot be learned, copies and near-duplicates within and across splits and classes, odd sizes and odd forms.

    A finding is an error where training or its test figure would be wrong: what `read` refuses, one picture under two
    classes, a test picture whose exact pixels are also in train or val, and near-duplicates of more than 1 % of the
    test pictures there. Near-duplicates: see `triscale.doctoring.likeness` for what the thresholds mean.

    ``progress`` is told (what is being done, done, total). Raises `UserError` where there is nothing at ``path``.
    """
    root = Path(path)
    found = survey(root, max_pixels)
    entries, facts, bad = _examine(found, max_pixels, progress)
    findings: list[Finding] = [
        *found.problems,
        *judge_files(bad, len(found.entries)),
        *judge_classes(found, entries, facts),
        *find_copies(entries, facts, partial(progress, "comparing pictures") if progress else None),
        *judge_pictures(entries, facts),
        *judge_others(found),
    ]
    classes = tuple(sorted({entry.label for entry in found.entries}))
    return Diagnosis(
        path=root,
        kind=found.kind,
        classes=classes,
        counts=_counts(entries, classes),
        findings=in_order(findings),
        sizes=sizes_of(facts),
        forms=forms_of(facts),
        places={entry.name: (entry.split, entry.label) for entry in found.entries},
        source=_source(found, entries, max_pixels),
        positions={entry.name: i for i, entry in enumerate(entries)},
    )


def _examine(
    found: Survey, max_pixels: int, progress: Progress | None
) -> tuple[list[Entry], list[Examined], list[tuple[Entry, str]]]:
    """The readable pictures, what is known of each, and the others with their reasons."""
    entries, facts, bad = [], [], []
    with _quiet_pillow():
        for i, result in enumerate(_results(found, max_pixels)):
            if isinstance(result, str):
                bad.append((found.entries[i], result))
            else:
                entries.append(found.entries[i])
                facts.append(result)
            if progress is not None:
                progress("reading pictures", i + 1, len(found.entries))
    return entries, facts, bad


def _results(found: Survey, max_pixels: int) -> Iterator[Examined | str]:
    if found.pixels is not None:
        return ordered_map(examine_pixels, found.pixels)
    return ordered_map(partial(examine, max_pixels=max_pixels), found.entries)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """A warning about odd metadata says nothing that the decode does not."""
    with catch_warnings():
        filterwarnings("ignore", module=r"PIL\.")
        yield


def _counts(entries: Sequence[Entry], classes: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    """split → class → pictures, for the splits that the data brings."""
    counts = Counter((entry.split, entry.label) for entry in entries)
    present = {entry.split for entry in entries} or {"train"}
    return {split: {label: counts[split, label] for label in classes} for split in SPLITS if split in present}


def _source(found: Survey, entries: Sequence[Entry], max_pixels: int) -> Source:
    if found.pixels is not None:
        return Memory(found.pixels)
    return Files(tuple(entry.path for entry in entries), 3, max_pixels)
