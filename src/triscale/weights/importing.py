"""A file of another project → architecture, weights, preprocessing: every tensor accounted for, or an error."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from triscale.arch import Architecture, SpecError, published
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.weights.conventions import Convention, decide
from triscale.weights.hub import read_hub_config
from triscale.weights.imagenet import imagenet_classes
from triscale.weights.naming import PROJECTS, Project, Tensor, table
from triscale.weights.published import IMAGENET_CLASSES, Weights, catalogue
from triscale.weights.reading import Foreign, read_foreign

COUNTER = "num_batches_tracked"
OUR_STEM = "stem.conv.conv.weight"
MARKS = {"_conv_stem.weight": "lukemelas", "conv_stem.weight": "timm", "features.0.0.weight": "torchvision"}
SHOWN = 3  # names in an error line
# In Keras' files beside the network's own: how pixels are normalised.
PIXELS = ("normalization/mean", "normalization/variance", "normalization/count")


@dataclass(frozen=True)
class Provenance:
    """Where weights come from; travels with them. published_top1: by `published_by`, not measured here. read_as: the
    padding, epsilon and preprocessing that were decided for a file of another project, and why."""

    name: str | None
    project: str
    file: str
    sha256: str
    source: str | None = None
    licence: str | None = None
    trained_on: str | None = None
    published_top1: float | None = None
    published_by: str | None = None
    read_as: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> "Provenance":
        """Raises `ValueError` for anything that `to_json` does not give."""
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise ValueError("provenance of another form")
        for key, value in values.items():
            if key == "published_top1":
                if value is not None and not isinstance(value, float):
                    raise ValueError(f"provenance: {key} is no number")
            elif not isinstance(value, str) and (value is not None or key in ("project", "file", "sha256")):
                raise ValueError(f"provenance: {key} is no text")
        return cls(**values)


@dataclass(frozen=True, eq=False)
class Imported:
    """Weights in our terms. tensors: fp32 by our names, the layers' counters included. because: how padding, epsilon
    and preprocessing are known. remarks: what in the file was left out as no weights."""

    architecture: Architecture
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    preprocess: Preprocess
    provenance: Provenance
    because: str
    remarks: tuple[str, ...]


def import_weights(
    path: str | Path,
    project: str | None = None,
    *,
    said: str | None = None,
    classes: Sequence[str] | None = None,
    weights: Weights | None = None,
) -> Imported:
    """The network and the weights in a file of timm, torchvision, lukemelas, tensorflow (.npz) or keras.

    project: None recognises it by its names. said: what the project calls the network, where the file does not tell.
    classes: their names, in the order of the logits; without them ImageNet's for a thousand classes, numbers for any
    other number. weights: the published ones that the file is known to be. Raises `UserError` for a file that is not
    read, tensors that fit no network of the zoo or are left over, and where padding or epsilon cannot be told.
    """
    foreign = read_foreign(Path(path))
    if OUR_STEM in foreign.tensors:
        raise UserError(f"{path}: is a model of Triscale's already; name it as it is, without an import")
    guessed, project = project is None, project or _recognise_project(foreign)
    if project not in PROJECTS:
        raise UserError(f"--from {project}: no such project; there are {', '.join(PROJECTS)}")
    network, shaped = _recognise(PROJECTS[project], foreign, project)
    if weights is None:
        convention = decide(project, network, foreign.path, foreign.tensors, foreign.sha256, said)
    else:
        convention = Convention(
            weights.there,
            network,
            weights.padding,
            weights.epsilon,
            weights.preprocess,
            f"these are {weights.name}",
            weights,
        )
    because, provenance = convention.because, _provenance(project, foreign, convention)
    if guessed and project == "torchvision" and network.startswith("resnet") and provenance.name is None:
        because += "; timm's ResNets have the same tensors: should it be one, import it with --from timm"
    preprocess = _for_channels(convention.preprocess, shaped.channels)
    architecture = replace(convention.architecture, head=shaped.head, channels=shaped.channels)
    return Imported(
        architecture=architecture,
        tensors=_ours(PROJECTS[project], foreign, architecture, network),
        classes=_class_names(classes, architecture.classes),
        preprocess=preprocess,
        provenance=replace(provenance, read_as=_read_as(architecture, preprocess, because)),
        because=because,
        remarks=foreign.remarks,
    )


def _provenance(project: str, foreign: Foreign, convention: Convention) -> Provenance:
    known, file = convention.known, foreign.path.name
    if known is None or not foreign.sha256.startswith(known.sha256):
        return Provenance(None, project, file, foreign.sha256)
    return Provenance(
        name=known.name,
        project=project,
        file=file,
        sha256=foreign.sha256,
        source=known.url or f"PyPI: {known.package}",
        licence=known.licence,
        trained_on=known.trained_on,
        published_top1=known.top1,
        published_by=known.accuracy_by,
    )


def _read_as(architecture: Architecture, look: Preprocess, because: str) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (look.mean, look.std))
    height, width = look.resolution
    return (
        f"{architecture.padding} padding, epsilon {architecture.norm.epsilon:g}; pictures of {height}×{width} pixels, "
        f"centre crop of {look.crop:.1%}, {look.interpolation}, mean {mean}, deviation {std}; {because}"
    )


def _recognise_project(foreign: Foreign) -> str:
    """By a name that only one project has. ResNets have the same in two: they are timm's where its config.json lies
    beside, or the file is called like weights of timm's alone."""
    suffix = foreign.path.suffix.lower()
    if suffix == ".npz":
        return "tensorflow"
    if suffix in (".h5", ".hdf5", ".keras"):
        return "keras"
    names = foreign.tensors.keys()
    found = _marked(foreign.tensors)
    if found is None and "conv1.weight" in names and "fc.weight" in names:
        tagged = any(w.there in foreign.path.name for w in catalogue().values() if w.project == "timm")
        found = "timm" if tagged or read_hub_config(foreign.path) else "torchvision"
    if found is None:
        some = _some(sorted(names))
        raise UserError(
            f"{foreign.path}: its names ({some}) are of none of the projects that are read: {', '.join(PROJECTS)}"
        )
    return found


