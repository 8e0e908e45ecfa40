"""What decoding, `Preprocess` and `statistics` promise about pixels."""

import contextlib
import json
import math
import random
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from bad_data import truncated
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded
from PIL import Image

from triscale.data import Images, Preprocess, read, statistics
from triscale.data.decoding import BadPictureError, check, decode
from triscale.data.pictures import Memory
from triscale.errors import UserError

Bytes = npt.NDArray[np.uint8]


def ramp(h: int = 12, w: int = 16) -> Bytes:
    return (np.arange(h * w, dtype=np.uint8).reshape(h, w) * 1)[:, :, None]


def in_memory(values: Bytes) -> Images:
    n = len(values)
    return Images(np.arange(n) % 2, tuple(f"train/{i}" for i in range(n)), (b"",) * n, Memory(values))


def test_gray_and_rgb_come_back_as_saved() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(ramp()[:, :, 0]))), ramp())
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(rgb))), rgb)
    assert decode(encoded(Image.fromarray(rgb)), channels=1).shape == (5, 7, 1)
    assert np.array_equal(decode(encoded(Image.fromarray(ramp()[:, :, 0])), channels=3), np.repeat(ramp(), 3, axis=2))


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(encoded(image)).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 300]], np.uint16)
    pixels = decode(encoded(Image.fromarray(values), form))
    assert pixels[:, :, 0].tolist() == [[0, 1, 128, 255, 1]]


def test_big_endian_sixteen_bits_are_scaled_too() -> None:
    tiff = encoded(Image.frombytes("I;16B", (2, 1), b"\xff\xff\x01\x01"), "TIFF")
    assert tiff[:2] in (b"MM", b"II")
    assert decode(tiff).ravel().tolist() == [255, 1]


def test_mode_i_is_scaled_like_sixteen_bits() -> None:
    image = Image.fromarray(np.array([[0, 65535, 257]], np.int32))
    assert image.mode == "I"
    assert decode(encoded(image, "TIFF"))[:, :, 0].tolist() == [[0, 255, 1]]


def test_transparency_lies_on_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    pixels = decode(encoded(Image.fromarray(rgba)))
    assert pixels[0, :2].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert abs(int(pixels[0, 2, 0]) - 127) <= 1


def test_gray_with_transparency_stays_gray_on_white() -> None:
    image = Image.merge("LA", (Image.new("L", (2, 1), 10), Image.new("L", (2, 1), 0)))
    assert decode(encoded(image)).tolist() == [[[255], [255]]]
    keyed = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert decode(encoded(keyed, transparency=10)).ravel().tolist() == [255, 20]


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours(transparent: bool) -> None:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = encoded(image, transparency=bytes([255, 0, 255])) if transparent else encoded(image)
    middle = [255, 255, 255] if transparent else [0, 255, 0]
    assert decode(data).tolist() == [[[255, 0, 0], middle, [0, 0, 255]]]


def test_transparent_gif_lies_on_white() -> None:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(encoded(image, "GIF", transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_cmyk_becomes_rgb() -> None:
    pixels = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    red, green, blue = pixels[4, 4].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(form: str, orientation: int) -> None:
    """A white corner at the top left of what people see, wherever the file stores it."""
    seen = np.zeros((16, 32), np.uint8)
    seen[:8, :8] = 255
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].T,
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options)
    pixels = decode(data, 1)[:, :, 0]
    assert pixels.shape == (16, 32)
    assert np.abs(pixels.astype(int) - seen).max() <= 8
    assert check(data)[:2] == (16, 32)


def test_broken_exif_neither_makes_a_picture_bad_nor_a_noise(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(tmp_path)
    assert not data.skipped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert data.train.pixels(0).shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_garbled_files_are_bad_pictures_and_nothing_else(form: str) -> None:
    """Whatever is flipped or cut, decoding gives pixels or `BadPictureError`."""
    noise = np.random.default_rng(3).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    chance = random.Random(7)
    for _ in range(60):
        broken = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with contextlib.suppress(BadPictureError):
            assert decode(bytes(broken), max_pixels=10_000).dtype == np.uint8


def test_all_gray_data_has_one_channel_and_one_colour_picture_makes_three(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4 + i), i).save(path)
    data = read(tmp_path)
    assert (data.channels, data.uniform, data.train.pixels(0).shape[2]) == (1, False, 1)
    assert data.train.array() is None
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a" / "colour.png")
    data = read(tmp_path)
    assert (data.channels, data.train.pixels(0).shape[2]) == (3, 3)


