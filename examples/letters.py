"""Letters and digits of many free fonts, in class folders with train, val and test: 62 classes at 96 pixels.

    apt-get install fonts-recommended fonts-aenigma fonts-texgyre      # as many fonts-* as you like
    .venv/bin/python examples/letters.py --out letters

Reads .ttf, .otf, .ttc, .woff and, where Pillow can, .woff2 files below the folders that --fonts names; otherwise below
/usr/share/fonts and, of npm's fontsource packages, node_modules/@fontsource*. Writes
OUT/SPLIT/CLASS/FONT.png: dark on light, gray, CLASS one of digit_0, upper_A, lower_a … (no two differ by case alone).
The same fonts, options and versions of Pillow and FreeType make the same bytes. Nothing is downloaded, and fonts are
only read. letters-packages.txt beside this file lists Debian packages to fetch fonts from without installing them.

Which pictures: capitals are 46 to 62 % of the picture's height, the other letters in the font's own proportion (or o
could not be told from O), the baseline up to 4 % and the middle up to 6 % off, by a number drawn from the seed, the
font and the letter. What would stick out is drawn smaller. A serif or a thin stroke is one or two of the 96 pixels:
resolution carries information.

Which fonts stay out: see letters_fonts.py.

Which split: a group of families goes to one split whole. One group are families that share the first word of their
names (DejaVu Sans, DejaVu Sans Mono), and families two of whose fonts have a mean correlation of 0.94 (Helvetica has
many names); groups join where either holds. Folders do not count: a single one may hold hundreds of unrelated families.
This parts too little rather than too much. Shares are of fonts; a group that would overfill test or val goes elsewhere,
and the largest tenth of the groups to train, or one design would fill the test. A picture whose pixels are there
already is left out, be it in train before test or under another class.
"""

import argparse
import math
import random
import shlex
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from letters_fonts import DRAWN, Face, Floats, Glyph, chance, find, glyphs_of, read, sort_out
from PIL import Image

from triscale.errors import UserError

PLACES = ("/usr/share/fonts", "node_modules/@fontsource", "node_modules/@fontsource-variable")
SPLITS = ("train", "val", "test")

CAPITAL = 240  # pixels of a capital's height before it is made smaller
KIN = 0.94
HEIGHTS = (0.46, 0.62)  # of a capital, in parts of the picture
BASELINE = 0.7
RISE, SHIFT = 0.04, 0.06
MARGIN = 0.03


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    fonts: tuple[Path, ...]
    out: Path
    size: int = 96
    seed: int = 0
    most_styles: int = 6
    val: float = 0.1
    test: float = 0.2


def class_of(character: str) -> str:
    """A folder's name, also where A and a are one name."""
    kind = "digit" if character.isdigit() else "upper" if character.isupper() else "lower"
    return f"{kind}_{character}"


