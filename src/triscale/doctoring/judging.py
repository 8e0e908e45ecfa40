"""What can be said of the pictures one by one and class by class, once each has been decoded."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePath

import numpy as np

from triscale.data.folders import Entry
from triscale.data.splitting import SPLITS, carve
from triscale.doctoring.examining import Examined
from triscale.doctoring.findings import Finding, Severity, Sizes, number
from triscale.doctoring.surveying import Survey

SMALL = 16  # pixels of the shorter side: what a network is fitted to at least
LONG = 4.0  # times as long as wide
UNEVEN, VERY_UNEVEN = 3.0, 10.0
FEW = 3  # pictures: fewer cannot be split in three
# Pictures to people and to other programs.
UNREAD = frozenset(
    "." + ending
    for group in ("heic heif avif jxl jp2 j2k jfif jpe ico svg psd tga", "dng cr2 cr3 nef arw orf rw2 raw")
    for ending in group.split()
)
TRAITS: Mapping[str, tuple[str, str]] = {
    "alpha": ("picture with transparency", "pictures with transparency"),
    "cmyk": ("picture in CMYK", "pictures in CMYK"),
    "wide": ("picture of 16 bits a channel", "pictures of 16 bits a channel"),
    "turned": ("picture that its EXIF turns", "pictures that their EXIF turns"),
    "frames": ("file of several pictures (an animation, or pages)", "files of several pictures (animations, or pages)"),
}


def judge_files(bad: Sequence[tuple[Entry, str]], listed: int) -> list[Finding]:
    """Files that cannot be read; headers that claim too much apart."""
    bombs = [(entry, reason) for entry, reason in bad if "(max_pixels)" in reason]
    others = [(entry, reason) for entry, reason in bad if "(max_pixels)" not in reason]
    findings = []
    for kind, told, of_kind in (
        ("unreadable", "cannot be read", others),
        ("bomb", "not decoded: more pixels than is sane", bombs),
    ):
        if of_kind:
            message = f"{len(of_kind):,} of {number(listed, 'file')} {told}"
            names, reasons = tuple(e.name for e, _ in of_kind), tuple(reason for _, reason in of_kind)
            findings.append(Finding("error", kind, message, len(of_kind), names, reasons))
    return findings


def judge_classes(survey: Survey, entries: Sequence[Entry], facts: Sequence[Examined]) -> list[Finding]:
    """Whether every class can be learned, tested and told from another."""
    if not survey.entries:
        return []
    listed = {entry.label for entry in survey.entries}
    learned = Counter(entry.label for entry in entries if entry.split == "train")
    findings = []
    in_train = {entry.label for entry in survey.entries if entry.split == "train"}
    if len(in_train) == 1:
        told = f"one class only, {next(iter(in_train))!r}, and there is nothing to tell apart"
        findings.append(Finding("error", "one_class", told))

    def add(severity: Severity, kind: str, labels: Iterable[str], told: str) -> None:
        names = tuple(sorted(labels))
        if names:
            several = number(len(names), "class", "classes")
            findings.append(Finding(severity, kind, f"{several} {told}", len(names), names))

    add("error", "unlearnable_class", (c for c in listed if not learned[c]), "without a training picture")
    findings += _splits(entries, facts, learned)
    add("warning", "few", (c for c, n in learned.items() if n < FEW), f"of fewer than {FEW} training pictures")
    if len(learned) > 1:
        most, least = max(learned, key=learned.__getitem__), min(learned, key=learned.__getitem__)
        ratio = learned[most] / learned[least]
        if ratio >= UNEVEN:
            told = (
                f"uneven classes, {ratio:.3g} : 1 ({most!r} {learned[most]:,}, {least!r} {learned[least]:,} pictures)"
            )
            findings.append(Finding("warning" if ratio >= VERY_UNEVEN else "note", "imbalance", told))
    return findings


def _splits(entries: Sequence[Entry], facts: Sequence[Examined], learned: Mapping[str, int]) -> list[Finding]:
    """Classes that a test split of the data's own leaves out; and that no split can be carved."""
    tested = {entry.label for entry in entries if entry.split == "test"}
    untested = tuple(sorted(set(learned) - tested)) if tested else ()
    found = []
    if untested:
        told = f"{number(len(untested), 'class', 'classes')} without a test picture"
        found.append(Finding("warning", "untested", told, len(untested), untested))
    position = {label: i for i, label in enumerate(sorted({entry.label for entry in entries}))}
    labels = np.array([position[entry.label] for entry in entries], np.int64)
    names, digests = [entry.name for entry in entries], [fact.file for fact in facts]
    carved = set(carve([entry.split for entry in entries], labels, names, digests, seed=0))
    missing = [split for split in SPLITS[1:] if split not in carved]
    if missing:
        told = f"no {' and no '.join(missing)} picture, and no class with three pictures to carve one from"
        found.append(Finding("error", "no_split", told))
    return found


