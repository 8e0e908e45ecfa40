"""What `read` promises when the data is wrong: one line that names the culprit and a way out."""

import inspect
import os
import sys
from pathlib import Path

import pytest
from bad_data import APART, BAD, COMPOSED, MANIFESTS, complaint, folders, noise, refusing, two_spellings
from PIL import Image

from triscale.data import read
from triscale.data.folders import list_folder
from triscale.doctoring import doctor
from triscale.doctoring.surveying import survey
from triscale.errors import UserError


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_or_skipped_as_asked(tmp_path: Path, case: str) -> None:
    name, make, reason = BAD[case]
    root = folders(tmp_path, "a", "b")
    make(root / "a" / name)
    complaint(root, f"a/{name}", reason, "1 of 9", "--on-bad skip")
    data = read(root, on_bad="skip")
    assert [bad.name for bad in data.skipped] == [f"a/{name}"]
    assert reason in data.skipped[0].reason
    assert sum(len(split) for split in data.splits().values()) == 8


def test_the_cap_is_the_callers(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    assert len(read(root, max_pixels=64).train) == 4
    with pytest.raises(UserError, match="8×8"):
        read(root, max_pixels=63)


def test_a_class_with_no_readable_picture_is_named_even_when_skipping(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    (root / "c").mkdir()
    (root / "c" / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match="'c'"):
        read(root, on_bad="skip")


@pytest.mark.parametrize("seed", [None, 0])
def test_where_no_picture_can_be_read_the_folder_and_the_first_are_named(tmp_path: Path, seed: int | None) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 files") as caught:
        read(tmp_path, seed=seed, on_bad="skip")
    assert str(tmp_path) in str(caught.value)
    assert "'a/x.png' (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_not_data(tmp_path: Path) -> None:
    complaint(tmp_path / "nowhere", "nowhere", "does not exist")
    (tmp_path / "x.tsv").write_text("path\tlabel")
    complaint(tmp_path / "x.tsv", "x.tsv", "manifest")
    (tmp_path / "x.npz").write_bytes(b"PK")
    complaint(tmp_path / "x.npz", "x.npz", "or the folder of IDX files")
    (tmp_path / "hollow").mkdir()
    complaint(tmp_path / "hollow", "hollow", "class folders")
    with pytest.raises(UserError, match="'ignore'"):
        read(tmp_path, on_bad="ignore")  # type: ignore[arg-type]


def test_one_class(tmp_path: Path) -> None:
    complaint(folders(tmp_path, "only"), "one class", "'only'")


def test_empty_class_folder(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    (root / "empty").mkdir()
    (root / "empty" / "notes.txt").write_text("x")
    complaint(root, "empty", "no picture")


def test_too_few_to_carve(tmp_path: Path) -> None:
    complaint(folders(tmp_path, "a", "b", n=2), "val", "bring more")


def test_class_unknown_to_train(tmp_path: Path) -> None:
    folders(tmp_path / "train", "a", "b")
    folders(tmp_path / "test", "a", "zebra")
    complaint(tmp_path, "'zebra'", "test", "not in train")


def test_splits_that_cannot_be_told_apart(tmp_path: Path) -> None:
    folders(tmp_path / "val", "a", "b")
    folders(tmp_path / "test", "a", "b")
    complaint(tmp_path, "no train folder")
    folders(tmp_path / "train", "a", "b")
    folders(tmp_path / "dev", "a", "b")
    complaint(tmp_path, "dev", "none of train, val and test")
    (tmp_path / "dev").rename(tmp_path / "valid")
    complaint(tmp_path, "both the val split")


def test_loose_pictures_where_classes_belong(tmp_path: Path) -> None:
    folders(tmp_path / "train", "a", "b")
    (tmp_path / "test").mkdir()
    noise().save(tmp_path / "test" / "x.png")
    complaint(tmp_path, "test", "one folder per class")


@pytest.mark.parametrize("seed", [None, 0])
def test_pictures_that_only_the_spelling_of_unicode_tells_apart_are_refused(tmp_path: Path, seed: int | None) -> None:
    root = folders(tmp_path, "a", "b")
    (root / "c").mkdir()
    for shade, name in enumerate((COMPOSED, APART)):
        Image.new("RGB", (8, 8), (90 + shade, 1, 2)).save(root / "c" / f"{name}.png")
    two_spellings(root / "c")
    named = r"cafe\\u0301\.png' and .*caf\\xe9\.png' are one name .*; rename one"
    with pytest.raises(UserError, match=named) as caught:
        read(root, seed=seed)
    assert str(caught.value).isascii()


def test_class_folders_that_only_the_spelling_of_unicode_tells_apart_are_refused(tmp_path: Path) -> None:
    root = folders(tmp_path, COMPOSED, APART, "b")
    two_spellings(root)
    (root / APART / "0.png").rename(root / APART / "other.png")
    complaint(root, r"cafe\u0301' and ", r"caf\xe9' are one name")


def test_a_class_may_be_spelled_otherwise_in_another_split(tmp_path: Path) -> None:
    folders(tmp_path / "train", COMPOSED, "b")
    folders(tmp_path / "test", APART, "b")
    assert read(tmp_path).classes == ("b", COMPOSED)


def test_a_manifest_with_one_path_in_two_spellings_names_both(tmp_path: Path) -> None:
    for name in (COMPOSED, APART):
        noise().save(tmp_path / f"{name}.png")
    two_spellings(tmp_path)
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,label\n{COMPOSED}.png,a\n./{APART}.png,b\n", encoding="utf-8")
    complaint(manifest, "line 3", "in line 2", r"'caf\xe9.png'", r"'cafe\u0301.png'", "rename one of the files")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder_and_file(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    (root / "b" / "0.png").chmod(0)
    complaint(root, "b/0.png", "ermission")
    try:
        root.chmod(0)
        complaint(root, str(root), "cannot be read")
        complaint(root / "list.csv", "list.csv", "cannot be read")
        root.chmod(0o700)
        (root / "a").chmod(0)
        complaint(root, str(root / "a"), "cannot be read")
    finally:
        root.chmod(0o700)
        (root / "a").chmod(0o700)


def test_a_folder_the_system_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path, "a", "b")
    refusing("a", monkeypatch)
    complaint(root, str(root / "a"), "Permission denied")


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    text, words = MANIFESTS[case]
    (tmp_path / "d").mkdir()
    for i in range(2):
        noise().save(tmp_path / f"{i}.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text(text)
    complaint(manifest, words)


@pytest.mark.parametrize("line", ["{}", "path,label\n0.png,{} ", "path,label,split\n0.png,a,{}", "path,label\n\0{},a"])
def test_what_a_manifest_holds_is_told_in_a_line_that_can_be_read(tmp_path: Path, line: str) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(line.format("x" * 100_000) + "\n")
    with pytest.raises(UserError) as caught:
        read(manifest)
    told = [str(caught.value), *(finding.message for finding in doctor(manifest).findings)]
    assert all(len(line) < 300 + len(str(tmp_path)) for line in told)


def test_folders_may_be_nested_deeper_than_calls_may(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    deep = root / "a" / "/".join("d" * 120)
    deep.mkdir(parents=True)
    noise().save(deep / "deep.png")
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        listed, surveyed = list_folder(root), survey(root, 10**6)
    finally:
        sys.setrecursionlimit(usual)
    assert any(entry.path == deep / "deep.png" for entry in listed.entries)
    assert surveyed.entries == list(listed.entries)


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path, "a", "b")

    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    for look in (read, doctor):
        with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); make it readable"):
            look(root)


def test_a_manifest_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\né.png,a\n".encode("latin-1"))
    complaint(tmp_path / "list.csv", "UTF-8")


def test_a_manifest_with_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    rows = [f"{label}/{i}.png,{label}" for label in "ab" for i in range(4)]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8-sig")
    assert read(root / "list.csv").classes == ("a", "b")


def test_a_file_that_goes_bad_after_reading_is_named(tmp_path: Path) -> None:
    root = folders(tmp_path, "a", "b")
    data = read(root)
    (root / data.train.names[0]).unlink()
    with pytest.raises(UserError, match=data.train.names[0]):
        data.train.pixels(0)
