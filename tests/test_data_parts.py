"""What parts of pictures promise, as random crops take them from files: coarser where that is faster, never wrong."""

import contextlib
import random
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded
from PIL import Image

from triscale.data.decoding import BadPictureError, PixelBox, decode, decode_part
from triscale.data.pictures import Files
from triscale.data.preprocessing import resample, stretch
from triscale.errors import UserError

Bytes = npt.NDArray[np.uint8]


def photograph(h: int = 96, w: int = 128, channels: int = 3) -> Bytes:
    """Waves of several lengths, as smooth as a photograph is."""
    rows, columns = np.mgrid[:h, :w]
    waves = [100 * np.sin(rows / (9 + 4 * c)) * np.cos(columns / (17 - 3 * c)) for c in range(channels)]
    return (128 + np.stack(waves, axis=2)).astype(np.uint8)


def turned(pixels: Bytes, orientation: int) -> Bytes:
    """How a file with this EXIF orientation stores what people see."""
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


def jpeg(pixels: Bytes, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return encoded(image, "JPEG", exif=exif, quality=95, **options)


@given(
    orientation=st.integers(1, 8),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    channels=st.sampled_from([1, 3]),
    form=st.sampled_from(["JPEG", "PNG"]),
)
def test_a_part_in_full_resolution_is_cut_from_the_whole(
    orientation: int, size: tuple[int, int], corners: tuple[float, ...], channels: int, form: str
) -> None:
    stored = turned(photograph(*size), orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(stored, orientation) if form == "JPEG" else encoded(Image.fromarray(stored), exif=exif)
    asked: list[tuple[int, int]] = []

    def box_of(found: tuple[int, int]) -> PixelBox:
        asked.append(found)
        (h, w), (x, y, wide, high) = found, corners
        left, top = int(x * (w - 1)), int(y * (h - 1))
        return left, top, left + 1 + int(wide * (w - left - 1)), top + 1 + int(high * (h - top - 1))

    part = decode_part(data, box_of, size, channels)
    left, top, right, bottom = box_of(size)
    assert asked[0] == size, "the box is asked for in the upright picture"
    assert np.array_equal(part, decode(data, channels)[top:bottom, left:right])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("least", "scale"), [(96, 1), (48, 1), (47, 2), (24, 2), (23, 4), (11, 8), (2, 8)])
def test_a_part_is_as_coarse_as_what_is_needed_allows(orientation: int, least: int, scale: int) -> None:
    seen = photograph(192, 256)
    data = jpeg(turned(seen, orientation), orientation)
    box = (60, 50, 155, 145)  # 95 pixels, not at a multiple of anything
    part = decode_part(data, lambda size: box, (least, least), 3)
    outer = (box[0] // scale, box[1] // scale, -(-box[2] // scale), -(-box[3] // scale))
    if orientation == 1:
        assert part.shape == (outer[3] - outer[1], outer[2] - outer[0], 3)
    assert min(part.shape[:2]) >= min(least, 95)
    assert abs(part.shape[0] - 95 / scale) <= 2
    box_of_floats = (60.0, 50.0, 155.0, 145.0)
    expected = resample(decode(data, 3), box_of_floats, (part.shape[0], part.shape[1]), 3, "bilinear")
    # The box grows by up to a coarse pixel at each side, and waves this long change by about four a pixel.
    assert np.abs(part.astype(int) - expected).mean() < 4 * scale


def test_a_coarse_part_is_the_mean_of_its_pixels() -> None:
    data = jpeg(photograph(160, 160), subsampling=0)
    part = decode_part(data, lambda size: (32, 64, 128, 160), (24, 24), 3)
    assert part.shape == (24, 24, 3)
    means = decode(data, 3)[64:160, 32:128].reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(part - means).max() < 3


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [False, True])
def test_parts_of_any_kind_of_jpeg_have_the_channels_asked_for(mode: str, channels: int, progressive: bool) -> None:
    data = encoded(Image.fromarray(photograph()).convert(mode), "JPEG", quality=95, progressive=progressive)
    for least in (96, 10):
        part = decode_part(data, lambda size: (0, 0, size[1], size[0]), (least, least), channels)
        assert part.shape[2] == channels
        expected = resample(
            decode(data, channels), (0, 0, 128, 96), (part.shape[0], part.shape[1]), channels, "bilinear"
        )
        assert np.abs(part.astype(int) - expected).mean() < 5


@pytest.mark.parametrize("least", [4, 96])
def test_a_damaged_file_is_noticed_wherever_the_part_lies(tmp_path: Path, least: int) -> None:
    data = jpeg(photograph())

    def first(size: tuple[int, int]) -> PixelBox:
        return 0, 0, 64, 32

    for broken, words in ((data[: len(data) * 3 // 4], "truncated"), (b"", "empty"), (b"x" * 90, "known format")):
        with pytest.raises(BadPictureError, match=words):
            decode_part(broken, first, (least, least), 3)
        (tmp_path / "x.jpg").write_bytes(broken)
        with pytest.raises(UserError, match=r"x\.jpg.*read any more"):
            Files((tmp_path / "x.jpg",), 3).part(0, first, (least, least))
    with pytest.raises(BadPictureError, match="max_pixels"):
        decode_part(data, first, (least, least), 3, max_pixels=96 * 128 - 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_parts_of_garbled_files_are_bad_pictures_and_nothing_else(form: str) -> None:
    whole = encoded(Image.fromarray(photograph(24, 24)), form)
    chance = random.Random(11)
    for _ in range(60):
        broken = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with contextlib.suppress(BadPictureError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            part = decode_part(bytes(broken), lambda size: (0, 0, size[1], size[0]), (4, 4), 3, max_pixels=10_000)
            assert part.dtype == np.uint8


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    resolution=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 2, 3]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    mirror=st.booleans(),
)
def test_stretching_for_training_is_pillows_to_within_rounding(
    size: tuple[int, int], resolution: tuple[int, int], channels: int, interpolation: str, mirror: bool
) -> None:
    pixels = np.random.default_rng(0).integers(90, 160, (*size, channels), dtype=np.uint8)
    expected = resample(pixels, (0, 0, size[1], size[0]), resolution, channels, interpolation)
    found = stretch(pixels, resolution, channels, interpolation, mirror=mirror)
    assert found.shape == (*resolution, channels)
    assert np.abs(found.astype(int) - (expected[:, ::-1] if mirror else expected)).max() <= 2


@pytest.mark.parametrize(("have", "want"), [(1, 3), (3, 1)])
def test_stretching_changes_channels_as_fitting_does(have: int, want: int) -> None:
    pixels = photograph(20, 30, have)
    expected = resample(pixels, (0, 0, 30, 20), (9, 11), want, "bicubic")
    assert np.array_equal(stretch(pixels, (9, 11), want, "bicubic"), expected)
