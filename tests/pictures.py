"""Small real-looking data sets that tests write into temporary folders; pictures as bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image


def digit_folder(root: Path, classes: int = 3, each: int = 20, first: int = 0) -> Path:
    """`each` handwritten digits of `classes` classes from the `first` on, 8×8 gray PNG files in class folders."""
    digits = load_digits()
    for label in range(classes):
        place = root / f"digit-{label}"
        place.mkdir(parents=True)
        for index, picture in enumerate(digits.images[digits.target == label][first : first + each]):
            Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)).save(place / f"{index:03}.png")
    return root


def two_photos(root: Path) -> Path:
    """Photographs of 107×160 pixels, as PNG files."""
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).resize((160, 107)).save(root / f"{name}.png")
    return root


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """A file's content. options: what Pillow takes for this form."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()
