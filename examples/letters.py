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

Which fonts stay out, for letters that are none would be wrong labels:
- a glyph that is blank, or the picture that the font has for a character it lacks; and the font, with fewer than 55
  pictures that differ: it lacks letters, or has only capitals;
- fonts whose letters are not recognised: symbols, other scripts where a Latin letter should be, small capitals, frames.
  A linear classifier on random features, fitted to the letters of all fonts at 16×16 pixels, has to recognise a quarter
  of the font's capitals, of its small letters, and of those small letters that no capital looks like. It errs to the
  strict side: some scripts and outlines are lost. With few fonts it recognises everything;
- fonts that look like another: a mean correlation of 0.97 of their letters, each stretched to the same 16×16 pixels,
  where the letters are not a tenth narrower or wider. Fonts for other scripts often borrow their Latin letters, and the
  same family comes in several packages and formats.

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
import re
import shlex
import string
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from triscale.data.chance import uniform
from triscale.errors import UserError

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
ALIKE = "cijklopsuvwxyz"  # small letters that a capital or a digit may look like, were it not for their size
SUFFIXES = {".ttf", ".otf", ".ttc", ".woff", ".woff2"}
PLACES = ("/usr/share/fonts", "node_modules/@fontsource", "node_modules/@fontsource-variable")
ABSENT = "\U0010fffe"  # no character: what a font draws for it, it draws for all that it lacks
SPLITS = ("train", "val", "test")
STYLE = re.compile(
    "thin|hairline|book|regular|normal|plain|medium|(extra|ultra|semi|demi)?(light|bold|cond|condensed|expanded)?|heavy"
    "|black|italic|oblique|slanted|inclined|upright|narrow|wide|extended|variable|vf"
)

DRAWN = 256  # pixels of an em where shapes are compared
CAPITAL = 240  # pixels of a capital's height before it is made smaller
GRID = 16
FEATURES = 512
DIFFERENT = 55
RECOGNISED = 0.25
COPY = 0.97
NARROWER = 0.1
KIN = 0.94
HEIGHTS = (0.46, 0.62)  # of a capital, in parts of the picture
BASELINE = 0.7
RISE, SHIFT = 0.04, 0.06
MARGIN = 0.03

Gray = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Face:
    """One style of a family: where it is, and of each letter (0 where it has none) the look and the proportion.

    Looks are uint8 [62, 18 · 18], proportions float32 [62], the logarithms of width over height.
    """

    path: Path
    index: int
    family: str
    style: str
    looks: Gray
    proportions: Floats

    @property
    def order(self) -> tuple[str, str, str]:
        return self.family, self.style, sha256(self.looks.tobytes()).hexdigest()


@dataclass(frozen=True)
class Glyph:
    """Ink and where its box lies, in pixels from the pen on the baseline: uint8 [h, w], left, top."""

    ink: Gray
    left: int
    top: int


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


def chance(*key: object) -> random.Random:
    """The same numbers for the same key, whoever drew before."""
    return random.Random("/".join(map(str, key)))


def words(name: str) -> list[str]:
    """DejaVu Sans-Mono → deja, vu, sans, mono."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", plain)]


def family_of(name: str) -> str:
    """The name without weights, widths and slants, which some fonts keep in it: Lato Black belongs to Lato."""
    found = words(name)
    return " ".join([word for word in found if not STYLE.fullmatch(word)] or found)


def class_of(character: str) -> str:
    """A folder's name, also where A and a are one name."""
    kind = "digit" if character.isdigit() else "upper" if character.isupper() else "lower"
    return f"{kind}_{character}"


def find(folders: Iterable[Path]) -> list[Path]:
    """Every font file below the folders once, links resolved. Raises `UserError` where there is none."""
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--fonts: there is no folder '{folder}'; name one that holds fonts")
        found |= {path.resolve() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()}
    if not found:
        raise UserError(
            f"--fonts: no {', '.join(sorted(SUFFIXES))} below {', '.join(map(str, folders)) or 'the usual folders'}; "
            "install some of Debian's fonts-* or name a folder that holds fonts"
        )
    return sorted(found)


