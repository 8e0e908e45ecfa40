"""A network of a few thousand weights that tests explain."""

from triscale.arch import Architecture, Head, MBConv, Stage, Stem
from triscale.data import Preprocess
from triscale.models import Model
from triscale.models.model import new

TINY = Architecture(
    (Stage(MBConv(3, 2), 8, 2, 2), Stage(MBConv(3, 2), 16, 1, 2)),
    stem=Stem(8),
    head=Head(3, 16),
    resolution=(48, 64),
    name="tiny-network",
)
LOOK = Preprocess((48, 64), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), crop=0.9)
CLASSES = ("great white shark", "tiger", "$x^2$ 狗")


def tiny(seed: int = 0, architecture: Architecture = TINY, look: Preprocess = LOOK) -> Model:
    model = new(architecture, CLASSES, look, seed=seed).eval()
    model.trained = True
    return model