def _marked(tensors: Mapping[str, Tensor]) -> str | None:
    """The project that alone has the name of one of the tensors."""
    return next((project for mark, project in MARKS.items() if mark in tensors), None)


def _own(foreign: Foreign) -> dict[str, Tensor]:
    """The tensors of the network proper."""
    return {
        name: tensor
        for name, tensor in foreign.tensors.items()
        if name.rpartition(".")[2] != COUNTER and name not in PIXELS
    }


def _recognise(project: Project, foreign: Foreign, called: str) -> tuple[str, Architecture]:
    """The network of the zoo that all tensors fit, with the file's number of classes and input channels."""
    own = _own(foreign)
    best: tuple[int, str] | None = None
    theirs = _marked(own)
    known = any(own.keys() & table(project, published(network), network).keys() for network in project.networks)
    if not known or theirs not in (None, called):
        hint = f"; they look like {theirs}'s: --from {theirs}" if theirs else ""
        raise UserError(f"{foreign.path}: its names ({_some(sorted(own))}) are none of {called}'s{hint}")
    for network in project.networks:
        expected = table(project, published(network), network)
        common = len(expected.keys() & own.keys())
        if common == len(expected) == len(own):
            shaped = _shaped(project, own, network)
            wrong = _misshapen(project, own, shaped, network)
            if not wrong:
                return network, shaped
            common -= len(wrong)
        # The nearest is the one with most names in common and fewest beyond.
        score = 2 * common - len(expected) - len(own)
        if best is None or score > best[0]:
            best = score, network
    assert best is not None
    raise UserError(_unfit(project, foreign, own, best[1], called))