def glyph_of(font: ImageFont.FreeTypeFont, character: str) -> Glyph | None:
    """What the font draws, cut to its ink; None for a blank."""
    left, top, right, bottom = (int(at) for at in font.getbbox(character, anchor="ls"))
    if right <= left or bottom <= top:
        return None
    left, top = left - 2, top - 2  # the box is the outline's; its grays may lie beyond
    drawn = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(drawn).text((-left, -top), character, 255, font, anchor="ls")
    ink = np.asarray(drawn)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return None
    return Glyph(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], left + int(columns[0]), top + int(rows[0]))


def glyphs_of(path: Path, index: int, size: float) -> tuple[ImageFont.FreeTypeFont, dict[str, Glyph]]:
    """The letters that a font has. Raises `OSError` or `ValueError` where Pillow cannot draw it."""
    font = ImageFont.truetype(str(path), size, index, layout_engine=ImageFont.Layout.BASIC)
    absent = glyph_of(font, ABSENT)
    found: dict[str, Glyph] = {}
    for character in CHARACTERS:
        glyph = glyph_of(font, character)
        if glyph and not (absent and np.array_equal(glyph.ink, absent.ink)):
            found[character] = glyph
    return font, found


def look(ink: Gray) -> Gray:
    """uint8 [h, w] → [18 · 18]: stretched to 16×16, with a margin, or a solid bar would have no contrast."""
    small = np.asarray(Image.fromarray(np.ascontiguousarray(ink)).resize((GRID, GRID), Image.Resampling.BOX))
    return np.pad(small, 1).ravel()


def faces_of(path: Path) -> Iterator[Face | None]:
    """Each face of a file; None for one whose letters are too few. Raises `OSError` where Pillow cannot open it."""
    for index in range(64):
        try:
            font, glyphs = glyphs_of(path, index, DRAWN)
        except (OSError, ValueError, Image.DecompressionBombError):
            if index:
                return
            raise OSError(str(path)) from None
        name, style = font.getname()
        if len({(glyph.ink.shape, glyph.top, glyph.ink.tobytes()) for glyph in glyphs.values()}) < DIFFERENT:
            yield None
        else:
            looks = np.zeros((len(CHARACTERS), (GRID + 2) ** 2), np.uint8)
            proportions = np.zeros(len(CHARACTERS), np.float32)
            for character, glyph in glyphs.items():
                number = CHARACTERS.index(character)
                looks[number] = look(glyph.ink)
                proportions[number] = np.log(glyph.ink.shape[1] / glyph.ink.shape[0])
            family = family_of(name or "") or family_of(path.stem) or path.stem.lower()
            yield Face(path, index, family, " ".join(words(style or "")) or "regular", looks, proportions)
        if path.suffix.lower() != ".ttc":
            return


def read(paths: list[Path], left_out: Counter[str]) -> list[Face]:
    """The faces that have the letters, in an order that no folder and no name of a file has a part in."""
    found: list[Face] = []
    for number, path in enumerate(paths):
        if number and number % 500 == 0:
            print(f"{number} of {len(paths)} files read", file=sys.stderr)
        try:
            for face in faces_of(path):
                if face:
                    found.append(face)
                else:
                    left_out[f"with fewer than {DIFFERENT} different letters and digits"] += 1
        except OSError:
            woff2 = path.suffix.lower() == ".woff2"
            left_out["in .woff2, which this Pillow cannot read" if woff2 else "that Pillow cannot draw"] += 1
    return sorted(found, key=lambda face: face.order)


def unit(looks: Gray) -> Floats:
    """uint8 […, pixels] → float32, of mean 0 and length 1 (0 where there is no glyph): products are correlations."""
    centred = looks.astype(np.float32)
    centred -= centred.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-6), np.float32)


