"""The page of a comparison."""

import hashlib
import shlex
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markup import Outline, check_self_contained
from pictures import digit_folder
from tables import made_run, predictions

from triscale.data import read
from triscale.data.spelling import Spelled
from triscale.evaluating import Comparison, Predictions, compare
from triscale.evaluating.comparison import compared
from triscale.reporting.comparison import MOST, find_pictures, write_comparison


def of_files(folder: Path, data: Path) -> tuple[Path, Path]:
    """Two runs with answers to the pictures of a folder, one always right, one never."""
    names = tuple(sorted(str(path.relative_to(data)) for path in data.rglob("*.png")))
    digests = tuple(hashlib.sha256((data / name).read_bytes()).digest() for name in names)
    labels = np.array([int(name.split("/")[0][-1]) for name in names])
    shares = np.full((len(names), 2), 0.1, np.float32)
    shares[np.arange(len(names)), labels] = 0.9
    right = Predictions(names, labels, shares, ("digit-0", "digit-1"), digests)
    wrong = replace(right, probabilities=1 - shares)
    return (
        made_run(folder / "right", right.table, data=data),
        made_run(folder / "wrong", wrong.table, data=data),
    )


def page(comparison: Comparison, folder: Path) -> str:
    write_comparison(folder / "page.html", comparison)
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def flipped(tmp_path: Path) -> Comparison:
    data = digit_folder(tmp_path / "digits", classes=2, each=30)
    return compare(*of_files(tmp_path, data))


def test_the_page_fetches_nothing_and_runs_nothing(flipped: Comparison, tmp_path: Path) -> None:
    text = page(flipped, tmp_path)
    check_self_contained(text)
    assert "width=device-width" in text


def test_the_page_shows_the_pictures_that_flipped_and_not_endlessly(flipped: Comparison, tmp_path: Path) -> None:
    outline = Outline(page(flipped, tmp_path))
    assert len([address for address in outline.addresses if address.startswith("data:")]) == MOST
    assert "60 images; these 36" in outline.text
    assert "+100.00" in outline.text


def test_pictures_that_are_gone_or_changed_are_left_out_and_named(flipped: Comparison, tmp_path: Path) -> None:
    (tmp_path / "digits" / "digit-0" / "000.png").unlink()
    other = (tmp_path / "digits" / "digit-0" / "001.png").read_bytes()
    (tmp_path / "digits" / "digit-0" / "002.png").write_bytes(other)
    outline = Outline(page(flipped, tmp_path))
    assert len([address for address in outline.addresses if address.startswith("data:")]) == MOST - 2
    assert "digit-0/000.png" in outline.text
    assert "digit-0/002.png" in outline.text


def test_without_the_data_the_page_says_so(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "digits", classes=2, each=3)
    runs = of_files(tmp_path, data)
    data.rename(tmp_path / "moved")
    text = Outline(page(compare(*runs), tmp_path)).text
    assert "not where they were read" in text
    assert "digit-1/002.png" in text


def test_pictures_of_a_manifest_and_of_a_moved_table_are_found(flipped: Comparison, tmp_path: Path) -> None:
    assert len(find_pictures(tmp_path / "digits", flipped.flips)) == 60
    (tmp_path / "digits" / "list.csv").write_text("path,label\n")
    assert len(find_pictures(tmp_path / "digits" / "list.csv", flipped.flips)) == 60
    assert find_pictures(tmp_path / "nowhere", flipped.flips) == {}
    assert find_pictures(None, flipped.flips) == {}