def _shaped(project: Project, own: Mapping[str, Tensor], network: str) -> Architecture:
    """The network with the classes and input channels that the file's first and last tensors have."""
    architecture = published(network)
    expected = table(project, architecture, network)
    stem, head = (
        (own[name], target)
        for last in ("stem.conv.conv.weight", "head.classifier.weight")
        for name, target in expected.items()
        if target.ours == last
    )
    if any(tensor.ndim != len(target.shape) for tensor, target in (stem, head)):
        return architecture
    channels, classes = (target.layout.ours(tensor).shape for tensor, target in (stem, head))
    try:
        return replace(architecture, channels=channels[1], head=replace(architecture.head, classes=classes[0]))
    except SpecError:  # none, or more than a network has
        return architecture


def _misshapen(project: Project, own: Mapping[str, Tensor], architecture: Architecture, network: str) -> list[str]:
    """The tensors whose shapes are not the network's, with both shapes."""
    return [
        f"{name} is {own[name].shape} and not {target.layout.theirs(target.shape)}"
        for name, target in table(project, architecture, network).items()
        if own[name].shape != target.layout.theirs(target.shape)
    ]


def _unfit(project: Project, foreign: Foreign, own: Mapping[str, Tensor], nearest: str, called: str) -> str:
    expected = table(project, published(nearest), nearest)
    missing, left = sorted(expected.keys() - own.keys()), sorted(own.keys() - expected.keys())
    reasons = []
    if missing:
        reasons.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if left:
        reasons.append(f"{len(left)} are left over ({_some(left)})")
    if not reasons:
        wrong = _misshapen(project, own, _shaped(project, own, nearest), nearest)
        reasons.append(f"{len(wrong)} tensors have other shapes ({_some(wrong)})")
    return (
        f"{foreign.path}: fits no network that Triscale knows from {called}; for the nearest, {nearest}, "
        f"{' and '.join(reasons)}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _ours(project: Project, foreign: Foreign, architecture: Architecture, network: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    own = _own(foreign)
    counters = {name: tensor for name, tensor in foreign.tensors.items() if name.rpartition(".")[2] == COUNTER}
    for name, target in table(project, architecture, network).items():
        tensor = own[name]
        if not np.issubdtype(tensor.dtype, np.floating):
            raise UserError(f"{foreign.path}: {name} is {tensor.dtype}, not floating point; bring weights in fp32")
        found[target.ours] = np.ascontiguousarray(target.layout.ours(tensor))
        if target.ours.endswith("running_var"):
            if tensor.min() < 0:
                raise UserError(f"{foreign.path}: {name} is a variance below 0; the file is damaged")
            counter = target.ours.replace("running_var", COUNTER)
            steps = np.asarray(counters.pop(name.replace("running_var", COUNTER), 0))
            if steps.shape not in ((), (1,)):
                raise UserError(f"{foreign.path}: a counter of {steps.shape}; one number counts a layer's steps")
            if not 0 <= steps.item() < 2**63:
                raise UserError(f"{foreign.path}: a counter of {steps.item():g}; a layer's steps are from 0 to 2⁶³ - 1")
            found[counter] = steps.astype(np.int64).reshape(())
    if counters:
        raise UserError(
            f"{foreign.path}: counters of layers that the network does not have ({_some(sorted(counters))})"
        )
    return found


def _for_channels(preprocess: Preprocess, channels: int) -> Preprocess:
    """Mean and deviation for another number of channels: the average of those there are."""
    if channels == preprocess.channels:
        return preprocess
    mean, std = (sum(values) / preprocess.channels for values in (preprocess.mean, preprocess.std))
    return replace(preprocess, channels=channels, mean=(mean,) * channels, std=(std,) * channels)


def _class_names(names: Sequence[str] | None, number: int) -> tuple[str, ...]:
    if names is None:
        return imagenet_classes() if number == IMAGENET_CLASSES else tuple(map(str, range(number)))
    if len(names) != number or len(set(names)) != number:
        raise UserError(
            f"--classes: {len(names)} names, {len(set(names))} different; the weights have {number} classes"
        )
    return tuple(names)
