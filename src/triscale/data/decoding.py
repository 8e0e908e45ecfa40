"""One picture file → upright 8-bit gray or RGB pixels, whatever the file's mode.

Pixels come out as people see them: EXIF orientation applied, transparency laid on white, palettes and CMYK turned into
RGB, 16-bit gray scaled (not clipped) to 8 bits. Of an animation or a multi-page file the first picture is taken.
"""

import io
import stat
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

Pixels = npt.NDArray[np.uint8]

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
    except (OSError, ValueError) as error:
        raise BadPictureError(getattr(error, "strerror", None) or str(error)) from None


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """The decoded picture, its header checked before any pixel is decoded.

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
        image.load()
        return image
    raise BadPictureError("not a picture in a known format")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF comes as any exception, and the pixels are fine without it
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


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
    """Any mode → ``L`` or ``RGB``, upright, transparency on white. Raises `BadPictureError` for floating point."""
    gray = is_gray(image)
    image = _upright(image)
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


def _decoded(content: bytes, max_pixels: int) -> Image.Image:
    try:
        return flatten(_open(content, max_pixels))
    except BadPictureError:
        raise
    except Exception as error:  # damaged files surface from Pillow as nearly any exception
        raise BadPictureError(_reason(error)) from None


def decode(content: bytes, channels: int | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A file's content → uint8 [h, w, c]; c is ``channels`` or, without it, 1 for grays and 3 for the rest.

    Raises `BadPictureError` with the reason when the content is cut short, damaged, too large or no picture.
    """
    image = _decoded(content, max_pixels)
    return to_array(image, channels or len(image.getbands()))


def check(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int, bool]:
    """Decode fully and keep only (h, w, gray): upright, in pixels. Raises `BadPictureError` as `decode` does."""
    image = _decoded(content, max_pixels)
    return image.height, image.width, image.mode == "L"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"damaged: {text[:120]}" if text else f"damaged: {type(error).__name__}"
