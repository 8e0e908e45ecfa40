"""From a picture to a network's input: fit to the resolution, then normalise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from triscale.data.chance import sample
from triscale.data.decoding import BadPictureError, Pixels, decode, flatten, read_bytes, to_array
from triscale.data.pictures import Images
from triscale.data.threads import ordered_map
from triscale.errors import UserError

if TYPE_CHECKING:
    import torch

Sums = npt.NDArray[np.int64]
Box = tuple[float, float, float, float]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
STATISTICS_LIMIT = 5_000


def cover_box(size: tuple[int, int], resolution: tuple[int, int], crop: float) -> Box:
    """(left, top, right, bottom): the centred share of a picture of ``size`` (h, w) that becomes ``resolution``.

    The largest box of the resolution's aspect, shrunk by ``crop``: the same as resizing the short side to
    resolution / crop and cutting out the centre, in one resampling and without rounding in between.
    """
    (h, w), (rows, columns) = size, resolution
    scale = crop * min(h / rows, w / columns)
    height, width = rows * scale, columns * scale
    left, top = (w - width) / 2, (h - height) / 2
    return max(0.0, left), max(0.0, top), min(float(w), left + width), min(float(h), top + height)


def resample(pixels: Pixels, box: Box, resolution: tuple[int, int], channels: int, interpolation: str) -> Pixels:
    """The ``box`` of uint8 [h, w, 1 or 3] → uint8 [*resolution, channels], antialiased."""
    h, w, have = pixels.shape
    if box == (0, 0, w, h) and (h, w) == resolution and have == channels:
        return pixels
    if have not in (1, 3):
        planes = [resample(pixels[:, :, i : i + 1], box, resolution, 1, interpolation) for i in range(have)]
        return np.concatenate(planes, axis=2)
    image = Image.fromarray(pixels[:, :, 0] if have == 1 else pixels)
    if channels == 1 and have == 3:
        image = image.convert("L")
    rows, columns = resolution
    return to_array(image.resize((columns, rows), _RESAMPLING[interpolation], box=box), channels)


@cache
def _torch_is_faster() -> bool:
    """Whether torch has its vector instructions for resizing uint8; without them Pillow is the faster one."""
    import torch

    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


def stretch(
    pixels: Pixels, resolution: tuple[int, int], channels: int, interpolation: str, *, mirror: bool = False
) -> Pixels:
    """`resample` of the whole of ``pixels``, several times faster where torch can; left to right where ``mirror``.

    For training: it differs from Pillow by rounding, and by what bicubic overshoots between its two passes.
    """
    h, w, have = pixels.shape
    if (h, w) == resolution or have != channels or have not in (1, 3) or not _torch_is_faster():
        fitted = resample(pixels, (0, 0, w, h), resolution, channels, interpolation)
        return fitted[:, ::-1] if mirror else fitted
    import torch

    # A copy, as torch takes no read-only pixels. Reshaped, so that the strides are those of channels_last in every
    # dimension: the fast path goes by them, and an axis added by None has a stride of its own.
    image = torch.from_numpy(np.array(pixels, order="C").reshape(1, h, w, have)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(image, size=resolution, mode=interpolation, antialias=True)
    found: Pixels = (resized.flip(3) if mirror else resized)[0].permute(1, 2, 0).numpy()
    return found


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a network's input; travels with the weights as JSON.

    ``resolution``: (h, w). ``channels``: 1 (gray), 3 (RGB), or any other number, for arrays of so many. ``mean``,
    ``std``: one per channel, for pixels in 0..1. ``crop``: the share of the picture's short side that the centre crop
    keeps; 1.0 keeps all of it. ``squash``: the whole picture is resized without regard to its aspect, and ``crop``
    plays no part.

    Raises `UserError` for values out of range.
    """

    resolution: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    squash: bool = False

    def __post_init__(self) -> None:
        if len(self.resolution) != 2 or min(self.resolution) < 1:
            raise UserError(f"preprocess: resolution {self.resolution} is not (h, w) of at least 1; write two sizes")
        if self.channels < 1:
            raise UserError(f"preprocess: channels {self.channels} is not at least 1; write 1 (gray), 3 (RGB) or more")
        if not len(self.mean) == len(self.std) == self.channels:
            raise UserError(f"preprocess: mean {self.mean} and std {self.std} need {self.channels} values each")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(s) and s > 0 for s in self.std):
            raise UserError(f"preprocess: mean {self.mean}, std {self.std} must be finite, and std above 0")
        if not 0 < self.crop <= 1:
            raise UserError(f"preprocess: crop {self.crop} is not in (0, 1]; write a share such as 0.875")
        if self.interpolation not in _RESAMPLING:
            raise UserError(f"preprocess: interpolation {self.interpolation!r} is not one of {', '.join(_RESAMPLING)}")

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; `from_json` gives an equal value back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> "Preprocess":
        """Raises `UserError` for an unknown, missing or ill-typed key."""
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise UserError(f"preprocess: unknown key {key!r}; known are {', '.join(sorted(known))}")
        for key in ("resolution", "channels", "mean", "std"):
            if key not in values:
                raise UserError(f"preprocess: the key {key!r} is missing; add it")
        interpolation = values.get("interpolation", "bicubic")
        squash = values.get("squash", False)
        if not isinstance(squash, bool):
            raise UserError(f"preprocess: squash {squash!r} is neither true nor false; write one of them")
        if interpolation not in ("bilinear", "bicubic"):
            raise UserError(f"preprocess: interpolation {interpolation!r} is not one of {', '.join(_RESAMPLING)}")
        resolution = _integers("resolution", values["resolution"])
        if len(resolution) != 2:
            raise UserError(f"preprocess: resolution {list(resolution)} is not [h, w]; write two sizes")
        return cls(
            resolution=(resolution[0], resolution[1]),
            channels=_integers("channels", [values["channels"]])[0],
            mean=_numbers("mean", values["mean"]),
            std=_numbers("std", values["std"]),
            crop=_numbers("crop", [values.get("crop", 1.0)])[0],
            interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
            squash=squash,
        )

    def fit(self, pixels: Pixels) -> Pixels:
        """uint8 [h, w, 1, 3 or channels] of any size → uint8 [H, W, channels]: resized to cover, then the centre.

        Grays become RGB by repetition, RGB gray by luma. A picture that fits already comes back as it is, not a copy.
        Raises `UserError` for another type or shape.
        """
        fine = (1, 3) if self.channels in (1, 3) else (self.channels,)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in fine or not pixels.size:
            wanted = " or ".join(map(str, fine))
            raise UserError(f"preprocess: pixels are {pixels.dtype} {pixels.shape}; bring uint8 (h, w, {wanted})")
        h, w, _ = pixels.shape
        box = (0.0, 0.0, float(w), float(h)) if self.squash else cover_box((h, w), self.resolution, self.crop)
        return resample(pixels, box, self.resolution, self.channels, self.interpolation)

    def __call__(self, image: Image.Image | Pixels | str | Path) -> "torch.Tensor":
        """One picture (a Pillow image of any mode, uint8 [h, w] or [h, w, 1, 3 or 4], or a file) → float32 [c, H, W].

        A model of other than 1 or 3 channels takes uint8 [h, w, channels] alone; to the others a fourth is opacity.
        Raises `UserError` for what is no picture.
        """
        import torch

        fitted = self.fit(self._pixels(image))
        batch = torch.from_numpy(np.array(fitted)).permute(2, 0, 1).unsqueeze(0)
        return self.normalise(batch)[0].contiguous()

    def _pixels(self, image: Image.Image | Pixels | str | Path) -> Pixels:
        if self.channels not in (1, 3) and not isinstance(image, np.ndarray):
            n = self.channels
            raise UserError(f"preprocess: a picture has 1 or 3 channels, not {n}; bring an array (h, w, {n})")
        try:
            if isinstance(image, str | Path):
                return decode(read_bytes(Path(image)), self.channels)
            if isinstance(image, Image.Image):
                return to_array(flatten(image), self.channels)
        except BadPictureError as error:
            what = f"'{image}'" if isinstance(image, str | Path) else "the image"
            raise UserError(f"{what} cannot be read: {error}; give a picture file that opens elsewhere") from None
        if image.ndim == 2:
            return image[:, :, None]
        if self.channels in (1, 3) and image.ndim == 3 and image.shape[2] == 4 and image.dtype == np.uint8:
            return to_array(flatten(Image.fromarray(image)), self.channels)
        return image

    def normalise(self, batch: "torch.Tensor") -> "torch.Tensor":
        """uint8 [n, c, H, W] on any device → float32 (x / 255 - mean) / std, memory format kept."""
        import torch

        std = torch.tensor(self.std, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
        return batch.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)


