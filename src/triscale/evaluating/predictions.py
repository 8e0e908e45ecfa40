"""The prediction table: what a model said of each image of a split, and the figures that follow from it."""

import csv
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from triscale.data import Batches, Images, Prepared
from triscale.models.model import Model
from triscale.stats import Proportion
from triscale.training.machine import autocast


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of n images: names, true classes (int64 [n]) and probabilities (float32 [n, classes])."""

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The likeliest class of each image, int64 [n]."""
        likeliest: npt.NDArray[np.int64] = self.probabilities.argmax(1)
        return likeliest

    def top(self, k: int = 1) -> Proportion:
        """How many images have their true class among the k likeliest."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        # Classes that are strictly likelier, or equally likely and listed before (as argmax decides).
        ahead = (self.probabilities > own[:, None]).sum(1)
        before = np.arange(self.probabilities.shape[1])[None, :] < self.labels[:, None]
        ahead += ((self.probabilities == own[:, None]) & before).sum(1)
        return Proportion(int((ahead < k).sum()), len(self.labels))

    def log_loss(self) -> tuple[float, float]:
        """The mean of -log(probability of the true class), a probability of 0 taken for the smallest number that fp32
        has; and the standard error of that mean."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        losses = -np.log(np.maximum(own, np.finfo(np.float32).tiny))
        return float(losses.mean()), float(losses.std(ddof=1) / len(losses) ** 0.5) if len(losses) > 1 else 0.0

    def confusion(self) -> npt.NDArray[np.int64]:
        """[true class, predicted class] → number of images."""
        n = len(self.classes)
        return np.bincount(self.labels * n + self.predicted, minlength=n * n).reshape(n, n)

    def balanced(self) -> float:
        """The mean of the recalls of the classes that have images: every class counts the same."""
        matrix = self.confusion()
        images = matrix.sum(1)
        return float((matrix.diagonal()[images > 0] / images[images > 0]).mean())

    def to_csv(self) -> str:
        """A table with the header name,label,predicted,confidence."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("name", "label", "predicted", "confidence"))
        confidence = self.probabilities.max(1)
        for name, label, guess, sure in zip(self.names, self.labels, self.predicted, confidence, strict=True):
            writer.writerow((name, self.classes[label], self.classes[guess], f"{sure:.4f}"))
        return out.getvalue()


@torch.inference_mode()
def predict_images(
    model: Model, images: Images | Prepared, *, precision: str = "fp32", batch: int = 256
) -> Predictions:
    """What the model says of every image, in their order. The model keeps its mode."""
    split = images.images if isinstance(images, Prepared) else images
    device = next(model.parameters()).device
    mode = model.training
    model.eval()
    found = np.zeros((len(split), len(model.classes)), np.float32)
    try:
        for x, _, index in Batches(images, model.preprocess, batch):
            with autocast(device, precision):
                logits = model(model.preprocess.normalise(x.to(device)))
            found[index.numpy()] = logits.float().softmax(1).cpu().numpy()
    finally:
        model.train(mode)
    return Predictions(split.names, split.labels, found, model.classes)
