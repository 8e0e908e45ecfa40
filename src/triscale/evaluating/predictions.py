"""What a model says of every image of a split, in one process or in shares; the table follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triscale.data import Batches, Images, Prepared
from triscale.errors import is_out_of_memory
from triscale.evaluating.measures import balanced_accuracy
from triscale.evaluating.table import Table
from triscale.precision import TrainingPrecision
from triscale.stats import Proportion

if TYPE_CHECKING:
    from torch import Tensor

    from triscale.engines import Logits
    from triscale.models.model import Model


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of n images: names, true classes (int64 [n]), probabilities (float32 [n, classes]) and, where they are known, the
    SHA-256 digests of their content."""

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    digests: tuple[bytes, ...] = ()

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The likeliest class of each image, int64 [n]."""
        likeliest: npt.NDArray[np.int64] = self.probabilities.argmax(1)
        return likeliest

    @cached_property
    def table(self) -> Table:
        """One row an image: what every measure is computed from, here as from a file."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        # Classes that are strictly likelier, or equally likely and listed before (as argmax decides).
        ahead = (self.probabilities > own[:, None]).sum(1)
        before = np.arange(self.probabilities.shape[1])[None, :] < self.labels[:, None]
        ahead += ((self.probabilities == own[:, None]) & before).sum(1)
        return Table(
            names=self.names,
            labels=self.labels,
            predicted=self.predicted,
            confidence=self.probabilities.max(1),
            ranks=ahead + 1,
            probability=own,
            digests=self.digests,
            classes=self.classes,
        )

    def top(self, k: int = 1) -> Proportion:
        """How many images have their true class among the k likeliest."""
        return self.table.top(k)

    def log_loss(self) -> tuple[float, float]:
        """The mean log loss and its standard error; see `Table.losses`."""
        return self.table.log_loss()

    def confusion(self) -> npt.NDArray[np.int64]:
        """[true class, predicted class] → number of images."""
        return self.table.confusion()

    def balanced(self) -> float:
        """The mean of the recalls of the classes that have images: every class counts the same."""
        return balanced_accuracy(self.table)

    def to_csv(self) -> str:
        """See `Table.to_csv`."""
        return self.table.to_csv()


def predict_images(
    model: "Model",
    images: Images | Prepared,
    *,
    precision: TrainingPrecision = "fp32",
    batch: int = 256,
    rank: int = 0,
    world: int = 1,
    logits: "Logits | None" = None,
) -> Predictions:
    """What the model says of every image, in their order. Every part of the model keeps its mode.

    logits: what computes them (see `engines.running`); PyTorch, in this precision, if None.
    Where memory does not suffice for ``batch`` images at a time it is half as many from there on, and so forth.
    Of ``world`` processes the one of this ``rank`` (from 0) takes the positions rank, rank + world, …: no image twice,
    and perhaps none at all; `merge` joins the shares.
    """
    import torch

    from triscale.nn import evaluating
    from triscale.training.machine import autocast, give_back

    share = _share(images, rank, world)
    split = share.images if isinstance(share, Prepared) else share
    device = next(model.parameters()).device
    found = np.zeros((len(split), len(model.classes)), np.float32)

    def answer(x: "Tensor") -> npt.NDArray[np.float32]:
        seen = model.preprocess.normalise(x.to(device))
        with autocast(device, precision):
            given = model(seen) if logits is None else logits(seen)
        return given.float().softmax(1).cpu().numpy()

    most = batch
    with evaluating(model), torch.inference_mode():
        for x, _, index in (part[:3] for part in Batches(share, model.preprocess, batch)):
            done = 0
            while done < len(x):
                try:
                    found[index[done : done + most].numpy()] = answer(x[done : done + most])
                    done += most
                    continue
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or most == 1:
                        raise
                most = -(-min(most, len(x) - done) // 2)
                give_back(device)
    return Predictions(split.names, split.labels, found, model.classes, split.digests)


def merge(parts: Sequence[Predictions]) -> Predictions:
    """The shares of all processes, in the order of their ranks, as the predictions that one process makes.

    Raises `ValueError` where they are no shares of one split.
    """
    names = [name for part in parts for name in part.names]
    world, n = len(parts), len(names)
    sizes = [len(range(rank, n, world)) for rank in range(world)]
    fits = [len(part.names) for part in parts] == sizes and len(set(names)) == n
    if not parts or not fits or len({part.classes for part in parts}) > 1:
        raise ValueError("merge: these are no shares of one split, in the order of their ranks")
    # Row k of the joined arrays is image at[k]; its place is where `at` says.
    at = np.argsort(np.concatenate([np.arange(rank, n, world) for rank in range(world)]))
    digests = [digest for part in parts for digest in part.digests]
    return Predictions(
        tuple(names[i] for i in at),
        np.concatenate([part.labels for part in parts])[at],
        np.concatenate([part.probabilities for part in parts])[at],
        parts[0].classes,
        tuple(digests[i] for i in at) if digests else (),
    )


def _share(images: Images | Prepared, rank: int, world: int) -> Images | Prepared:
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is none of {world} processes")
    if world == 1:
        return images
    if isinstance(images, Prepared):
        return images.select(slice(rank, None, world))
    return images.select(np.arange(rank, len(images), world))