def judge_pictures(entries: Sequence[Entry], facts: Sequence[Examined]) -> list[Finding]:
    """Sizes, and how pictures are stored."""
    findings: list[Finding] = []

    def add(severity: Severity, kind: str, told: tuple[str, str], which: Callable[[Examined], object]) -> None:
        files = tuple(entry.name for entry, fact in zip(entries, facts, strict=True) if which(fact))
        if files:
            findings.append(Finding(severity, kind, number(len(files), *told), len(files), files))

    all_small = bool(facts) and float(np.median([min(fact.h, fact.w) for fact in facts])) < SMALL
    small = (f"picture smaller than {SMALL} pixels", f"pictures smaller than {SMALL} pixels")
    add("note" if all_small else "warning", "small", small, lambda fact: min(fact.h, fact.w) < SMALL)
    blank = ("picture of nearly one colour", "pictures of nearly one colour")
    add("warning", "blank", blank, lambda fact: "blank" in fact.traits)
    long = (
        f"picture more than {LONG:.0f} times as long as wide",
        f"pictures more than {LONG:.0f} times as long as wide",
    )
    add("note", "aspect", long, lambda fact: max(fact.h, fact.w) > LONG * min(fact.h, fact.w))
    findings += _grays(entries, facts)
    for trait, told in TRAITS.items():
        add("note", trait, told, partial(_has, trait))
    lies = ("file whose suffix names another format", "files whose suffix names another format")
    add("note", "suffix", lies, lambda fact: fact.lies)
    return findings


def _has(trait: str, fact: Examined) -> bool:
    return trait in fact.traits


def _grays(entries: Sequence[Entry], facts: Sequence[Examined]) -> list[Finding]:
    """Gray pictures among coloured ones, or the other way round; worse where a class can be told by it."""
    kinds = {kind: [i for i, fact in enumerate(facts) if kind in fact.traits] for kind in ("gray", "colour")}
    few, many = sorted(kinds, key=lambda kind: len(kinds[kind]))
    if not kinds[few]:
        return []
    told = f"{number(len(kinds[few]), f'{few} picture')} among {len(kinds[many]):,} {many}"
    labels = {entries[i].label for i in kinds[few]}
    telling = len(labels) == 1 and len(kinds[few]) >= 5
    if telling:
        told += f", all of the class {next(iter(labels))!r}"
    files = tuple(entries[i].name for i in kinds[few])
    return [Finding("warning" if telling else "note", "gray", told, len(files), files)]


def judge_others(survey: Survey) -> list[Finding]:
    """Files that lie there and are not used."""
    unread = [name for name in survey.ignored if PurePath(name).suffix.lower() in UNREAD]
    other = [name for name in survey.ignored if PurePath(name).suffix.lower() not in UNREAD]
    findings = []
    if survey.loose:
        told = f"{number(len(survey.loose), 'picture')} outside the class folders, not used"
        findings.append(Finding("warning", "loose", told, len(survey.loose), tuple(survey.loose)))
    if unread:
        told = f"{number(len(unread), 'file')} in formats that are not read ({_suffixes(unread)})"
        findings.append(Finding("warning", "unread_format", told, len(unread), tuple(unread)))
    if other:
        told = f"{number(len(other), 'file that is no picture', 'files that are no pictures')} ({_suffixes(other)})"
        findings.append(Finding("note", "ignored", told, len(other), tuple(other)))
    return findings


def _suffixes(names: Sequence[str]) -> str:
    counts = Counter(PurePath(name).suffix.lower() or "without a suffix" for name in names)
    return ", ".join(f"{suffix} {n:,}" for suffix, n in counts.most_common(4))


def sizes_of(facts: Sequence[Examined]) -> Sizes | None:
    """None where there is no picture."""
    if not facts:
        return None
    sizes = sorted(((fact.h, fact.w) for fact in facts), key=lambda size: size[0] * size[1])
    median = (int(np.median([h for h, _ in sizes])), int(np.median([w for _, w in sizes])))
    return Sizes(sizes[0], median, sizes[-1])


def forms_of(facts: Sequence[Examined]) -> dict[str, int]:
    """How pictures are stored → how many."""
    counts = Counter(trait for fact in facts for trait in fact.traits if trait != "blank")
    order = ("gray", "colour", "alpha", "palette", "cmyk", "wide", "turned", "frames")
    return {form: counts[form] for form in order if counts[form]}