def recognised(faces: list[Face]) -> npt.NDArray[np.float64]:
    """[n]: the lowest share of letters recognised, among capitals, small letters, and the small ones unlike capitals.

    Ridge regression from random rectified features to the 62 classes, fitted to all of them. A capital for a small
    letter passes, but not in the third share.
    """
    projection = (uniform((len(CHARACTERS),), np.arange((GRID + 2) ** 2), FEATURES) - 0.5).astype(np.float32)

    def features(face: Face) -> Floats:
        rectified = np.maximum(unit(face.looks) @ projection * 3.5 - 0.3, 0)
        return np.concatenate([rectified, np.ones((len(rectified), 1), np.float32)], axis=1)

    products, targets = np.zeros((FEATURES + 1,) * 2), np.zeros((FEATURES + 1, len(CHARACTERS)))
    for face in faces:
        x, drawn = features(face), face.looks.any(axis=1)
        products += x[drawn].T @ x[drawn]
        targets[:, drawn] += x[drawn].T
    ridge = 1e-3 * np.trace(products) / len(products) * np.eye(len(products))
    weights = np.linalg.solve(products + ridge, targets).astype(np.float32)
    letters = np.array(list(CHARACTERS))
    small = np.array([c.islower() for c in CHARACTERS])
    telling = np.array([c.islower() and c not in ALIKE for c in CHARACTERS])
    shares = []
    for face in faces:
        answers, drawn = letters[(features(face) @ weights).argmax(axis=1)], face.looks.any(axis=1)
        exact = (answers == letters) & drawn
        same_letter = (np.char.lower(answers) == np.char.lower(letters)) & drawn
        capitals = np.char.isupper(letters)
        shares.append(min(same_letter[capitals].mean(), same_letter[small].mean(), exact[telling].mean()))
    return np.array(shares)


def alike(faces: list[Face]) -> Floats:
    """float32 [n, n]: the mean correlation over the letters that both have."""
    looks = np.zeros((len(faces), len(CHARACTERS) * (GRID + 2) ** 2), np.float32)
    for row, face in enumerate(faces):
        looks[row] = unit(face.looks).ravel()
    drawn = np.array([face.looks.any(axis=1) for face in faces], np.float32)
    return np.asarray(looks @ looks.T / np.maximum(drawn @ drawn.T, 1))


def sort_out(faces: list[Face], most_styles: int, left_out: Counter[str], seed: int) -> tuple[list[Face], Floats]:
    """(those to draw, float32 [n, n] how alike they are): recognised, unlike all before, few of one family.

    Families of many styles come first: of fonts that look alike the original rather stays than who borrowed from it.
    """
    shares = recognised(faces) if faces else np.zeros(0)
    passed = [face for face, part in zip(faces, shares, strict=True) if part >= RECOGNISED]
    left_out["whose letters are not recognised"] += len(faces) - len(passed)
    if not passed:
        raise UserError("--fonts: no font there has the Latin letters and digits; name a folder with others")
    styles = Counter(face.family for face in passed)
    passed.sort(key=lambda face: (-styles[face.family], face.order))
    similarity = alike(passed)
    own: list[int] = []
    for row, face in enumerate(passed):
        same = np.array(own, int)[similarity[row, own] >= COPY]
        if all(np.median(abs(passed[other].proportions - face.proportions)) > NARROWER for other in same):
            own.append(row)
    left_out["that look like another"] += len(passed) - len(own)
    taken: Counter[str] = Counter()
    few: list[int] = []
    for row in sorted(own, key=lambda row: chance(seed, *passed[row].order).random()):
        taken[passed[row].family] += 1
        if taken[passed[row].family] <= most_styles:
            few.append(row)
    few.sort()
    left_out[f"beyond {most_styles} styles of a family"] += len(own) - len(few)
    return [passed[row] for row in few], similarity[np.ix_(few, few)]


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
