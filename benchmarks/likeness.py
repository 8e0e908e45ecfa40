"""How many changed copies of pictures `triscale doctor` finds, and how many distinct pictures it takes for copies.

    .venv/bin/python benchmarks/likeness.py [FOLDER …]

Without a folder: the photographs that scikit-image and scikit-learn bring, and quarters of them. For each change the
data are the pictures and one changed copy of each.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from triscale.data.decoding import SUFFIXES, BadPictureError, decode
from triscale.doctoring.likeness import near_pairs, sketch


def saved(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "jpeg", quality=quality)
    return Image.open(out)


def resized(image: Image.Image, share: float) -> Image.Image:
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return image.resize(size, Image.Resampling.BICUBIC)


def brighter(image: Image.Image, factor: float) -> Image.Image:
    return image.point(lambda level: min(255, round(level * factor)))


def cropped(image: Image.Image, left: float, right: float) -> Image.Image:
    """Without such shares of both sides."""
    w, h = image.size
    return image.crop((round(w * left), round(h * left), w - round(w * right), h - round(h * right)))


def all_of_it(image: Image.Image) -> Image.Image:
    return saved(brighter(resized(cropped(image, 0.01, 0.01), 0.5), 1.1), 50)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 50": lambda image: saved(image, 50),
    "half the size": lambda image: resized(image, 0.5),
    "10 % brighter": lambda image: brighter(image, 1.1),
    "10 % darker": lambda image: brighter(image, 0.9),
    "2 % cropped, about the middle": lambda image: cropped(image, 0.01, 0.01),
    "2 % cropped, at one side": lambda image: cropped(image, 0.02, 0),
    "4 % cropped, about the middle": lambda image: cropped(image, 0.02, 0.02),
    "without colour": lambda image: image.convert("L").convert("RGB"),
    "cropped 2 %, half, brighter, JPEG 50": all_of_it,
    "mirrored (no near-duplicate)": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def pictures(folders: list[str]) -> list[tuple[str, Image.Image]]:
    """Distinct pictures, none of one colour."""
    if not folders:
        import skimage.data
        import sklearn.datasets

        photos = Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images"
        folders = [str(place) for place in photos]
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*")) if file.suffix.lower() in SUFFIXES]
    found = []
    for file in files:
        try:
            image = Image.fromarray(decode(file.read_bytes(), 3))
        except BadPictureError as error:
            print(f"{file.name} is left out ({error})")
            continue
        image.thumbnail((640, 640))
        found.append((file.name, image))
    return [(name, image) for name, image in found if np.asarray(image.convert("L")).std() > 8]


def main() -> None:
    originals = pictures(sys.argv[1:])
    n = len(originals)
    sketches = [sketch(np.asarray(image)) for _, image in originals]
    own = near_pairs(sketches)
    print(f"{n} pictures, {len(own)} pairs among them taken for near-duplicates")
    for i, j, likeness in own:
        print(f"    {likeness:.4f}  {originals[i][0]}  {originals[j][0]}")
    known = {(i, j) for i, j, _ in own}
    print(f"{'change':40} found        pairs of distinct pictures, besides those above")
    for change, function in CHANGES.items():
        copies = [sketch(np.asarray(function(image).convert("RGB"))) for _, image in originals]
        pairs = near_pairs([*sketches, *copies])
        right = sum(j == i + n for i, j, _ in pairs)
        between = {(min(i % n, j % n), max(i % n, j % n)) for i, j, _ in pairs if i % n != j % n}
        print(f"{change:40} {right:4} {right / n:6.1%}  {len(between - known):4}")


if __name__ == "__main__":
    main()