def _numbers(key: str, value: object) -> tuple[float, ...]:
    if isinstance(value, list | tuple) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        return tuple(float(x) for x in value)
    raise UserError(f"preprocess: {key} {value!r} is not made of numbers; write them as JSON numbers")


def _integers(key: str, value: object) -> tuple[int, ...]:
    if isinstance(value, list | tuple) and all(isinstance(x, int) and not isinstance(x, bool) for x in value):
        return tuple(value)
    raise UserError(f"preprocess: {key} {value!r} is not made of whole numbers; write them as JSON integers")


def statistics(
    images: Images,
    resolution: tuple[int, int],
    channels: int,
    *,
    crop: float = 1.0,
    squash: bool = False,
    seed: int = 0,
    threads: int | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel, of pixels in 0..1 as a network of that ``resolution`` gets them, over a seeded sample of
    at most 5,000 pictures.

    Sums are whole numbers, so neither threads nor order move a digit. The std is at least 1/255: pictures of one
    single colour would otherwise divide by nothing.
    """
    shape = Preprocess(resolution, channels, (0.0,) * channels, (1.0,) * channels, crop, squash=squash)

    def sums(i: int) -> tuple[Sums, Sums]:
        values = shape.fit(images.pixels(i)).astype(np.int64).reshape(-1, channels)
        return values.sum(axis=0), (values * values).sum(axis=0)

    chosen = sample((seed, 5), len(images), STATISTICS_LIMIT).tolist()
    if not chosen:
        raise UserError("statistics: there is no picture to measure; bring at least one")
    first, second = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for one, two in ordered_map(sums, chosen, threads):
        first += one
        second += two
    n = len(chosen) * resolution[0] * resolution[1]
    mean = first / n
    std = np.maximum(np.sqrt(np.maximum(second / n - mean * mean, 0.0)), 1.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
