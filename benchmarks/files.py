"""How many times faster than a Pillow `Dataset` in torch's `DataLoader` photographs come from JPEG files, on one core.

    python benchmarks/files.py [--json] [--images DIR] [--side 224] [--pictures 64] [--repeats 9]

Both take the same random boxes of 35 to 100 % of the area, resized to 224×224 (--side), half of them mirrored, in
batches of 32, from the same files, in the calling thread. Without --images the files are made: crops of the
photographs in scikit-learn and, where it is installed, scikit-image, 500×375 to 640×480 pixels as in ImageNet, and
sheets of them of 2000×1500 pixels as from a camera, JPEG quality 95 with halved colour. Both loops run in turns; each
number is the median over the repeats, with the lowest and the highest.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset

from triscale.data import Augment, Batches, Images, Preprocess
from triscale.data.augmenting import Draws
from triscale.data.folders import find_pictures
from triscale.data.pictures import Files

BATCH = 32
AUGMENT = Augment(flip=True, crop_scale=(0.35, 1.0))
METHODS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Peer(Dataset[tuple[torch.Tensor, int]]):
    """What a training script with Pillow does."""

    def __init__(self, paths: Sequence[Path], side: int, epoch: int, interpolation: str) -> None:
        self.paths = paths
        self.size = (side, side)
        self.draws = Draws.at(0, epoch, np.arange(len(paths), dtype=np.int64))
        self.mirrored = self.draws.mirrored(AUGMENT)
        self.method = METHODS[interpolation]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[i]) as opened:
            image = opened.convert("RGB")
        box = self.draws.box(i, (image.height, image.width), self.size, AUGMENT)
        image = image.crop(box).resize(self.size, self.method)
        if self.mirrored[i]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), 0


def photographs() -> list[Image.Image]:
    """Those of scikit-learn, and of scikit-image where it is installed."""
    found = [Image.fromarray(picture) for picture in load_sample_images().images]
    try:
        from skimage import data
    except ImportError:
        return found
    pictures = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.stereo_motorcycle()[0])
    return [*found, *(Image.fromarray(picture) for picture in pictures)]


def write(folder: Path, n: int, sizes: Sequence[tuple[int, int]], tiles: int) -> list[Path]:
    """n JPEG files: ``tiles`` × ``tiles`` photographs each, random boxes of which fill (w, h) pixels together."""
    chance, sources = np.random.default_rng(0), photographs()
    paths = []
    for i in range(n):
        w, h = sizes[i % len(sizes)]
        sheet = Image.new("RGB", (w, h))
        for k in range(tiles * tiles):
            source = sources[int(chance.integers(len(sources)))]
            wide = source.width * chance.uniform(0.8, 1.0)
            high = min(source.height, wide * h / w)
            left, top = chance.uniform(0, source.width - wide), chance.uniform(0, source.height - high)
            part = source.resize((w // tiles, h // tiles), METHODS["bicubic"], (left, top, left + wide, top + high))
            sheet.paste(part, (k % tiles * (w // tiles), k // tiles * (h // tiles)))
        paths.append(folder / f"{i}.jpg")
        sheet.save(paths[-1], quality=95, subsampling=2)
    return paths


def seconds(batches: DataLoader[tuple[torch.Tensor, int]] | Batches) -> float:
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def measure(paths: Sequence[Path], side: int, interpolation: str, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds a picture of both, and how many times more the peer takes, pair by pair."""
    n = len(paths)
    look = Preprocess((side, side), 3, (0.5,) * 3, (0.25,) * 3, interpolation=interpolation)  # type: ignore[arg-type]
    names = tuple(map(str, paths))
    images = Images(np.zeros(n, np.int64), names, tuple(name.encode() for name in names), Files(tuple(paths), 3))
    found: list[tuple[float, float]] = []
    for epoch in range(repeats + 1):
        theirs = seconds(DataLoader(Peer(paths, side, epoch, interpolation), BATCH))
        ours = seconds(Batches(images, look, BATCH, augment=AUGMENT, epoch=epoch, workers=0))
        found.append((theirs, ours))
    found = found[1:]  # the first warms up
    return {
        "peer_ms": spread([1e3 * theirs / n for theirs, _ in found]),
        "ours_ms": spread([1e3 * ours / n for _, ours in found]),
        "ratio": spread([theirs / ours for theirs, ours in found]),
    }


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description="JPEG files to batches: a Pillow DataLoader's time over ours.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--images", type=Path, help="a folder of JPEG photographs instead of made ones")
    parser.add_argument("--side", type=int, default=224, help="pixels of the batches' pictures")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as room:
        if asked.images is not None:
            sets = {str(asked.images): find_pictures(asked.images)[: asked.pictures]}
        else:
            small, large = Path(room, "small"), Path(room, "large")
            small.mkdir(), large.mkdir()
            sizes = ((500, 375), (375, 500), (500, 333), (640, 480))
            sets = {
                "500x375 to 640x480": write(small, asked.pictures, sizes, 1),
                "2000x1500": write(large, max(BATCH, asked.pictures // 4), ((2000, 1500),), 4),
            }
        results = {
            f"{name}, {interpolation}": {
                "pictures": len(paths),
                "mean_kilobytes": statistics.mean(path.stat().st_size for path in paths) / 1e3,
                **measure(paths, asked.side, interpolation, asked.repeats),
            }
            for name, paths in sets.items()
            for interpolation in METHODS
        }
    if asked.json:
        print(json.dumps({"batch": BATCH, "side": asked.side, "repeats": asked.repeats, "results": results}))
        return
    for name, result in results.items():
        ratio, theirs, ours = result["ratio"], result["peer_ms"], result["ours_ms"]
        print(
            f"{name}: {ratio['median']:.2f} times faster ({ratio['lowest']:.2f} to {ratio['highest']:.2f}); "
            f"{ours['median']:.2f} ms a picture, the peer {theirs['median']:.2f}"
        )


if __name__ == "__main__":
    main()
