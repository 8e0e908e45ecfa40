"""Photographs in class folders, out of the stamps that a Debian package carries for a children's drawing program.

    apt-get install --no-install-recommends tuxpaint-stamps-default
    .venv/bin/python examples/stamps.py /usr/share/tuxpaint/stamps OUT

Of tuxpaint-stamps-default 2022.06.04-1 this makes 213 pictures of 7 classes: 18 to 51 a class, a third of them with a
short side below 100 pixels, each a thing cut out of its photograph (of a few, a painting), the rest transparent.
Nothing is downloaded, and STAMPS is only read. Of its 796 PNG files, drawings, letters and signs stay out, and what
fits no class or has too few of its kind; its SVG files are not read.

Licences: the package's copyright file puts every file under GPL-2. Its changelog names others for single pictures, the
herons (CC BY-SA 2.5), the fire truck (CC BY 2.5), the light bulb (GFDL) and pictures in the public domain among them.

A picture that shows the same photograph as an earlier one, be it mirrored or in another colour, is left out, or copies
of one photograph would stand on both sides of a split. The rule: on white, in gray, cut to what is drawn, each cell of
a 16×16 grid has two signs: brighter than its left neighbour or not, than its upper one or not (a dHash both ways). Of
the signs set in either picture, or in one and the other's mirror image, at most a fifth are set in one alone. It finds
four: two mirrored vehicles, a mirrored tape measure, a recoloured apple. The next nearest pair differs in 29 %.
"""

import argparse
import shlex
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from triscale.data.decoding import BadPictureError, Pixels, decode, read_bytes
from triscale.errors import UserError

PACKAGE = "tuxpaint-stamps-default"
WEIGHTS = "efficientnet_lite0"
GRID = 16
SAME_SHARE = 0.2
PAPER = 250  # grays from here on count as the white that transparency is laid on

# class: its folders (only the pictures right in them) and single pictures
CLASSES: dict[str, tuple[str, ...]] = {
    "bird": ("animals/birds",),
    "flower": ("plants/flowers",),
    "food": ("food/fruit", "food/nuts", "food/spices", "food/vegetables", "plants/mushrooms"),
    "hoofed": (
        "animals/mammals/bovines",
        "animals/mammals/camel",
        "animals/mammals/deer",
        "animals/mammals/equines",
        "animals/mammals/giraffe.png",
        "animals/mammals/hippopotamus.png",
        "animals/mammals/pig.png",
        "animals/mammals/pig_golden.png",
        "animals/mammals/pig_golden2.png",
        "animals/mammals/rhino_black.png",
        "animals/mammals/wildboar.png",
    ),
    "household": (
        "household",
        "household/arttools",
        "household/dishes",
        "household/dishes/utensils",
        "household/tools",
    ),
    "pawed": (
        "animals/mammals/bears",
        "animals/mammals/cats",
        "animals/mammals/dogs",
        "animals/mammals/rodents",
        "animals/marsupials",
        "animals/mammals/aquatic/otter.png",
        "animals/mammals/badger.png",
        "animals/mammals/ferret.png",
        "animals/mammals/rabbit_little.png",
    ),
    "vehicle": (
        "military/vehicles",
        "vehicles/auto",
        "vehicles/construction",
        "vehicles/cycle",
        "vehicles/flight",
        "vehicles/flight/planes",
        "vehicles/masstransit",
        "vehicles/race",
        "vehicles/ship",
        "vehicles/emergency/firetruck.png",
        "vehicles/garbagetruck.png",
    ),
}
LEFT_OUT = {
    "household/arttools/highlighter.png": "a drawing",
    "household/tools/cementmixer.png": "a machine on wheels among the tools",
    "household/tools/wrench_adjustable.png": "a drawing",
}

Signs = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stamp:
    """One picture of the package and its class."""

    label: str
    path: Path


def find(stamps: Path) -> list[Stamp]:
    """The pictures of every class, in the order of the table and of names.

    Raises `UserError` where the folder, or the pictures of a class, are missing.
    """
    if not stamps.is_dir():
        raise UserError(f"STAMPS: there is no folder '{stamps}'; install Debian's {PACKAGE} or name where it lies")
    left_out = {stamps / name for name in LEFT_OUT}
    found: list[Stamp] = []
    for label, places in CLASSES.items():
        paths: list[Path] = []
        for place in places:
            single = place.endswith(".png")
            paths += [stamps / place] if single else sorted((stamps / place).glob("*.png"))
        kept = [path for path in paths if path.is_file() and path not in left_out]
        if not kept:
            raise UserError(
                f"STAMPS: '{stamps}' has no picture of the class {label} ({', '.join(places[:2])}); "
                f"name the folder tuxpaint/stamps of Debian's {PACKAGE}"
            )
        found += [Stamp(label, path) for path in kept]
    return found


