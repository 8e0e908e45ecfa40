"""The fonts of `letters.py`: read, and judged by their letters.

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
"""

import random
import re
import string
import sys
import unicodedata
from collections import Counter
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
ABSENT = "\U0010fffe"  # no character: what a font draws for it, it draws for all that it lacks
STYLE = re.compile(
    "thin|hairline|book|regular|normal|plain|medium|(extra|ultra|semi|demi)?(light|bold|cond|condensed|expanded)?|heavy"
    "|black|italic|oblique|slanted|inclined|upright|narrow|wide|extended|variable|vf"
)

DRAWN = 256  # pixels of an em where shapes are compared
GRID = 16
FEATURES = 512
DIFFERENT = 55
RECOGNISED = 0.25
COPY = 0.97
NARROWER = 0.1

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
