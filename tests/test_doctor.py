"""What `doctor` promises: everything that is wrong is found in one go, and said in its severity."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_data import APART, BAD, COMPOSED, MANIFESTS, refusing, two_spellings
from doctored import only, picture, sound, state
from PIL import Image
from pngs import png

import triscale
from triscale.data import read
from triscale.doctoring import doctor
from triscale.errors import UserError


def test_sound_data_has_nothing_to_report(tmp_path: Path) -> None:
    for root in (sound(tmp_path / "a"), sound(tmp_path / "b", "train", "val", "test")):
        found = triscale.doctor(root)
        assert found.sound
        assert found.findings == ()
    assert found.counts == {split: {"cat": 5, "dog": 5} for split in ("train", "val", "test")}
    assert (found.pictures, found.classes, found.kind) == (30, ("cat", "dog"), "folder")
    assert found.sizes is not None
    assert found.sizes.median == (48, 48)


def test_the_data_is_as_it_was(tmp_path: Path) -> None:
    root = sound(tmp_path, "train", "test")
    (root / "train" / "cat" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "copy.png")
    before = state(root)
    assert not doctor(root).sound
    assert state(root) == before


@pytest.mark.parametrize("case", BAD)
def test_the_doctor_and_the_reader_agree_on_what_is_bad(tmp_path: Path, case: str) -> None:
    name, make, reason = BAD[case]
    root = sound(tmp_path)
    make(root / "cat" / name)
    found = doctor(root)
    finding = only(found, "bomb" if case == "bomb" else "unreadable")
    assert finding.severity == "error"
    assert reason in finding.reasons[0]
    skipped = read(root, on_bad="skip").skipped
    assert [(bad.name, bad.reason) for bad in skipped] == list(zip(finding.files, finding.reasons, strict=True))


def test_everything_bad_is_listed_at_once(tmp_path: Path) -> None:
    root = sound(tmp_path)
    for case, (name, make, _) in BAD.items():
        make(root / "cat" / f"{case}-{name}")
    found = doctor(root)
    assert only(found, "unreadable").count == len(BAD) - 1
    assert only(found, "bomb").count == 1
    assert found.pictures == 10


def test_the_cap_on_pixels_is_the_callers(tmp_path: Path) -> None:
    root = sound(tmp_path)
    picture(99, 200).save(root / "cat" / "large.png")
    assert doctor(root).sound
    assert only(doctor(root, max_pixels=48 * 48), "bomb").files == ("cat/large.png",)


def spoil_copy(root: Path) -> None:
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "copy.png")


def spoil_anew(root: Path) -> None:
    Image.open(root / "train" / "cat" / "0.png").save(root / "test" / "cat" / "anew.bmp")


def spoil_gray(root: Path) -> None:
    gray = picture(50).convert("L")
    gray.save(root / "train" / "cat" / "gray.png")
    gray.convert("RGB").save(root / "test" / "cat" / "gray.tif")


@pytest.mark.parametrize("spoil", [spoil_copy, spoil_anew, spoil_gray])
def test_a_test_picture_that_is_also_in_train_is_an_error_in_whatever_format(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    root = sound(tmp_path, "train", "test")
    spoil(root)
    finding = only(doctor(root), "leak")
    assert (finding.severity, finding.count) == ("error", 1)
    assert {name.split("/")[0] for name in finding.groups[0]} == {"train", "test"}
    assert "1 of 11 test pictures" in finding.message


def test_copies_elsewhere_are_warnings(tmp_path: Path) -> None:
    root = sound(tmp_path, "train", "val", "test")
    shutil.copy(root / "train" / "cat" / "0.png", root / "val" / "cat" / "copy.png")
    shutil.copy(root / "train" / "dog" / "0.png", root / "train" / "dog" / "copy.png")
    found = doctor(root)
    assert found.sound
    assert only(found, "leak_val").files == ("train/cat/0.png", "val/cat/copy.png")
    assert only(found, "copies").groups == (("train/dog/0.png", "train/dog/copy.png"),)


def test_copies_that_a_carved_split_may_part_are_told_apart(tmp_path: Path) -> None:
    root = sound(tmp_path)
    shutil.copy(root / "cat" / "0.png", root / "cat" / "copy.png")
    assert "carved" not in only(doctor(root), "copies").message
    Image.open(root / "cat" / "0.png").save(root / "cat" / "anew.bmp")
    assert "carved" in only(doctor(root), "copies").message


def test_one_picture_under_two_classes_is_an_error(tmp_path: Path) -> None:
    root = sound(tmp_path)
    shutil.copy(root / "cat" / "0.png", root / "dog" / "copy.png")
    found = doctor(root)
    assert only(found, "conflict").severity == "error"
    assert only(found, "conflict").groups == (("cat/0.png", "dog/copy.png"),)
    assert [finding.kind for finding in found.findings] == ["conflict"]


def test_a_recompressed_copy_across_splits_is_found(tmp_path: Path) -> None:
    root = sound(tmp_path, "train", "test")
    picture(3).resize((30, 30)).save(root / "test" / "cat" / "again.jpg", quality=60)
    finding = only(doctor(root), "near_leak")
    assert finding.severity == "error"
    assert {finding.pairs[0].first, finding.pairs[0].second} == {"train/cat/3.png", "test/cat/again.jpg"}
    assert finding.pairs[0].likeness > 0.96


def test_near_duplicates_of_less_than_a_hundredth_of_the_test_are_a_warning(tmp_path: Path) -> None:
    root = sound(tmp_path, "train", "test", each=60)
    picture(3).save(root / "test" / "cat" / "again.jpg", quality=60)
    found = doctor(root)
    assert (only(found, "near_leak").severity, found.sound) == ("warning", True)
    picture(4).save(root / "test" / "cat" / "too.jpg", quality=60)
    assert not doctor(root).sound


def test_near_duplicates_within_train_and_under_two_classes_are_warnings(tmp_path: Path) -> None:
    root = sound(tmp_path)
    picture(0).save(root / "cat" / "again.jpg", quality=60)
    picture(1).save(root / "dog" / "again.jpg", quality=60)
    found = doctor(root)
    assert found.sound
    assert only(found, "near_copies").files == ("cat/0.png", "cat/again.jpg")
    assert only(found, "near_conflict").files == ("cat/1.png", "dog/again.jpg")


def as_cmyk(place: Path) -> None:
    picture(70).convert("CMYK").save(place / "x.jpg")


def as_alpha(place: Path) -> None:
    clear = picture(70).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(place / "x.png")


def as_wide(place: Path) -> None:
    values = np.asarray(picture(70).convert("L")).astype(np.uint16) * 257
    Image.fromarray(values).save(place / "x.png")


def as_turned(place: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(70).save(place / "x.jpg", exif=exif)


def as_frames(place: Path) -> None:
    picture(70).save(place / "x.gif", save_all=True, append_images=[picture(71)])


FORMS: dict[str, Callable[[Path], None]] = {
    "cmyk": as_cmyk,
    "alpha": as_alpha,
    "wide": as_wide,
    "turned": as_turned,
    "frames": as_frames,
    "gray": lambda place: picture(70).convert("L").save(place / "x.png"),
    "suffix": lambda place: picture(70).save(place / "x.jpg", "png"),
    "aspect": lambda place: picture(70).resize((200, 40)).save(place / "x.png"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_odd_forms_are_noted_and_sound(tmp_path: Path, kind: str) -> None:
    root = sound(tmp_path)
    FORMS[kind](root / "cat")
    found = doctor(root)
    assert found.sound
    finding = only(found, kind)
    assert (finding.severity, finding.count) == ("note", 1)
    assert finding.files[0].startswith("cat/x.")


def test_sixteen_bits_of_colour_are_noted(tmp_path: Path) -> None:
    root = sound(tmp_path)
    image = picture(70)
    wide = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    (root / "cat" / "x.png").write_bytes(png(48, 48, rows, depth=16))
    assert only(doctor(root), "wide").files == ("cat/x.png",)


def test_gray_pictures_that_give_a_class_away_are_a_warning(tmp_path: Path) -> None:
    root = sound(tmp_path)
    for i in range(6):
        picture(70 + i).convert("L").save(root / "cat" / f"gray{i}.png")
    finding = only(doctor(root), "gray")
    assert finding.severity == "warning"
    assert "'cat'" in finding.message


def test_blank_and_tiny_pictures_are_warnings(tmp_path: Path) -> None:
    root = sound(tmp_path)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(root / "cat" / "blank.png")
    picture(70, 12).save(root / "cat" / "tiny.png")
    found = doctor(root)
    assert only(found, "blank").files == ("cat/blank.png",)
    assert only(found, "small").files == ("cat/tiny.png",)
    assert {finding.severity for finding in found.findings} == {"warning"}


def test_files_that_are_not_used_are_listed(tmp_path: Path) -> None:
    root = sound(tmp_path)
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / "photo.HEIC").write_bytes(b"x")
    picture(70).save(root / "outside.png")
    found = doctor(root)
    assert found.sound
    assert only(found, "ignored").files == ("cat/notes.txt",)
    assert only(found, "unread_format").files == ("cat/photo.HEIC",)
    assert only(found, "loose").files == ("outside.png",)


def test_uneven_and_small_classes(tmp_path: Path) -> None:
    root = sound(tmp_path, each=30)
    for i in range(2, 30):
        (root / "dog" / f"{i}.png").unlink()
    found = doctor(root)
    assert found.sound
    assert only(found, "imbalance").severity == "warning"
    assert only(found, "few").files == ("dog",)


def test_all_faults_of_a_layout_are_found_with_all_others(tmp_path: Path) -> None:
    root = sound(tmp_path, "train", "test")
    (root / "train" / "void").mkdir()
    (root / "train" / "hollow").mkdir()
    (root / "test" / "zebra").mkdir()
    picture(80).save(root / "test" / "zebra" / "0.png")
    picture(81).save(root / "test" / "loose.png")
    shutil.copytree(root / "test" / "cat", root / "dev" / "cat")
    (root / "train" / "cat" / "zero.png").write_bytes(b"")
    found = doctor(root)
    assert only(found, "empty_class").files == ("train/hollow", "train/void")
    assert only(found, "unlearnable_class").files == ("zebra",)
    assert only(found, "unreadable").count == 1
    messages = " ".join(finding.message for finding in found.findings if finding.kind == "structure")
    assert "dev" in messages
    assert "loose pictures" in messages
    assert found.pictures == 21
    with pytest.raises(UserError):
        read(root)


def test_all_names_that_only_the_spelling_of_unicode_tells_apart_are_found_with_all_others(tmp_path: Path) -> None:
    root = sound(tmp_path, classes=("cat", COMPOSED, APART))
    two_spellings(root)
    for seed, name in enumerate((COMPOSED, APART, f"x {COMPOSED}", f"x {APART}")):
        picture(90 + seed).save(root / "cat" / f"{name}.png")
    (root / "cat" / "zero.png").write_bytes(b"")
    found = doctor(root)
    finding = only(found, "spelling")
    assert (finding.severity, finding.count) == ("error", 3)
    assert finding.files == (r"'cafe\u0301'", r"'cat/cafe\u0301.png'", r"'cat/x cafe\u0301.png'")
    assert finding.reasons[0] == r"beside 'caf\xe9'"
    assert only(found, "unreadable").count == 1
    assert found.pictures == 19
    assert len(found.positions) == 19, "each under a name of its own"
    with pytest.raises(UserError, match="one name in two spellings"):
        read(root)


@pytest.mark.parametrize("splits", [("val", "test"), ("train", "Train")])
def test_splits_that_cannot_be_told_are_an_error(tmp_path: Path, splits: tuple[str, ...]) -> None:
    root = sound(tmp_path, *splits)
    assert not doctor(root).sound
    with pytest.raises(UserError):
        read(root)


def test_classes_that_cannot_be_learned_or_tested(tmp_path: Path) -> None:
    assert only(doctor(sound(tmp_path / "one", classes=("cat",))), "one_class").severity == "error"
    assert only(doctor(sound(tmp_path / "two", each=2)), "no_split").severity == "error"
    root = sound(tmp_path / "three", "train", "test")
    shutil.rmtree(root / "test" / "dog")
    assert only(doctor(root), "untested").files == ("dog",)
    assert doctor(root).sound
    few = sound(tmp_path / "few", "train", "test", each=2)
    shutil.rmtree(few / "test" / "dog")
    assert only(doctor(few), "untested").files == ("dog",)
    assert only(doctor(few), "no_split").message.startswith("no val picture"), "`read` refuses it, too"
    for i in range(5):
        (root / "train" / "dog" / f"{i}.png").write_bytes(b"")
    assert only(doctor(root), "unlearnable_class").files == ("dog",)


def test_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        doctor(tmp_path / "nowhere")
    (tmp_path / "x.tsv").write_text("path\tlabel")
    with pytest.raises(UserError, match="manifest"):
        doctor(tmp_path / "x.tsv")
    (tmp_path / "hollow").mkdir()
    found = doctor(tmp_path / "hollow")
    assert "no class folders" in only(found, "structure").message
    assert (found.sound, found.pictures, found.sizes) == (False, 0, None)


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    root = sound(tmp_path)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "sister").symlink_to(root / "dog")
    (root / "cat" / "self").symlink_to(root / "cat" / "self")
    found = doctor(root)
    assert found.pictures == 10
    assert only(found, "ignored").files == ("cat/self",)


def test_folders_that_the_system_refuses_are_named_and_the_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sound(tmp_path, classes=("cat", "dog", "owl"))
    refusing("cat", monkeypatch)
    found = doctor(root)
    assert "Permission denied" in only(found, "structure").message
    assert found.pictures == 10


def manifest(tmp_path: Path, text: str) -> Path:
    (tmp_path / "d").mkdir()
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "list.csv").write_text(text)
    return tmp_path / "list.csv"


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_is_unsound_and_never_stops_the_doctor(tmp_path: Path, case: str) -> None:
    assert not doctor(manifest(tmp_path, MANIFESTS[case][0])).sound


def test_all_wrong_lines_of_a_manifest_are_listed(tmp_path: Path) -> None:
    text = "path,label,split\n0.png,a,train\n1.png,b,dev\n0.png,b,train\n,c,train\n2.png,d \n"
    found = doctor(manifest(tmp_path, text))
    finding = only(found, "manifest")
    assert [line.split(":")[0] for line in finding.files] == ["line 3", "line 4", "line 5", "line 6"]
    assert found.pictures == 1


def write_idx(root: Path, pictures: dict[str, list[np.ndarray]], labels: dict[str, list[int]]) -> Path:
    root.mkdir()
    for part, found in pictures.items():
        stacked = np.stack(found)
        head = struct.pack(">HBB3I", 0, 8, 3, *stacked.shape)
        (root / f"{part}-images-idx3-ubyte").write_bytes(head + stacked.tobytes())
        (root / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">HBBI", 0, 8, 1, len(found)) + bytes(labels[part])
        )
    return root


def test_idx_files_are_looked_through_too(tmp_path: Path) -> None:
    grays = [np.asarray(picture(i, 28).convert("L")) for i in range(16)]
    pictures = {"train": grays[:12], "t10k": [*grays[12:], grays[0]]}
    labels = {"train": [0, 1] * 6, "t10k": [0, 1, 0, 1, 1]}
    root = write_idx(tmp_path / "idx", pictures, labels)
    found = doctor(root)
    assert only(found, "leak").groups == (("train/00000", "test/00004"),)
    assert only(found, "conflict").count == 1
    assert np.array_equal(found.picture("test/00004")[:, :, 0], grays[0])
    content = (root / "train-images-idx3-ubyte").read_bytes()
    (root / "train-images-idx3-ubyte").write_bytes(content[:-1])
    assert "fetch the IDX file again" in only(doctor(root), "structure").message


def test_what_the_doctor_finds_sound_can_be_read(tmp_path: Path) -> None:
    for i, splits in enumerate([(), ("train", "test"), ("train", "valid"), ("TRAIN", "val", "test")]):
        root = sound(tmp_path / str(i), *splits)
        (root / ".hidden").mkdir()
        found, data = doctor(root), read(root)
        assert found.sound
        assert found.pictures == sum(len(split) for split in data.splits().values())
        assert found.classes == data.classes
        assert set(found.positions) == {name for split in data.splits().values() for name in split.names}


def test_progress_comes_to_its_end(tmp_path: Path) -> None:
    told: dict[str, tuple[int, int]] = {}
    doctor(sound(tmp_path), progress=lambda what, done, total: told.update({what: (done, total)}))
    assert told["reading pictures"] == (10, 10)
    assert told["comparing pictures"][0] == told["comparing pictures"][1]
