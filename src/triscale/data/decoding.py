"""One picture file → upright 8-bit gray or RGB pixels, whatever the file's mode.

Pixels come out as people see them: EXIF orientation applied, transparency laid on white, palettes and CMYK turned into
RGB, 16-bit gray scaled (not clipped) to 8 bits. Of an animation or a multi-page file the first picture is taken.
"""

import io
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import (  # noqa: F401  (importing a plugin registers its format)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from triscale.errors import no_text

Pixels = npt.NDArray[np.uint8]
PixelBox = tuple[int, int, int, int]
"""(left, top, right, bottom), in whole pixels."""
BoxOf = Callable[[tuple[int, int]], PixelBox]
"""The part wanted of an upright picture of (h, w)."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_PIXELS = 100_000_000

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_GRAY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = frozenset(_UPRIGHT[k] for k in (5, 6, 7, 8))
# Where the upright picture's left (or, of a lying one, top) is the file's right; and likewise for below.
_FROM_RIGHT = frozenset(_UPRIGHT[k] for k in (2, 3, 7, 8))
_FROM_BELOW = frozenset(_UPRIGHT[k] for k in (3, 4, 6, 7))
_DRAFTS = (8, 4, 2)


class BadPictureError(Exception):
    """A file that is no readable picture; the message is the reason, without the file's name."""


def read_bytes(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The file's content. Raises `BadPictureError` for anything but a readable regular file of a sane size."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadPictureError("not a regular file")
        # Sixteen bits times four channels, uncompressed, is the most that a picture within the cap needs.
        if status.st_size > 8 * max_pixels + 2**24:
            raise BadPictureError(f"{status.st_size:,} bytes is more than {max_pixels:,} pixels (max_pixels) can need")
        return path.read_bytes()
    except FileNotFoundError:
        raise BadPictureError("no such file") from None
    except UnicodeEncodeError:
        raise BadPictureError(no_text("a name that is no text")) from None
    except (OSError, ValueError) as error:
        raise BadPictureError(getattr(error, "strerror", None) or str(error)) from None


def _identify(content: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """The picture, its header read and checked, no pixel decoded.

    Pillow's own `Image.open` compares with a process-wide limit and warns or raises there, before the caller's limit
    can be looked at; so the format's factory is called here directly.
    """
    if not content:
        raise BadPictureError("empty file (zero bytes)")
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(content[:16]) is not True:
            continue
        image: ImageFile.ImageFile = factory(io.BytesIO(content), "")
        width, height = image.size
        if width * height > max_pixels:
            raise BadPictureError(f"its header says {width}×{height} pixels, more than {max_pixels:,} (max_pixels)")
        return image
    raise BadPictureError("not a picture in a known format")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings the picture upright."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF comes as any exception, and the pixels are fine without it
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _from_wide(image: Image.Image) -> Image.Image:
    """16-bit gray → 8 bits, 65535 → 255; `Image.convert` would clip at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadPictureError("its integers do not fit 16 bits; convert it to 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def is_gray(image: Image.Image) -> bool:
    """Whether the mode can only hold grays (a palette may hold colours, so it counts as colour)."""
    return image.mode in _GRAY


def flatten(image: Image.Image) -> Image.Image:
    """Any mode → ``L`` or ``RGB``, upright, transparency on white. Raises `BadPictureError` for floating point and for
    damage."""
    with _damage_named():
        image.load()  # Pillow turns some formats upright as it loads them, and forgets that they were not
    turn = _turn(image)
    return _plain(image if turn is None else image.transpose(turn))


def _plain(image: Image.Image) -> Image.Image:
    gray = is_gray(image)
    if image.mode == "F":
        raise BadPictureError("floating-point pixels have no fixed range; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_wide(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, (255, 255, 255, 255)), clear)
    wanted = "L" if gray else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def to_array(image: Image.Image, channels: int) -> Pixels:
    """``L`` or ``RGB`` → uint8 [h, w, channels] (1: luma, 3: RGB)."""
    wanted = "L" if channels == 1 else "RGB"
    pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
    return pixels[:, :, None] if channels == 1 else pixels


@contextmanager
def _damage_named() -> Iterator[None]:
    """Damaged files surface from Pillow as nearly any exception."""
    try:
        yield
    except BadPictureError:
        raise
    except Exception as error:
        raise BadPictureError(_reason(error)) from None


def _decoded(content: bytes, max_pixels: int) -> Image.Image:
    with _damage_named():
        image = _identify(content, max_pixels)
        image.load()
        return flatten(image)


def decode(content: bytes, channels: int | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A file's content → uint8 [h, w, c]; c is ``channels`` or, without it, 1 for grays and 3 for the rest.

    Raises `BadPictureError` with the reason when the content is cut short, damaged, too large or no picture.
    """
    image = _decoded(content, max_pixels)
    return to_array(image, channels or len(image.getbands()))


def decode_part(
    content: bytes, box_of: BoxOf, least: tuple[int, int], channels: int, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """The box of a file's picture → uint8 [h, w, channels], upright, in about its own or a coarser resolution.

    A JPEG is decoded at the coarsest of 1/1, 1/2, 1/4 and 1/8 at which the box still has ``least`` (h, w) pixels:
    faster, and by its discrete cosine transform nearly what averaging the pixels gives. The box is then rounded outward
    to the coarser pixels. Of the rest of the picture, and of other formats, everything is decoded, so that a damaged
    file is noticed wherever the box lies. Raises `BadPictureError` as `decode` does.
    """
    with _damage_named():
        image = _identify(content, max_pixels)
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            image.load()
            return cut_out(to_array(flatten(image), channels), box_of)
        turn = _turn(image)
        lying = turn in _LYING
        w, h = image.size
        upright = box_of((w, h) if lying else (h, w))
        box = _as_stored(upright, (w, h), turn)
        scale = _coarsest(box, least[::-1] if lying else least)
        if scale > 1 and image.draft(None, (w // scale, h // scale)) is not None:
            left, top, right, bottom = box
            box = left // scale, top // scale, -(-right // scale), -(-bottom // scale)
        part = image.crop(box)
        return to_array(_plain(part if turn is None else part.transpose(turn)), channels)


def cut_out(pixels: Pixels, box_of: BoxOf) -> Pixels:
    """A view of the box of uint8 [h, w, c] that ``box_of`` answers to (h, w)."""
    left, top, right, bottom = box_of((pixels.shape[0], pixels.shape[1]))
    part: Pixels = pixels[top:bottom, left:right]
    return part


def _coarsest(box: PixelBox, least: tuple[int, int]) -> int:
    """How many times coarser the box may get and keep ``least`` (h, w) pixels, both as the file lies."""
    left, top, right, bottom = box
    enough = (s for s in _DRAFTS if right - left >= s * least[1] and bottom - top >= s * least[0])
    return next(enough, 1)


def _as_stored(box: PixelBox, size: tuple[int, int], turn: Image.Transpose | None) -> PixelBox:
    """Where a box of the upright picture lies in the file's, which is ``size`` (w, h) and gets upright by ``turn``."""
    (left, top, right, bottom), (w, h) = box, size
    if turn in _LYING:
        left, top, right, bottom = top, left, bottom, right
    if turn in _FROM_RIGHT:
        left, right = w - right, w - left
    if turn in _FROM_BELOW:
        top, bottom = h - bottom, h - top
    return left, top, right, bottom


def check(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int, bool]:
    """Decode fully and keep only (h, w, gray): upright, in pixels. Raises `BadPictureError` as `decode` does."""
    image = _decoded(content, max_pixels)
    return image.height, image.width, image.mode == "L"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"damaged: {text[:120]}" if text else f"damaged: {type(error).__name__}"
