"""Two answers to the same images, set beside each other image by image."""

import numpy as np
import numpy.typing as npt

from triscale.stats import PairedDifference


def paired(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> PairedDifference:
    """By how much the first names more images right than the second: first less second.

    first_right, second_right: bool [n], n at least 1, whether each image was named right; the same images in the same
    order. Raises `ValueError` where they are not as many.
    """
    if first_right.shape != second_right.shape:
        raise ValueError(f"answers to {len(first_right):,} and {len(second_right):,} images cannot be paired")
    only_first, only_second = first_right & ~second_right, second_right & ~first_right
    return PairedDifference(int(only_first.sum()), int(only_second.sum()), len(first_right))