def accented(data: Path) -> Comparison:
    """Two models on pictures in folders and files that the disk spells with accents apart, one of them in a folder that
    it spells in the other way too. Tables spell all names as one."""
    apart = unicodedata.normalize("NFD", "é")
    for label in (0, 1):
        pictures = sorted((data / f"digit-{label}").glob("*.png"))
        for folder, picture in zip((apart, "é", apart), pictures, strict=True):
            (data / f"digit-{label}" / folder).mkdir(exist_ok=True)
            picture.rename(data / f"digit-{label}" / folder / f"{apart}{picture.name}")
    images = read(data, seed=None).train
    right = np.eye(2, dtype=np.float32)[images.labels] * 0.8 + 0.1
    one = Predictions(images.names, images.labels, right, ("digit-0", "digit-1"), images.digests)
    assert all(unicodedata.is_normalized("NFC", name) for name in images.names)
    return compared(("a", "b"), (one.table, replace(one, probabilities=1 - right).table), data, "stored", (None, None))


def test_pictures_whose_names_the_disk_spells_otherwise_are_found(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "digits", classes=2, each=3)
    comparison = accented(data)
    assert len(find_pictures(data, comparison.flips)) == len(comparison.flips) == 6


@pytest.mark.parametrize("name", ["digit-0", "digit-0/none.png", "é/none.png", "digit-0/000.png/é", "\0/é", "é" * 300])
def test_names_of_no_file_are_found_nowhere(name: str, tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "digits", classes=1, each=1)
    assert Spelled(data).find(name) is None
    assert Spelled(data).find("digit-0/000.png") == data / "digit-0" / "000.png"


def test_the_next_command_names_a_picture_as_the_disk_spells_it(tmp_path: Path, triscale) -> None:  # noqa: ANN001
    data = digit_folder(tmp_path / "digits", classes=2, each=3)
    runs = [made_run(tmp_path / f"{i}", table, data=data) for i, table in enumerate(accented(data).tables)]
    code, _, err = triscale("compare", *runs, "--out", tmp_path / "page.html")
    assert code == 0
    command = shlex.split(err.split("next: ")[-1])
    assert command[:2] == ["triscale", "explain"]
    assert Path(command[3]).is_file()


def test_a_table_cannot_bring_other_files_into_the_page(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data" / "digits", classes=2, each=3)
    secret = digit_folder(tmp_path / "secret", classes=1, each=1) / "digit-0" / "000.png"
    found = predictions(2, 2, 0)
    names = (f"../../{secret.relative_to(tmp_path)}", str(secret))
    one = replace(found, names=names, labels=np.array([0, 0]), probabilities=np.eye(2, dtype=np.float32))
    two = replace(one, probabilities=one.probabilities[::-1])
    comparison = compared(("a", "b"), (one.table, two.table), data, "stored", (None, None))
    assert len(comparison.flips) == 2
    assert find_pictures(data, comparison.flips) == {}


def test_names_cannot_write_into_the_page(tmp_path: Path) -> None:
    found = predictions(40, 3, 0)
    names = tuple(f"<script>{i}</script>" for i in range(40))
    one = replace(found, names=names, classes=("<b>", "&amp;", "</style>"))
    two = replace(one, probabilities=predictions(40, 3, 1).probabilities)
    text = page(compared(("<i>", "b"), (one.table, two.table), None, "stored", (1, None)), tmp_path)
    assert "<script>" not in text
    assert "<script>0</script>" not in Outline(text).tags
    assert "copies of images that A learned from" in text


def test_no_flip_and_many_classes_make_a_page(tmp_path: Path) -> None:
    table = predictions(300, 60, 0).table
    text = Outline(page(compared(("a", "a"), (table, table), None, "stored", (0, 0)), tmp_path)).text
    assert text.count("None.") == 2
    assert "40 classes whose recall differs most" in text


def test_the_command_writes_the_page(tmp_path: Path, triscale) -> None:  # noqa: ANN001
    data = digit_folder(tmp_path / "digits", classes=2, each=3)
    right, wrong = of_files(tmp_path, data)
    code, out, err = triscale("compare", right, wrong, "--out", tmp_path / "page.html")
    assert code == 0
    assert str(tmp_path / "page.html") in out
    assert f"next: triscale explain {right} {data}/digit-" in err
    assert Outline((tmp_path / "page.html").read_text()).tags.count("svg") == 2
