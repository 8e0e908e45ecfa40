"""What the images themselves decide: the resolution to start from, and the preprocessing."""

from triscale.arch import Architecture
from triscale.data.pictures import Data
from triscale.data.preprocessing import Preprocess, statistics

SMALLEST_SIDE = 16  # pixels: smaller images are enlarged to it
LARGEST_SIDE = 224  # pixels: the baselines were designed for it; a rule may go above
LONGEST_SIDE = 1024  # pixels: of very elongated images, which are squashed to it
PHOTOGRAPH = 64  # pixels: from here on a random crop of a third still shows something


def own_pixels(data: Data) -> tuple[int, int]:
    """(height, width) that the images have: where they differ, a square of the median image's shorter side."""
    return data.size if data.uniform else (min(data.size),) * 2


def image_resolution(data: Data) -> tuple[int, int]:
    """The baseline's resolution for these images, (height, width).

    Their own size, where all have it, with the shorter side between 16 and 224 pixels and the longer at most 1024;
    otherwise a square of the median image's shorter side, within the same bounds.
    """
    height, width = own_pixels(data)
    short = min(height, width)
    wanted = min(max(short, SMALLEST_SIDE), LARGEST_SIDE)
    return min(round(height * wanted / short), LONGEST_SIDE), min(round(width * wanted / short), LONGEST_SIDE)


def fitting_preprocess(data: Data, architecture: Architecture) -> Preprocess:
    """Mean and deviation of the training images; centre crops of 87.5 % only for photographs of different sizes."""
    crop = 1.0 if data.uniform or min(data.size) < PHOTOGRAPH else 0.875
    squash = data.uniform and max(image_resolution(data)) == LONGEST_SIDE
    mean, std = statistics(data.train, architecture.resolution, architecture.channels, crop=crop, squash=squash)
    return Preprocess(architecture.resolution, architecture.channels, mean, std, crop=crop, squash=squash)
