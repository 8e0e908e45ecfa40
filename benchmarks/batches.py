"""How many augmented pictures a second `data` hands to a training loop from memory, on one core.

    python benchmarks/batches.py [--json] [--pictures 10000] [--repeats 7]

28×28 gray pictures with random shifts, 32×32 colour ones with shifts and mirroring and those mixed with each other, and
224×224 colour ones with random crops, without and with RandAugment, in batches of 128. Median over the repeats, with
the lowest and the highest.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from triscale.data import Augment, Batches, Images, Preprocess, prepare
from triscale.data.pictures import Memory


def in_memory(n: int, side: int, channels: int) -> Images:
    """Noise as pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, channels), np.uint8)
    names = tuple(map(str, range(n)))
    return Images(np.zeros(n, np.int64), names, tuple(name.encode() for name in names), Memory(pixels))


def measure(n: int, side: int, channels: int, augment: Augment, repeats: int) -> dict[str, float]:
    """Pictures a second."""
    look = Preprocess((side, side), channels, (0.5,) * channels, (0.25,) * channels)
    prepared = prepare(in_memory(n, side, channels), look, augment)
    found = []
    for epoch in range(repeats + 1):
        start = time.perf_counter()
        for _ in Batches(prepared, look, 128, shuffle=True, augment=augment, epoch=epoch, workers=0):
            pass
        found.append(n / (time.perf_counter() - start))
    speeds = found[1:]  # the first warms up
    return {"median": statistics.median(speeds), "lowest": min(speeds), "highest": max(speeds)}


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description="Augmented pictures a second from memory, on one core.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    crop, n = Augment(flip=True, crop_scale=(0.35, 1.0)), asked.pictures
    kinds = {
        "28x28 gray, shifted": (n, 28, 1, Augment(0.1)),
        "32x32 colour, shifted and mirrored": (n, 32, 3, Augment(0.1, flip=True)),
        "32x32 colour, shifted, mirrored and mixed": (n, 32, 3, Augment(0.1, flip=True, mixup=0.2, cutmix=1.0)),
        "224x224 colour, cropped": (n // 40, 224, 3, crop),
        "224x224 colour, cropped and RandAugment": (n // 40, 224, 3, replace(crop, policy="randaugment")),
    }
    results = {name: measure(*kind, asked.repeats) for name, kind in kinds.items()}
    if asked.json:
        print(json.dumps({"pictures": asked.pictures, "repeats": asked.repeats, "pictures_per_second": results}))
        return
    for name, speed in results.items():
        print(f"{name}: {speed['median']:,.0f} a second ({speed['lowest']:,.0f} to {speed['highest']:,.0f})")


if __name__ == "__main__":
    main()