def signs(gray: Pixels) -> Signs:
    """uint8 [h, w] → bool [512]: whether each cell of a 16×16 grid is brighter than its left and its upper neighbour.

    What is drawn is cut out first, so neither the margin nor the size plays a part.
    """
    drawn = gray < PAPER
    if drawn.any():
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        gray = gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(np.ascontiguousarray(gray))
    across = np.asarray(image.resize((GRID + 1, GRID), Image.Resampling.BILINEAR)).astype(np.int16)
    down = np.asarray(image.resize((GRID, GRID + 1), Image.Resampling.BILINEAR)).astype(np.int16)
    return np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])


def difference(many: Signs, one: Signs) -> npt.NDArray[np.float64]:
    """bool [n, 512], [512] → [n]: of the signs set in either, the share set in one alone.

    A share of all signs would not do: two slim tools leave most of the grid white, and there every sign agrees.
    """
    either = (many | one).sum(axis=1)
    return np.asarray((many != one).sum(axis=1) / np.maximum(either, 1))


def sort_out(stamps: list[Stamp]) -> tuple[list[Stamp], list[tuple[Path, Path]]]:
    """(those to keep, pairs of one left out and the earlier one it looks like), over all classes.

    Raises `UserError` for a file that is no picture.
    """
    kept: list[Stamp] = []
    known: list[Signs] = []
    alike: list[tuple[Path, Path]] = []
    for stamp in stamps:
        try:
            gray = decode(read_bytes(stamp.path), channels=1)[:, :, 0]
        except BadPictureError as error:
            raise UserError(f"STAMPS: '{stamp.path}' cannot be read ({error}); install {PACKAGE} anew") from None
        plain, mirrored = signs(gray), signs(gray[:, ::-1])
        if known:
            before = np.stack(known)
            apart = np.minimum(difference(before, plain), difference(before, mirrored))
            nearest = int(apart.argmin())
            if apart[nearest] <= SAME_SHARE:
                alike.append((stamp.path, kept[nearest].path))
                continue
        kept.append(stamp)
        known.append(plain)
    return kept, alike


def check_out(out: Path, stamps: Path) -> None:
    """Raises `UserError` unless ``out`` is new or empty and does not lie in ``stamps``."""
    if out.resolve().is_relative_to(stamps.resolve()):
        raise UserError(f"OUT: '{out}' lies in '{stamps}', which is left as it is; name a folder elsewhere")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"OUT: '{out}' is no empty folder; name a new one")


def write(stamps: list[Stamp], out: Path) -> None:
    """Copies each picture to ``out``/class/name; of two with one name, the later gets its folder's name before it."""
    for stamp in stamps:
        folder = out / stamp.label
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / stamp.path.name
        if target.exists():
            target = folder / f"{stamp.path.parent.name}-{stamp.path.name}"
        shutil.copyfile(stamp.path, target)


def lay_out(stamps: Path, out: Path) -> None:
    """Writes the class folders and says what they hold. Raises `UserError`."""
    try:
        check_out(out, stamps)
        kept, alike = sort_out(find(stamps))
        write(kept, out)
    except OSError as error:
        raise UserError(f"'{error.filename}': {error.strerror}; name folders that can be read and written") from None
    for label, count in Counter(stamp.label for stamp in kept).items():
        print(f"{label:<14}{count:>4}")
    print(f"{'together':<14}{len(kept):>4}")
    for path, earlier in alike:
        print(f"left out: {path.relative_to(stamps)} looks like {earlier.relative_to(stamps)}")
    print(f"next: triscale fit {shlex.quote(str(out))} --weights {WEIGHTS} --out runs/stamps")


def main() -> None:
    """Lays the pictures out, or says in one line what is in the way."""
    parser = argparse.ArgumentParser(description="Lays photographs of a Debian package out in class folders.")
    parser.add_argument("stamps", metavar="STAMPS", type=Path, help=f"/usr/share/tuxpaint/stamps of {PACKAGE}")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    given = parser.parse_args()
    try:
        lay_out(given.stamps, given.out)
    except UserError as error:
        print(f"stamps.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
