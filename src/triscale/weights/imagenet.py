"""The classes of ImageNet (ILSVRC-2012), in the order of the logits. No torch."""

from functools import cache
from importlib.resources import files


@cache
def imagenet_classes() -> tuple[str, ...]:
    """1,000 names, each used once; `imagenet.txt` says where they come from."""
    lines = files("triscale.weights").joinpath("imagenet.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.split("\t")[1] for line in lines if line and not line.startswith("#"))
