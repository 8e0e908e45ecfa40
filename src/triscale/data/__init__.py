"""What a network sees: folders, manifests and IDX files → splits → batches."""

from triscale.data.augmenting import Augment
from triscale.data.batching import Batches, Prepared, prepare
from triscale.data.pictures import BadFile, Data, Images
from triscale.data.preprocessing import Preprocess, statistics
from triscale.data.reading import read

__all__ = [
    "Augment",
    "BadFile",
    "Batches",
    "Data",
    "Images",
    "Prepared",
    "Preprocess",
    "prepare",
    "read",
    "statistics",
]
