"""`examples/stamps.py` lays a package's pictures out in class folders, and leaves the package as it is."""

import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
from example_scripts import ROOT, run_example
from PIL import Image

from triscale.data.folders import list_folder

EXAMPLE = runpy.run_path(str(ROOT / "examples/stamps.py"))


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return run_example("stamps.py", *words, timeout=60)


def picture(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A blurred pattern of its own per seed, cut out by a transparent margin."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 220, (9, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    whole = Image.new("RGBA", (size[0] + 8, size[1] + 8), (0, 0, 0, 0))
    whole.paste(rough, (4, 4))
    return whole


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def fill(stamps: Path) -> Path:
    """Two pictures, with the sounds and texts beside them, in the first place of every class."""
    for number, places in enumerate(EXAMPLE["CLASSES"].values()):
        folder = stamps / places[0]
        for k, name in enumerate(("one", "two")):
            save(picture(2 * number + k), folder / f"{name}.png")
        (folder / "one.txt").write_text("One.\n", encoding="utf-8")
        (folder / "drawn.svg").write_text("<svg/>", encoding="utf-8")
    return stamps


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_every_class_gets_exact_copies_and_the_package_stays_as_it_is(tmp_path: Path) -> None:
    stamps, out = fill(tmp_path / "stamps"), tmp_path / "the out"
    before = state(stamps)
    done = run(stamps, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert state(stamps) == before
    assert names(out) == {f"{label}/{name}.png" for label in EXAMPLE["CLASSES"] for name in ("one", "two")}
    assert (out / "bird/one.png").read_bytes() == (stamps / "animals/birds/one.png").read_bytes()
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        *([label, "2"] for label in EXAMPLE["CLASSES"]),
        ["together", str(2 * len(EXAMPLE["CLASSES"]))],
    ]
    assert lines[-1] == f"next: triscale fit '{out}' --weights efficientnet_lite0 --out runs/stamps"


def test_what_it_writes_is_read_as_class_folders(tmp_path: Path) -> None:
    EXAMPLE["lay_out"](fill(tmp_path / "stamps"), tmp_path / "out")
    listing = list_folder(tmp_path / "out")
    assert {entry.label for entry in listing.entries} == set(EXAMPLE["CLASSES"])
    assert listing.ignored == 0


def test_mirrored_resized_and_recoloured_copies_are_left_out_across_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps, out = fill(tmp_path / "stamps"), tmp_path / "out"
    first = picture(0)  # bird/one.png
    r, g, b, a = first.split()
    save(first.transpose(Image.Transpose.FLIP_LEFT_RIGHT), stamps / "animals/birds/one_mirror.png")
    save(first.resize((256, 196)), stamps / "household/dishes/larger.png")
    save(
        Image.merge("RGBA", [band.point(lambda v: v // 2 + 60) for band in (r, g, b)] + [a]),
        stamps / "food/nuts/pale.png",
    )
    before = state(stamps)
    EXAMPLE["lay_out"](stamps, out)
    assert state(stamps) == before
    assert names(out) == {f"{label}/{name}.png" for label in EXAMPLE["CLASSES"] for name in ("one", "two")}
    said = capsys.readouterr().out.splitlines()
    assert {line for line in said if line.startswith("left out: ")} == {
        f"left out: {name} looks like animals/birds/one.png"
        for name in ("animals/birds/one_mirror.png", "household/dishes/larger.png", "food/nuts/pale.png")
    }


def test_slim_things_on_white_are_not_taken_for_one_another() -> None:
    def slanted(shape: float) -> np.ndarray:
        y, x = np.mgrid[:200, :200]
        return np.where(np.abs(x - y + 12 * np.sin(x / shape)) < 9, 60, 255).astype(np.uint8)

    one, two = EXAMPLE["signs"](slanted(9)), EXAMPLE["signs"](slanted(23))
    assert EXAMPLE["difference"](one[None], two)[0] > EXAMPLE["SAME_SHARE"]
    assert EXAMPLE["difference"](one[None], one)[0] == 0


def test_a_blank_picture_is_no_failure() -> None:
    blank = EXAMPLE["signs"](np.full((5, 7), 255, np.uint8))
    assert blank.shape == (512,)
    assert EXAMPLE["difference"](blank[None], blank).tolist() == [0.0]


def test_two_pictures_of_one_name_are_both_kept(tmp_path: Path) -> None:
    stamps = fill(tmp_path / "stamps")
    save(picture(100), stamps / "food/nuts/one.png")
    EXAMPLE["lay_out"](stamps, tmp_path / "out")
    assert {"food/one.png", "food/nuts-one.png"} <= names(tmp_path / "out")


def test_pictures_left_out_by_the_table_stay_out(tmp_path: Path) -> None:
    stamps = fill(tmp_path / "stamps")
    for number, name in enumerate(EXAMPLE["LEFT_OUT"]):
        save(picture(200 + number), stamps / name)
    save(picture(300), stamps / "animals/birds/cartoon/drawn.png")
    EXAMPLE["lay_out"](stamps, tmp_path / "out")
    assert len(names(tmp_path / "out")) == 2 * len(EXAMPLE["CLASSES"])


def one_error(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("stamps.py: ")
    assert said in done.stderr


def test_a_missing_or_unsuitable_folder_is_one_line_and_exit_2(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    one_error(run(tmp_path / "none", out), f"there is no folder '{tmp_path / 'none'}'")
    other.mkdir()
    one_error(run(other, out), "no picture of the class bird (animals/birds)")
    stamps = fill(tmp_path / "stamps")
    (stamps / "plants/flowers/torn.png").write_bytes(b"no picture")
    one_error(run(stamps, out), "torn.png' cannot be read")
    assert not out.exists()


def test_an_out_that_is_taken_or_within_the_package_is_refused(tmp_path: Path) -> None:
    stamps = fill(tmp_path / "stamps")
    before = state(stamps)
    one_error(run(stamps, stamps / "new"), "which is left as it is")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine", encoding="utf-8")
    one_error(run(stamps, taken), "is no empty folder")
    one_error(run(stamps, taken / "mine.txt"), "is no empty folder")
    one_error(run(stamps, taken / "mine.txt/out"), "")
    assert state(stamps) == before
    assert names(taken) == {"mine.txt"}


def test_every_picture_of_the_table_names_a_class_once() -> None:
    places = [place for group in EXAMPLE["CLASSES"].values() for place in group]
    assert len(places) == len(set(places))
    folders = {place for place in places if not place.endswith(".png")}
    assert not [p for p in places if p.endswith(".png") and Path(p).parent.as_posix() in folders]
    assert all(Path(name).parent.as_posix() in folders for name in EXAMPLE["LEFT_OUT"])
