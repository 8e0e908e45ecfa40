"""`examples/letters.py`: whole families to a split, nothing twice, nothing that is no letter."""

import importlib
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from example_scripts import ROOT, run_example
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from PIL import Image

import triscale

pytestmark = pytest.mark.slow  # an example: hundreds of glyphs are drawn

sys.path.insert(0, str(ROOT / "examples"))
letters, letters_fonts = map(importlib.import_module, ("letters", "letters_fonts"))
LETTERS = letters_fonts.CHARACTERS
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
# Four groups: two families that share their first word, one with two styles, two more. The last has no letters.
USED = (
    "DejaVuSans",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
    "cmr10",
    "cmtt10",
    "STIXSizOneSymReg",
)
GROUPS = ({"deja_vu_sans", "deja_vu_serif"}, {"stix_general"}, {"cmr"}, {"cmtt"})


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_example("letters.py", "--size", 32, *arguments, timeout=120)


def copy(folder: Path, names: tuple[str, ...] = USED) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        shutil.copyfile(FONTS / f"{name}.ttf", folder / f"{name}.ttf")
    return folder


def change(source: str, target: Path, family: str, keep: str | None = None) -> None:
    """Saves one of matplotlib's fonts under another family, with the glyphs of ``keep`` alone."""
    font = TTFont(FONTS / f"{source}.ttf")
    if keep is not None:
        subsetter = Subsetter(Options(notdef_outline=True, name_IDs=["*"]))
        subsetter.populate(text=keep)
        subsetter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 16):
            record.string = family
    font.save(target)


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def families(out: Path) -> dict[str, set[str]]:
    """The splits in which each family is found."""
    found = defaultdict(set)
    for path in out.glob("*/*/*.png"):
        found[path.name.split("-")[0]].add(path.parts[-3])
    return found


def fonts(out: Path) -> dict[str, set[str]]:
    """The classes of each family."""
    found = defaultdict(set)
    for path in out.glob("*/*/*.png"):
        found[path.name.split("-")[0]].add(path.parent.name)
    return found


