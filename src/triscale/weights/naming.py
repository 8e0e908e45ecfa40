"""What other projects call the tensors of our networks, and how they lay them out. No torch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from triscale.arch import ZOO, Architecture, Basic, DepthwiseSeparable, MBConv
from triscale.arch.spec import Block
from triscale.costing import cost
from triscale.costing.cost import Layer

Tensor = npt.NDArray[np.generic]
Shape = tuple[int, ...]


class Layout(Enum):
    """How a tensor's axes lie in a file, as the order in which ours are read from it."""

    SAME = None  # not (): Python 3.11.2 makes an object() of that
    CONV = (3, 2, 0, 1)  # height, width, inputs, outputs
    DEPTHWISE = (2, 3, 0, 1)  # height, width, channels, 1
    DENSE = (1, 0)  # inputs, outputs

    def ours(self, tensor: Tensor) -> Tensor:
        """The file's tensor with its axes in our order."""
        return tensor.transpose(self.value) if self.value else tensor

    def theirs(self, shape: Shape) -> Shape:
        """The shape in the file of a tensor that is `shape` with us."""
        order = self.value or tuple(range(len(shape)))
        return tuple(shape[order.index(axis)] for axis in range(len(shape)))


@dataclass(frozen=True, slots=True)
class Place:
    """A layer of ours and where it stands. stage, number, index: of its block, in the stage and in all; 0 outside."""

    layer: Layer
    role: str
    stage: int = 0
    number: int = 0
    index: int = 0
    block: Block | None = None

    @property
    def expands(self) -> bool:
        """Whether its block starts with an expansion."""
        return isinstance(self.block, MBConv) and self.block.expansion != 1


@dataclass(frozen=True, slots=True)
class Names:
    """A project's names of a layer: of its weight, and of its bias or (how those begin) its normalisation."""

    weight: str
    norm: str | None = None
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file's tensor goes: our name, our shape, the file's layout."""

    ours: str
    shape: Shape
    layout: Layout


Naming = Callable[[Place, Architecture], Names]


def places(architecture: Architecture) -> Iterator[Place]:
    """Every layer in the order of computation."""
    starts = np.cumsum([0, *(stage.repeats for stage in architecture.stages)]).tolist()
    for layer in cost(architecture).layers:
        first, *rest = layer.name.split(".")
        if first != "stages":
            yield Place(layer, {"stem.conv": "stem", "head.conv": "head"}.get(layer.name, "classifier"))
            continue
        stage, number = int(rest[0]), int(rest[1])
        block = architecture.stages[stage].block
        yield Place(layer, ".".join(rest[2:]), stage, number, starts[stage] + number, block)


def _step(place: Place) -> int:
    """The position of a convolution among its block's, squeeze-excite left out, from 0."""
    if isinstance(place.block, MBConv):
        order = ("expand", "depthwise", "project") if place.expands else ("depthwise", "project")
    elif isinstance(place.block, DepthwiseSeparable):
        order = ("depthwise", "pointwise")
    elif isinstance(place.block, Basic):
        order = ("conv1", "conv2")
    else:
        order = ("reduce", "conv", "expand")
    return order.index(place.role)


def _linear(name: str) -> Names:
    return Names(f"{name}.weight", bias=f"{name}.bias")


def _timm(place: Place, _: Architecture) -> Names:
    match place.role:
        case "stem":
            return Names("conv_stem.weight", "bn1")
        case "head":
            return Names("conv_head.weight", "bn2")
        case "classifier":
            return _linear("classifier")
    block = f"blocks.{place.stage}.{place.number}"
    if place.role.startswith("squeeze_excite"):
        return _linear(f"{block}.se.conv_{place.role.rpartition('.')[2]}")
    point = "conv_pwl" if place.expands else "conv_pw"
    name = {"expand": "conv_pw", "depthwise": "conv_dw"}.get(place.role, point)
    return Names(f"{block}.{name}.weight", f"{block}.bn{_step(place) + 1}")


def _torchvision(place: Place, architecture: Architecture) -> Names:
    last = len(architecture.stages) + 1
    match place.role:
        case "stem":
            return Names("features.0.0.weight", "features.0.1")
        case "head":
            return Names(f"features.{last}.0.weight", f"features.{last}.1")
        case "classifier":
            return _linear("classifier.1")
    block = f"features.{place.stage + 1}.{place.number}.block"
    if place.role.startswith("squeeze_excite"):
        after = 2 if place.expands else 1
        return _linear(f"{block}.{after}.fc{1 if place.role.endswith('reduce') else 2}")
    excited = isinstance(place.block, MBConv) and place.block.squeeze_excite > 0
    step = _step(place) + (1 if place.role == "project" and excited else 0)
    return Names(f"{block}.{step}.0.weight", f"{block}.{step}.1")


def _torchvision_mobilenet_v2(place: Place, architecture: Architecture) -> Names:
    last = architecture.blocks + 1
    match place.role:
        case "stem":
            return Names("features.0.0.weight", "features.0.1")
        case "head":
            return Names(f"features.{last}.0.weight", f"features.{last}.1")
        case "classifier":
            return _linear("classifier.1")
    step = f"features.{place.index + 1}.conv.{_step(place)}"
    if place.role != "project":
        return Names(f"{step}.0.weight", f"{step}.1")
    return Names(f"{step}.weight", f"features.{place.index + 1}.conv.{_step(place) + 1}")


