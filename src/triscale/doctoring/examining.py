"""One full decode of one picture, and everything about it that the doctor needs to know."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageFile

from triscale.data.decoding import BadPictureError, Pixels, decode, is_gray, read_bytes
from triscale.data.folders import Entry
from triscale.doctoring.likeness import Sketch, sketch

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_NAMED = {
    "JPEG": {".jpg", ".jpeg"},
    "MPO": {".jpg", ".jpeg"},  # a JPEG with a second picture behind it, as some phones write them
    "PNG": {".png"},
    "BMP": {".bmp"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm"},
}
_ORIENTATION = 0x0112
_BITS = 0x0102
FLAT = 8  # levels: a JPEG of one colour is off by a few


@dataclass(frozen=True, slots=True)
class Examined:
    """What a full decode left of a picture, upright and in pixels.

    ``traits``: of gray, colour, alpha, cmyk, palette, wide (16-bit), turned, frames, blank. ``lies``: the format, where
    the suffix names another. ``file``: SHA-256 of the bytes. ``pixels``: digest of the upright pixels, the same
    whatever format they were saved in.
    """

    h: int
    w: int
    traits: frozenset[str]
    lies: str
    file: bytes
    pixels: bytes
    sketch: Sketch


def examine(entry: Entry, max_pixels: int) -> Examined | str:
    """The picture in a file, or the reason why there is none: exactly the reason for which `data.read` refuses it."""
    try:
        content = read_bytes(entry.path, max_pixels)
        pixels = decode(content, max_pixels=max_pixels)
    except BadPictureError as error:
        return str(error)
    traits, kind = _header(content)
    traits.add("gray" if pixels.shape[2] == 1 else "colour")
    suffix = PurePath(entry.name).suffix.lower()
    lies = kind if kind and suffix and suffix not in _NAMED.get(kind, {suffix}) else ""
    return _examined(pixels, traits, lies, hashlib.sha256(content).digest())


def examine_pixels(pixels: Pixels) -> Examined:
    """The same of a picture that comes as pixels, uint8 [h, w, c]."""
    traits = {"gray" if pixels.shape[2] == 1 else "colour"}
    return _examined(pixels, traits, "", hashlib.sha256(pixels.tobytes()).digest())


def _examined(pixels: Pixels, traits: set[str], lies: str, file: bytes) -> Examined:
    if pixels.shape[2] == 3 and _colourless(pixels):
        pixels = pixels[:, :, :1]  # a gray picture saved as RGB is the same picture
    if bool((pixels.max((0, 1)).astype(int) - pixels.min((0, 1)) <= FLAT).all()):
        traits.add("blank")
    h, w, c = pixels.shape
    digest = hashlib.blake2b(pixels.tobytes(), key=f"{h} {w} {c}".encode(), digest_size=16).digest()
    return Examined(h, w, frozenset(traits), lies, file, digest, sketch(pixels))


def _colourless(pixels: Pixels) -> bool:
    return all(np.array_equal(pixels[:, :, 0], pixels[:, :, k]) for k in (1, 2))


def _header(content: bytes) -> tuple[set[str], str]:
    """How the picture is stored, and in which format; content that has just been decoded is opened once more."""
    image = _open(content)
    if image is None:
        return set(), ""
    traits: set[str] = set()
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        traits.add("alpha")
    if image.mode == "CMYK":
        traits.add("cmyk")
    if image.mode in ("P", "PA"):
        traits.add("palette")
    if (is_gray(image) and image.mode.startswith("I")) or _sixteen_bits(image, content):
        traits.add("wide")
    try:
        if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
            traits.add("turned")
    except Exception:  # broken EXIF comes as any exception, and the pixels are fine without it
        pass
    try:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            traits.add("frames")
    except Exception:  # the first picture is whole, and no other is used
        pass
    return traits, image.format or ""


def _open(content: bytes) -> ImageFile.ImageFile | None:
    """Without Pillow's own limit of pixels, which is the process's and not the caller's."""
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(content[:16]) is True:
            try:
                image: ImageFile.ImageFile = factory(io.BytesIO(content), "")
            except Exception:  # damaged headers surface as nearly any exception
                return None
            return image
    return None


def _sixteen_bits(image: ImageFile.ImageFile, content: bytes) -> bool:
    """Colour in 16 bits a channel, which Pillow turns into 8 while it opens the file."""
    if image.format == "PNG":
        return content[24:25] == b"\x10"
    bits = getattr(image, "tag_v2", {}).get(_BITS, 8) if image.format == "TIFF" else 8
    return bool(np.max(bits) > 8)