def one_error(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("letters")
    done = run("--fonts", copy(place / "fonts"), "--out", place / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out: 1 with fewer than 55 different letters and digits" in done.stdout
    assert len(list((place / "out").glob("*/*/*.png"))) == 6 * 62
    assert {path.name for path in place.iterdir()} == {"fonts", "out"}
    return place / "out"


def test_no_family_and_no_two_that_share_a_first_word_are_in_two_splits(made: Path) -> None:
    found = families(made)
    assert {len(splits) for splits in found.values()} == {1}
    assert set(found) == set.union(*GROUPS)
    assert all(len(set.union(*(found[family] for family in group))) == 1 for group in GROUPS)
    assert set.union(*found.values()) == {"train", "val", "test"}


def test_no_picture_is_there_twice(made: Path) -> None:
    pixels = [sha256(Image.open(path).tobytes()).digest() for path in made.rglob("*.png")]
    assert len(pixels) == len(set(pixels))


def test_a_picture_whose_pixels_are_there_already_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same face twice, against all sorting out, with no luck in its size and place: train keeps what test loses."""
    face = next(letters_fonts.faces_of(FONTS / "cmr10.ttf"))

    class Luck:
        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

    monkeypatch.setattr(letters, "chance", lambda *_: Luck())
    splits = {"train": [[face]], "val": [], "test": [[face]]}
    counts, again = letters.draw(splits, tmp_path, letters.Asked((), tmp_path, 32))
    assert (counts["train"], counts["test"], again) == (62, 0, 62)
    assert not (tmp_path / "test").exists()


def test_every_class_has_a_folder_of_its_own_whatever_the_case(made: Path) -> None:
    names = {path.name for path in made.glob("train/*")}
    assert len(names) == len({name.casefold() for name in names}) == 62
    assert {"digit_0", "upper_A", "lower_a"} <= names
    assert {path.name for path in made.glob("test/*")} == names


def test_letters_are_dark_on_light_and_not_cut_off(made: Path) -> None:
    for path in made.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (32, 32))
            gray = np.asarray(image)
        edge = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
        assert edge.min() > 200, path
        assert gray.min() < 128, path


def test_capitals_are_larger_than_small_letters_of_their_shape(made: Path) -> None:
    """Or o and O could not be told apart."""
    heights = defaultdict(list)
    for path in made.rglob("*.png"):
        with Image.open(path) as image:
            heights[path.parent.name].append(np.flatnonzero((np.asarray(image) < 128).any(axis=1)).size)
    assert all(np.mean(heights[f"upper_{c}"]) > 1.2 * np.mean(heights[f"lower_{c.lower()}"]) for c in "COSVXZ")
    assert 0.4 * 32 < np.mean(heights["upper_H"]) < 0.7 * 32


def test_the_doctor_finds_the_set_sound_with_splits_of_its_own(made: Path) -> None:
    diagnosis = triscale.doctor(made)
    assert diagnosis.sound
    assert {finding.kind for finding in diagnosis.findings} <= {"near_conflict", "near_leak", "near_copies", "few"}


def test_the_same_fonts_in_another_folder_make_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again = copy(tmp_path / "elsewhere/z")
    (again / "DejaVuSans.ttf").rename(tmp_path / "elsewhere/a.ttf")
    assert run("--fonts", tmp_path / "elsewhere", "--out", tmp_path / "out").returncode == 0
    assert contents(tmp_path / "out") == contents(made)


def test_another_seed_makes_other_pictures(made: Path, tmp_path: Path) -> None:
    assert run("--fonts", made.parent / "fonts", "--out", tmp_path / "out", "--seed", 1).returncode == 0
    ours, others = contents(made), contents(tmp_path / "out")
    assert not set(ours.values()) & set(others.values())


def test_glyphs_that_the_font_lacks_are_skipped_and_fonts_that_lack_many_left_out(tmp_path: Path) -> None:
    folder = copy(tmp_path / "fonts", ("STIXGeneral", "cmr10", "DejaVuSerif"))
    change("DejaVuSans", folder / "some.ttf", "Lacking Some", LETTERS.replace("Q", "").replace("7", ""))
    change("DejaVuSansMono", folder / "many.ttf", "Lacking Many", LETTERS[:36])
    done = run("--fonts", folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = fonts(tmp_path / "out")
    assert set(found) == {"stix_general", "cmr", "deja_vu_serif", "lacking_some"}
    assert {len(found[family]) for family in ("stix_general", "cmr", "deja_vu_serif")} == {62}
    assert found["cmr"] - found["lacking_some"] == {"upper_Q", "digit_7"}


def test_a_copy_under_another_name_is_left_out_and_one_of_other_width_stays_in_its_group(tmp_path: Path) -> None:
    folder = copy(tmp_path / "fonts", ("STIXGeneral", "cmr10", "cmtt10", "DejaVuSans"))
    change("STIXGeneral", folder / "copy.ttf", "Quite Another")
    wide = TTFont(FONTS / "cmr10.ttf")
    for name in wide["glyf"].keys():  # noqa: SIM118
        glyph = wide["glyf"][name]
        if glyph.numberOfContours > 0:
            glyph.coordinates.scale((1.5, 1))
            glyph.recalcBounds(wide["glyf"])
    for record in wide["name"].names:
        if record.nameID == 1:
            record.string = "Wider"
    wide.save(folder / "wide.ttf")
    done = run("--fonts", folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 that look like another" in done.stdout
    found = families(tmp_path / "out")
    assert len({"stix_general", "quite_another"} & set(found)) == 1
    assert found["cmr"] == found["wider"]


def test_letters_in_the_places_of_others_are_not_recognised() -> None:
    faces_of, rng = letters_fonts.faces_of, np.random.default_rng(0)
    plain = [next(faces_of(FONTS / f"{name}.ttf")) for name in USED[:6]]
    faces = [
        replace(face, looks=np.clip(face.looks + rng.normal(0, 20, face.looks.shape), 0, 255).astype(np.uint8))
        for face in plain
        for _ in range(8)
    ]
    shuffled = replace(plain[0], looks=rng.permutation(plain[0].looks))
    capitals = replace(plain[0], looks=plain[0].looks[[*range(36), *range(10, 36)]])
    shares = letters_fonts.recognised([*faces, shuffled, capitals])
    assert shares[:-2].min() > 0.9
    assert shares[-2:].max() < letters_fonts.RECOGNISED


def test_a_web_font_looks_as_its_original(tmp_path: Path) -> None:
    font = TTFont(FONTS / "cmr10.ttf")
    font.flavor = "woff"
    font.save(tmp_path / "web.woff")
    ours, theirs = (next(letters_fonts.faces_of(path)) for path in (FONTS / "cmr10.ttf", tmp_path / "web.woff"))
    assert ours.order == theirs.order


def test_at_most_so_many_styles_of_a_family_are_drawn(tmp_path: Path) -> None:
    folder = copy(tmp_path / "fonts", ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmtt10"))
    done = run("--fonts", folder, "--out", tmp_path / "out", "--most-styles", 2)
    assert "left out: 1 beyond 2 styles of a family" in done.stdout
    assert len({path.name for path in (tmp_path / "out").rglob("stix*.png")}) == 2


def test_an_out_that_holds_something_is_refused_and_left_as_it_is(made: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "taken", tmp_path / "taken/mine.txt"):
        one_error(run("--fonts", made.parent / "fonts", "--out", out), "is no empty folder")
    assert contents(tmp_path) == {"taken/mine.txt": b"mine"}


def test_what_is_in_the_way_is_said_in_one_line_and_nothing_is_left_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    one_error(run("--fonts", tmp_path / "none", "--out", out), "there is no folder")
    (tmp_path / "empty").mkdir()
    one_error(run("--fonts", tmp_path / "empty", "--out", out), "install some of Debian's fonts-*")
    one_error(
        run("--fonts", copy(tmp_path / "symbols", USED[-1:]), "--out", out), "no font there has the Latin letters"
    )
    one_error(run("--fonts", copy(tmp_path / "single", USED[:2]), "--out", out), "too few")
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "symbols", "single"}


def test_the_largest_tenth_of_the_groups_goes_to_train() -> None:
    face, asked = letters_fonts.Face, letters.Asked
    none = np.zeros((62, 324), np.uint8)

    def members(number: int, count: int) -> list[Any]:
        return [face(Path(), 0, f"family {number}", f"style {k}", none, none[:, 0]) for k in range(count)]

    groups = [members(0, 40), members(1, 30), *(members(k, 2) for k in range(2, 20))]
    for seed in range(20):
        splits = letters.split(groups, asked((), Path(), seed=seed))
        counts = {name: sum(map(len, found)) for name, found in splits.items()}
        assert counts["test"] == 22
        assert counts["val"] == 10
        assert splits["train"][:2] == groups[:2]


def test_a_group_that_would_overfill_a_split_goes_elsewhere() -> None:
    face, asked = letters_fonts.Face, letters.Asked
    none = np.zeros((62, 324), np.uint8)
    sizes = (8, 7, 2, 2, 1, 1, 1)
    groups = [[face(Path(), 0, f"family {k}", str(n), none, none[:, 0]) for n in range(k)] for k in sizes]
    for seed in range(20):
        splits = letters.split(groups, asked((), Path(), seed=seed))
        assert 1 <= sum(map(len, splits["test"])) <= 5
        assert 1 <= sum(map(len, splits["val"])) <= 3
        assert sum(map(len, splits.values())) == len(groups)


def test_names_tell_families_apart_from_styles() -> None:
    family = letters_fonts.family_of
    assert family("Lato Black") == family("Lato") == family("Lato Semibold Condensed") == "lato"
    assert family("DejaVu Sans Mono").split()[0] == family("DejaVuSerif").split()[0]
    assert family("Bold") == "bold"
    assert family("漢字") == ""


def test_the_list_of_packages_is_sorted_and_holds_names_alone() -> None:
    lines = (ROOT / "examples/letters-packages.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if not line.startswith("#")]
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) for name in names)