def _resnet(place: Place, _: Architecture) -> Names:
    match place.role:
        case "stem":
            return Names("conv1.weight", "bn1")
        case "classifier":
            return _linear("fc")
    block = f"layer{place.stage + 1}.{place.number}"
    if place.role == "shortcut":
        return Names(f"{block}.downsample.0.weight", f"{block}.downsample.1")
    step = _step(place) + 1
    return Names(f"{block}.conv{step}.weight", f"{block}.bn{step}")


def _lukemelas(place: Place, _: Architecture) -> Names:
    match place.role:
        case "stem":
            return Names("_conv_stem.weight", "_bn0")
        case "head":
            return Names("_conv_head.weight", "_bn1")
        case "classifier":
            return _linear("_fc")
    block = f"_blocks.{place.index}"
    if place.role.startswith("squeeze_excite"):
        return _linear(f"{block}._se_{place.role.rpartition('.')[2]}")
    norm = {"expand": 0, "depthwise": 1, "project": 2}[place.role]
    return Names(f"{block}._{place.role}_conv.weight", f"{block}._bn{norm}")


def _keras(place: Place, _: Architecture) -> Names:
    match place.role:
        case "stem":
            return Names("stem_conv/kernel", "stem_bn")
        case "head":
            return Names("top_conv/kernel", "top_bn")
        case "classifier":
            return Names("predictions/kernel", bias="predictions/bias")
    block = f"block{place.stage + 1}{chr(ord('a') + place.number)}"
    if place.role.startswith("squeeze_excite"):
        name = f"{block}_se_{place.role.rpartition('.')[2]}"
        return Names(f"{name}/kernel", bias=f"{name}/bias")
    if place.role == "depthwise":
        return Names(f"{block}_dwconv/kernel", f"{block}_bn")
    return Names(f"{block}_{place.role}_conv/kernel", f"{block}_{place.role}_bn")


def _tensorflow(place: Place, _: Architecture) -> Names:
    """Of the official code's checkpoints, without the scope in front and `tpu_` before the normalisation."""
    match place.role:
        case "stem" | "head":
            return Names(f"{place.role}/conv2d/kernel", f"{place.role}/batch_normalization")
        case "classifier":
            return Names("head/dense/kernel", bias="head/dense/bias")
    block = f"blocks_{place.index}"
    if place.role.startswith("squeeze_excite"):
        name = f"{block}/se/conv2d" + ("" if place.role.endswith("reduce") else "_1")
        return Names(f"{name}/kernel", bias=f"{name}/bias")
    step = _step(place)
    norm = f"{block}/batch_normalization" + (f"_{step}" if step else "")
    if place.role == "depthwise":
        return Names(f"{block}/depthwise_conv2d/depthwise_kernel", norm)
    second = place.role == "project" and place.expands
    return Names(f"{block}/conv2d" + ("_1" if second else "") + "/kernel", norm)


# Weight, bias, running mean and variance of a normalisation, as PyTorch and as TensorFlow call them.
_TORCH = {"weight": ".weight", "bias": ".bias", "running_mean": ".running_mean", "running_var": ".running_var"}
_TENSORFLOW = {"weight": "/gamma", "bias": "/beta", "running_mean": "/moving_mean", "running_var": "/moving_variance"}


@dataclass(frozen=True)
class Project:
    """A project whose files are read: how it names each family of networks (by the beginning of the zoo's name)."""

    families: Mapping[str, Naming]
    tensorflow: bool = False

    def naming(self, network: str) -> Naming | None:
        """How it names the layers of a network of the zoo; None where it has no such network."""
        found = [naming for family, naming in self.families.items() if network.startswith(family)]
        return found[0] if found else None

    @property
    def networks(self) -> list[str]:
        """The networks of the zoo that it has names for."""
        return [name for name in ZOO if self.naming(name)]


PROJECTS: Mapping[str, Project] = {
    "timm": Project({"efficientnet": _timm, "mobilenet": _timm, "mnasnet": _timm, "resnet": _resnet}),
    "torchvision": Project(
        {"efficientnet_b": _torchvision, "mobilenet_v2": _torchvision_mobilenet_v2, "resnet": _resnet}
    ),
    "lukemelas": Project({"efficientnet": _lukemelas}),
    "tensorflow": Project({"efficientnet": _tensorflow}, tensorflow=True),
    "keras": Project({"efficientnet_b": _keras}, tensorflow=True),
}


def table(project: Project, architecture: Architecture, network: str) -> dict[str, Target]:
    """The project's name of every tensor of the network → where it goes; the counters of PyTorch's layers left out."""
    naming = project.naming(network)
    assert naming is not None
    found: dict[str, Target] = {}
    suffixes = _TENSORFLOW if project.tensorflow else _TORCH
    for place in places(architecture):
        names, layer = naming(place, architecture), place.layer
        module = f"{layer.name}.conv" if names.norm else layer.name
        shape: Shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
        found[names.weight] = (
            Target(f"{module}.weight", shape[:2], Layout.DENSE if project.tensorflow else Layout.SAME)
            if layer.kind == "linear"
            else Target(f"{module}.weight", shape, _convolution(project, place))
        )
        if names.bias:
            found[names.bias] = Target(f"{module}.bias", (layer.outputs,), Layout.SAME)
        if names.norm:
            for ours, theirs in suffixes.items():
                found[names.norm + theirs] = Target(f"{layer.name}.norm.{ours}", (layer.outputs,), Layout.SAME)
    return found


def _convolution(project: Project, place: Place) -> Layout:
    if not project.tensorflow:
        return Layout.SAME
    return Layout.DEPTHWISE if place.role == "depthwise" else Layout.CONV
