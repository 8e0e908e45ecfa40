"""What a space lies around where nobody names a network."""

from triscale.arch import Architecture, Head, MBConv, Stage, Stem, published

FEW_PIXELS = 64  # on the shorter side: below it the zoo's networks are mostly stages that have lost their map
MNASNET = "mobilenet_v2"  # what MnasNet's space lies around
LARGE = "efficientnet_b0"


def mini() -> Architecture:
    """EfficientNet-B0's blocks in four stages, for images of few pixels. Scaled down to a few million
    multiply-accumulates at 28 pixels, B0's seven stages would be one block of eight channels each."""
    stages = (
        Stage(MBConv(3, 1), 16),
        Stage(MBConv(3, 4), 24, repeats=2, stride=2),
        Stage(MBConv(5, 4), 40, repeats=2, stride=2),
        Stage(MBConv(3, 4), 64, repeats=2),
    )
    head = Head(classes=10, channels=160)
    return Architecture(
        stages, stem=Stem(16, stride=1), head=head, resolution=(18, 18), channels=1, name="efficientnet_mini"
    )


def usual(space: str, resolution: tuple[int, int]) -> Architecture:
    """The reference for images of a resolution (height, width)."""
    if space == "mnasnet":
        return published(MNASNET)
    return mini() if min(resolution) < FEW_PIXELS else published(LARGE)
