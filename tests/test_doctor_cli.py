"""`triscale doctor` as a person or a script meets it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_data import truncated
from conftest import Answer
from doctored import picture, sound, state
from markup import Outline
from pictures import digit_folder
from PIL import Image

from triscale.doctoring import doctor
from triscale.errors import UserError
from triscale.reporting.diagnosis import write_diagnosis

Triscale = Callable[..., Answer]


def spoiled(root: Path) -> Path:
    """Something of every sort: bad files, copies, near-duplicates, odd forms, a class with a name like markup."""
    sound(root, "train", "test", classes=("cat", "<b>dog"))
    truncated(root / "train" / "cat" / "cut.jpg", "jpg")
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "copy.png")
    shutil.copy(root / "train" / "cat" / "1.png", root / "train" / "<b>dog" / "other.png")
    picture(2).save(root / "test" / "cat" / "near.jpg", quality=60)
    Image.new("RGB", (40, 40), "red").save(root / "train" / "cat" / "blank.png")
    (root / "train" / "void").mkdir()
    return root


def test_sound_data_exits_with_0_and_names_what_to_do_next(triscale: Triscale, tmp_path: Path) -> None:
    code, out, errors = triscale("doctor", sound(tmp_path))
    assert code == 0
    assert "sound: no error, no warning" in out
    assert f"next: triscale fit {tmp_path}" in errors


def test_unsound_data_exits_with_3_and_names_files_and_ways_out(triscale: Triscale, tmp_path: Path) -> None:
    code, out, errors = triscale("doctor", spoiled(tmp_path))
    assert code == 3
    for word in ("train/cat/cut.jpg (damaged", "--on-bad skip", "test/cat/copy.png = train/cat/0.png", "train/void"):
        assert word in out
    severities = [line.split()[0] for line in out.splitlines() if line.startswith(("error", "warning", "note"))]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert "next: triscale doctor" in errors
    assert "--out" in errors


def test_json_is_one_object_that_says_it_all(triscale: Triscale, tmp_path: Path) -> None:
    root = spoiled(tmp_path)
    code, out, errors = triscale("doctor", root, "--json")
    assert (code, errors) == (3, "")
    told = json.loads(out)
    assert told["sound"] is False
    assert told["path"] == str(root)
    assert told["kind"] == "folder"
    assert told["counts"]["train"] == {"<b>dog": 6, "cat": 6}
    assert told["classes"] == ["<b>dog", "cat"]
    kinds = {finding["kind"]: finding for finding in told["findings"]}
    assert set(kinds) >= {"unreadable", "leak", "conflict", "near_leak", "empty_class", "blank"}
    for finding in told["findings"]:
        assert finding["severity"] in ("error", "warning", "note")
        assert finding["count"] >= 1
        assert finding["message"]
    assert kinds["near_leak"]["pairs"][0]["files"] == ["test/cat/near.jpg", "train/cat/2.png"]


@pytest.mark.parametrize("out", ["check.txt", "nowhere/check.html", "images/check.html", "images/cat/check.html"])
def test_a_page_is_written_beside_the_data_only(triscale: Triscale, tmp_path: Path, out: str) -> None:
    root = sound(tmp_path / "images")
    before = state(root)
    code, _, errors = triscale("doctor", root, "--out", tmp_path / out)
    assert code == 2
    assert out in errors
    assert state(root) == before


def test_what_is_not_there_is_the_users_mistake(triscale: Triscale) -> None:
    code, out, errors = triscale("doctor", "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere" in errors
    assert triscale("doctor", "nowhere", "--json")[1].startswith('{"error"')


def test_the_page_shows_every_finding_and_fetches_nothing(triscale: Triscale, tmp_path: Path) -> None:
    root, place = spoiled(tmp_path / "images"), tmp_path / "check.html"
    before = state(root)
    assert triscale("doctor", root, "--out", place)[0] == 3
    page = place.read_text(encoding="utf-8")
    outline = Outline(page)
    assert "Unsound" in outline.text
    for finding in doctor(root).findings:
        assert finding.message in outline.text
        assert finding.advice in outline.text
    assert "<b>dog, train" in outline.text
    assert sum(address.startswith("data:image/") for address in outline.addresses) >= 7
    assert all(address.startswith("data:image/") for address in outline.addresses)
    assert "script" not in outline.tags
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert state(root) == before


def test_a_page_can_be_made_of_data_with_nothing_in_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_diagnosis(doctor(tmp_path / "images"), tmp_path / "check.html")
    assert "no class folders" in Outline((tmp_path / "check.html").read_text()).text


def test_a_picture_that_has_gone_since_is_shown_by_its_name(tmp_path: Path) -> None:
    root = sound(tmp_path / "images")
    shutil.copy(root / "cat" / "0.png", root / "dog" / "copy.png")
    found = doctor(root)
    (root / "dog" / "copy.png").unlink()
    write_diagnosis(found, tmp_path / "check.html")
    assert "dog/copy.png" in Outline((tmp_path / "check.html").read_text()).text
    with pytest.raises(UserError, match=r"copy\.png"):
        found.picture("dog/copy.png")


def test_the_verb_explains_itself_with_an_example(triscale: Triscale) -> None:
    code, out, _ = triscale("doctor", "--help")
    assert code == 0
    assert "Example: triscale doctor" in " ".join(out.split())


def test_names_cannot_command_the_terminal_nor_break_a_line(triscale: Triscale, tmp_path: Path) -> None:
    images, odd = digit_folder(tmp_path / "images", classes=2), "two\x1b[31m\nlines"
    max(images.iterdir()).rename(images / odd)
    (images / odd / "bad\x9b2J.png").write_bytes(b"no picture")
    for words in (["doctor", images], ["fit", images, "--macs", "1M", "--out", tmp_path / "run"]):
        _, out, err = triscale(*words)
        assert not set(out + err) & {"\x1b", "\x9b"}
        assert "bad\\x9b2J.png" in out + err
    assert "two\\x1b[31m\\nlines" in triscale("doctor", images)[1]
