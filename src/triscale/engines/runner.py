"""What every engine gives: a call that takes images and gives logits."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

IMAGES, LOGITS = "images", "logits"  # what a graph takes and gives, by name


class Runner(Protocol):
    """A network that is ready to run; may be called from many threads."""

    def __call__(self, images: Array, /) -> Array:
        """float32 (n, channels, h, w), contiguous → logits, float32 (n, classes)."""