def plain(resolution: tuple[int, int], channels: int, **options: float) -> Preprocess:
    return Preprocess(resolution, channels, (0.0,) * channels, (1.0,) * channels, **options)  # type: ignore[arg-type]


def test_fit_leaves_a_fitting_picture_untouched() -> None:
    assert np.array_equal(plain((12, 16), 1).fit(ramp()), ramp())


def test_fit_crops_the_centre_of_the_long_side() -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    fitted = plain((8, 8), 3).fit(pixels)
    assert fitted.shape == (8, 8, 3)
    assert (fitted == 200).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(512, 512), (512, 640), (700, 512)])
def test_crop_equals_resizing_then_cutting(interpolation: str, size: tuple[int, int]) -> None:
    """The recipe the field writes as Resize(256), CenterCrop(224), to within rounding."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    wave = (127 + 120 * np.sin(rows / 40) * np.cos(columns / 33)).astype(np.uint8)
    got = plain((224, 224), 1, crop=0.875, interpolation=interpolation).fit(wave[:, :, None])[:, :, 0]  # type: ignore[arg-type]
    scale = 256 / min(size)
    h, w = round(size[0] * scale), round(size[1] * scale)
    method = Image.Resampling.BILINEAR if interpolation == "bilinear" else Image.Resampling.BICUBIC
    top, left = (h - 224) // 2, (w - 224) // 2
    expected = np.asarray(Image.fromarray(wave).resize((w, h), method))[top : top + 224, left : left + 224]
    assert np.abs(got.astype(int) - expected).max() <= 2


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resolution=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    have=st.sampled_from([1, 3]),
    want=st.sampled_from([1, 3]),
    crop=st.floats(0.05, 1.0),
    squash=st.booleans(),
)
def test_fit_meets_any_resolution_from_any_size(
    size: tuple[int, int], resolution: tuple[int, int], have: int, want: int, crop: float, squash: bool
) -> None:
    pixels = np.full((*size, have), 77, np.uint8)
    fitted = Preprocess(resolution, want, (0.0,) * want, (1.0,) * want, crop, squash=squash).fit(pixels)
    assert fitted.shape == (*resolution, want)
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()


def test_call_takes_images_arrays_and_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    shape = Preprocess((8, 8), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    expected = (pixels.transpose(2, 0, 1) / 255 - np.reshape(shape.mean, (3, 1, 1))) / np.reshape(shape.std, (3, 1, 1))
    for image in (pixels, Image.fromarray(pixels), tmp_path / "x.png", str(tmp_path / "x.png")):
        got = shape(image)
        assert got.shape == (3, 8, 8)
        assert got.dtype == torch.float32
        assert np.abs(got.numpy() - expected).max() < 1e-6
    opaque = np.concatenate([pixels, np.full((8, 8, 1), 255, np.uint8)], axis=2)
    assert torch.equal(shape(opaque), shape(pixels))
    assert shape(pixels[:, :, 0]).shape == (3, 8, 8)


def test_four_channels_are_opacity_only_to_models_of_one_or_three() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    shape = Preprocess((8, 8), 4, (0.0,) * 4, (1.0,) * 4)
    assert np.abs(shape(pixels).numpy() - pixels.transpose(2, 0, 1) / 255).max() < 1e-6
    for channels in (1, 3):
        assert plain((8, 8), channels)(pixels).shape == (channels, 8, 8)


def test_a_picture_alone_and_in_a_batch_are_the_same_input() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    shape = Preprocess((9, 9), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    normalised = shape.normalise(batch)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    for k in range(5):
        assert torch.equal(normalised[k], shape(pixels[k]))


def test_wrong_pictures_are_the_users_mistake(tmp_path: Path) -> None:
    shape = plain((8, 8), 3)
    (tmp_path / "x.jpg").write_text("no")
    with pytest.raises(UserError, match=r"x\.jpg"):
        shape(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="nowhere"):
        shape("nowhere.png")
    with pytest.raises(UserError, match="float32"):
        shape(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UserError, match=r"\(8, 8, 2\)"):
        shape(np.zeros((8, 8, 2), np.uint8))
    with pytest.raises(UserError, match="the image"):
        shape(Image.new("F", (8, 8)))


@given(
    resolution=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    channels=st.sampled_from([1, 3]),
    number=st.floats(0.01, 1.0),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    squash=st.booleans(),
)
def test_json_gives_an_equal_value_back(
    resolution: tuple[int, int], channels: int, number: float, interpolation: str, squash: bool
) -> None:
    values = (number,) * channels
    shape = Preprocess(resolution, channels, values, values, number, interpolation, squash)  # type: ignore[arg-type]
    assert Preprocess.from_json(json.loads(json.dumps(shape.to_json()))) == shape


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sise": 3}, "'sise'"),
        ({"channels": 0}, "channels 0"),
        ({"channels": True}, "channels"),
        ({"resolution": [8]}, r"\[8\]"),
        ({"resolution": "8x8"}, "8x8"),
        ({"resolution": [0, 8]}, "at least 1"),
        ({"mean": [0.5]}, "3 values"),
        ({"mean": ["a", "b", "c"]}, "mean"),
        ({"std": [0.5, 0.0, 0.5]}, "above 0"),
        ({"std": [0.5, math.nan, 0.5]}, "finite"),
        ({"crop": 1.5}, "1.5"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"squash": 1}, "squash"),
    ],
)
def test_json_is_read_strictly(change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Preprocess.from_json({**plain((8, 8), 3).to_json(), **change})


def test_json_without_a_needed_key_is_refused() -> None:
    values = plain((8, 8), 3).to_json()
    del values["mean"]
    with pytest.raises(UserError, match="'mean'"):
        Preprocess.from_json(values)


def test_statistics_are_those_of_the_pixels() -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    values[..., 2] = 9
    mean, std = statistics(in_memory(values), (6, 6), 3, threads=1)
    assert (mean, std) == statistics(in_memory(values), (6, 6), 3, threads=4)
    scaled = values / 255
    assert np.allclose(mean, scaled.mean(axis=(0, 1, 2)))
    assert np.allclose(std[:2], scaled.std(axis=(0, 1, 2))[:2])
    assert std[2] == 1 / 255, "one single colour must not divide by nothing"


def test_statistics_sample_large_splits_by_seed() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5_200, 1, 1, 1), dtype=np.uint8)
    first = statistics(in_memory(values), (1, 1), 1, seed=0)
    assert first == statistics(in_memory(values), (1, 1), 1, seed=0)
    assert first != statistics(in_memory(values), (1, 1), 1, seed=1)
    with pytest.raises(UserError, match="no picture"):
        statistics(in_memory(values[:0]), (1, 1), 1)


def test_statistics_are_those_of_what_a_network_gets_of_long_pictures() -> None:
    values = np.zeros((4, 6, 60, 1), np.uint8)
    values[:, :, 30:] = 200  # a centre crop would see another share of it
    values[:, :, 27:33] = 100
    shape = Preprocess((6, 12), 1, (0.0,), (1.0,), squash=True)
    seen = np.stack([shape.fit(one) for one in values]) / 255
    (mean,), (std,) = statistics(in_memory(values), (6, 12), 1, squash=True)
    assert (mean, std) == (pytest.approx(seen.mean()), pytest.approx(seen.std()))


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_an_image_object_is_seen_as_its_file_is(tmp_path: Path, kind: str) -> None:
    exif, path, shape = Image.Exif(), tmp_path / f"a.{kind}", Preprocess((8, 4), 3, (0.0,) * 3, (1.0,) * 3)
    exif[0x112] = 6  # lies on its side
    Image.fromarray(ramp().repeat(3, 2)[:4, :8]).save(path, exif=exif)
    with Image.open(path) as image:
        assert torch.equal(shape(image), shape(path))


def test_a_damaged_image_object_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    truncated(path, "jpg")
    with Image.open(path) as image, pytest.raises(UserError, match="the image cannot be read: damaged"):
        Preprocess((8, 8), 3, (0.0,) * 3, (1.0,) * 3)(image)
