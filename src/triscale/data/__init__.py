"""What a network sees: folders, manifests and IDX files → splits → batches."""

from triscale.data.again import check_apart, check_still_there, data_values, read_again
from triscale.data.augmenting import Augment
from triscale.data.batching import Batch, Batches
from triscale.data.pictures import BadFile, Data, Images
from triscale.data.preparing import Prepared, prepare
from triscale.data.preprocessing import Preprocess, statistics
from triscale.data.reading import read
from triscale.data.sizing import PHOTOGRAPH, fitting_preprocess, image_resolution, own_pixels

__all__ = [
    "PHOTOGRAPH",
    "Augment",
    "BadFile",
    "Batch",
    "Batches",
    "Data",
    "Images",
    "Prepared",
    "Preprocess",
    "check_apart",
    "check_still_there",
    "data_values",
    "fitting_preprocess",
    "image_resolution",
    "own_pixels",
    "prepare",
    "read",
    "read_again",
    "statistics",
]
