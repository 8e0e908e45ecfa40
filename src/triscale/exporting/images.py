"""Real images to check a file with: those of the run, or others that somebody names."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triscale.data import Batches, Data, Images, read, read_again
from triscale.data.folders import find_pictures
from triscale.models import Model
from triscale.models.predicting import is_labelled
from triscale.runs import RunDirectory

MOST = 1000  # of them, evenly out of all
BATCH = 32


class Seen(NamedTuple):
    """n images as the network sees them, float32 (some, channels, h, w) at a time; to be gone through once."""

    n: int
    batches: Iterator[Tensor]


def images_of(run: RunDirectory, place: Path | None) -> Data:
    """The run's own images in its own splits. place: where they are now. Raises `UserError` where they are others."""
    settings = run.settings()
    plan = settings.get("plan")
    seed = plan.get("seed", 0) if isinstance(plan, dict) else 0
    return read_again(settings.get("data"), str(run.path), seed=seed, place=place)


def batches_of(model: Model, data: Data) -> Seen:
    """Up to a thousand images as the network sees them: held-out ones; where there are none, any."""
    held = [split for split in (data.test, data.val) if len(split)] or [data.train]
    parts, left = [], MOST
    for split in held:
        parts.append(_evenly(split, left))
        left -= len(parts[-1])
    return Seen(sum(map(len, parts)), (x for part in parts if len(part) for x in _seen(model, part)))


def batches_from(model: Model, place: Path) -> Seen:
    """The same of pictures that somebody names: IDX files, a manifest, a folder or a file. Raises `UserError`."""
    if is_labelled(place):
        return batches_of(model, read(place, seed=None))
    paths = find_pictures(place)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MOST)).round().astype(int)]
    starts = range(0, len(chosen), BATCH)
    return Seen(len(chosen), (torch.stack([model.preprocess(p) for p in chosen[i : i + BATCH]]) for i in starts))


def _evenly(images: Images, most: int) -> Images:
    if len(images) <= most:
        return images
    return images.select(np.linspace(0, len(images) - 1, most).round().astype(int))


def _seen(model: Model, images: Images) -> Iterator[Tensor]:
    if len(images):
        for part in Batches(images, model.preprocess, BATCH):
            yield model.preprocess.normalise(part[0])