def group(faces: list[Face], similarity: Floats) -> list[list[Face]]:
    """Faces that may not be parted: of families with one first word, or that look akin; largest groups first."""
    parent = list(range(len(faces)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    first: dict[str, int] = {}
    for number, face in enumerate(faces):
        parent[root(number)] = root(first.setdefault(face.family.split()[0], number))
    for one, other in zip(*np.nonzero(np.triu(similarity >= KIN, 1)), strict=True):
        parent[root(int(one))] = root(int(other))
    found: dict[int, list[Face]] = defaultdict(list)
    for number, face in enumerate(faces):
        found[root(number)].append(face)
    groups = [sorted(members, key=lambda face: face.order) for members in found.values()]
    return sorted(groups, key=lambda members: (-len(members), members[0].order))


def split(groups: list[list[Face]], asked: Asked) -> dict[str, list[list[Face]]]:
    """Whole groups: by chance, test and then val take what does not overfill them; train has the rest.

    Where every group is too large for a share, it is the smallest. Raises `UserError` where nothing is left for train.
    """
    total = sum(map(len, groups))
    large = len(groups) // 10
    left = sorted(groups[large:], key=lambda members: chance(asked.seed, *members[0].order).random())
    found: dict[str, list[list[Face]]] = {"train": [], "val": [], "test": []}
    for name, part in (("test", asked.test), ("val", asked.val)):
        room = math.ceil(part * total)
        for members in left:
            if len(members) <= room:
                found[name].append(members)
                room -= len(members)
        if part and left and not found[name]:
            found[name].append(min(left, key=len))
        left = [members for members in left if members not in found[name]]
    found["train"] = groups[:large] + left
    if not found["train"]:
        raise UserError(
            f"--fonts: {len(groups)} groups of unrelated families are too few for shares of {asked.test:g} and "
            f"{asked.val:g}; name more fonts, or smaller --test and --val"
        )
    return found


def picture(glyph: Glyph, capital: float, size: int, luck: random.Random) -> Image.Image:
    """The glyph on a square of ``size`` pixels; ``capital`` is the height of the font's capitals."""
    height, width = glyph.ink.shape
    room = size * (1 - 2 * MARGIN)
    scale = min(size * luck.uniform(*HEIGHTS) / capital, room / height, room / width)
    top = size * (BASELINE + luck.uniform(-RISE, RISE)) + glyph.top * scale
    left = (size - width * scale) / 2 + size * luck.uniform(-SHIFT, SHIFT)
    edge = size * MARGIN
    top, left = (min(max(at, edge), size - edge - long * scale) for at, long in ((top, height), (left, width)))
    side = int(np.ceil(size / scale)) + 2
    paper = np.zeros((side, side), np.uint8)
    row, column = int(top / scale), int(left / scale)
    paper[row : row + height, column : column + width] = glyph.ink
    # What is left of a whole pixel moves the window instead: positions are not rounded.
    x, y = column - left / scale, row - top / scale
    window = (x + 1, y + 1, x + 1 + size / scale, y + 1 + size / scale)
    whole = Image.fromarray(np.pad(paper, 1)).resize((size, size), Image.Resampling.HAMMING, box=window)
    return Image.fromarray(255 - np.asarray(whole))


def pictures(face: Face, name: str, asked: Asked) -> Iterator[tuple[str, Image.Image]]:
    """(character, picture) of each letter that the face has, drawn large first, in whatever size its em gives that."""
    _, glyphs = glyphs_of(face.path, face.index, DRAWN)
    size = DRAWN * CAPITAL / capital_of(glyphs)
    _, glyphs = glyphs_of(face.path, face.index, min(size, 8 * DRAWN))
    capital = capital_of(glyphs)
    for character, glyph in glyphs.items():
        yield character, picture(glyph, capital, asked.size, chance(asked.seed, name, character))


def capital_of(glyphs: dict[str, Glyph]) -> float:
    """The height of the capitals: the median, for one may have a swash."""
    return float(np.median([glyph.ink.shape[0] for character, glyph in glyphs.items() if character.isupper()]))


def draw(splits: dict[str, list[list[Face]]], out: Path, asked: Asked) -> tuple[Counter[str], int]:
    """Writes every picture below ``out``: (pictures a split, those left out since their pixels were there already)."""
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    names: Counter[str] = Counter()
    again = 0
    for split_name in SPLITS:
        for face in (face for members in splits[split_name] for face in members):
            plain = f"{face.family}-{face.style}".replace(" ", "_")
            names[plain] += 1
            name = plain if names[plain] == 1 else f"{plain}-{names[plain]}"
            for character, image in pictures(face, name, asked):
                pixels = sha256(image.tobytes()).digest()
                if pixels in seen:
                    again += 1
                    continue
                seen.add(pixels)
                place = out / split_name / class_of(character)
                place.mkdir(parents=True, exist_ok=True)
                image.save(place / f"{name}.png")
                counts[split_name] += 1
    return counts, again


def make(asked: Asked) -> None:
    """Writes the data set, whole or not at all, and says what it holds. Raises `UserError`."""
    out = asked.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: '{out}' is no empty folder; name a new one")
    paths = find(asked.fonts)
    left_out: Counter[str] = Counter()
    faces, similarity = sort_out(read(paths, left_out), asked.most_styles, left_out, asked.seed)
    splits = split(group(faces, similarity), asked)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        counts, again = draw(splits, Path(place) / "letters", asked)
        if out.exists():
            out.rmdir()
        (Path(place) / "letters").rename(out)
    print(f"{len(paths)} files, {len(faces)} fonts drawn")
    for reason, count in left_out.items():
        if count:
            print(f"left out: {count} {reason}")
    print(f"{'':<8}{'groups':>8}{'families':>10}{'fonts':>8}{'pictures':>10}")
    for name in SPLITS:
        drawn = [face for members in splits[name] for face in members]
        families = len({face.family for face in drawn})
        print(f"{name:<8}{len(splits[name]):>8}{families:>10}{len(drawn):>8}{counts[name]:>10}")
    print(f"left out: {again} pictures whose pixels were there already")
    print(f"next: triscale doctor {shlex.quote(str(out))}")


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main() -> None:
    """Makes the data set, or says in one line what is in the way."""
    parser = argparse.ArgumentParser(description="Letters and digits of many fonts, in class folders with splits.")
    parser.add_argument("--fonts", metavar="DIR", type=Path, action="append", help="a folder of fonts; repeatable")
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--size", type=positive, default=96, help="pixels of a side")
    parser.add_argument("--seed", type=int, default=0, help="decides splits, sizes and positions")
    parser.add_argument("--most-styles", type=positive, default=6, help="of one family")
    parser.add_argument("--test", type=share, default=0.2, help="share of the fonts")
    parser.add_argument("--val", type=share, default=0.1, help="share of the fonts")
    given = parser.parse_args()
    usual = tuple(Path(place) for place in PLACES if Path(place).is_dir())
    given.fonts = tuple(given.fonts or usual)
    try:
        make(Asked(**vars(given)))
    except UserError as error:
        print(f"letters.py: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(
            f"letters.py: '{error.filename}': {error.strerror}; name folders that can be read and written",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
