"""A model: a network that knows its classes and how to look at a picture; saved as one safetensors file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from triscale.arch import ZOO, Architecture, from_json, to_json
from triscale.arch.metadata import FORMAT, check_format, precision_of, unreadable
from triscale.arch.resolve import MODEL_FILE, read_metadata, resolve
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.nn import Network, build, evaluating
from triscale.precision import Precision
from triscale.runs import write_whole
from triscale.weights import (
    Imported,
    Provenance,
    default_weights,
    find_name,
    find_weights,
    import_weights,
    open_weights,
)
from triscale.weights.conventions import IMAGENET_MEAN, IMAGENET_STD
from triscale.weights.reading import readable


class Model(Network):
    """A network with `.architecture`, `.classes` (names in the order of the logits), `.preprocess(image)`.

    trained: whether the weights were learned. precision: in which it answers where nobody names one, bf16 or fp16 once
    its run has found that this costs less than half a point (see `predicting.answering`). provenance: whose weights
    they were when they came here, or started from; None for weights that were learned here from the beginning, and for
    random ones.
    """

    def __init__(self, architecture: Architecture, classes: tuple[str, ...], preprocess: Preprocess) -> None:
        if len(classes) != architecture.classes:
            raise UserError(
                f"{len(classes)} class names for a network of {architecture.classes} classes; give one each"
            )
        super().__init__(architecture)
        self.classes = classes
        self.preprocess = preprocess
        self.trained = False
        self.precision: Precision = "fp32"
        self.provenance: Provenance | None = None

    def predict(self, image: Image.Image | str | Path, top: int = 5) -> list[tuple[str, float]]:
        """The `top` likeliest class names with their probabilities, for one picture.

        Raises `UserError` for a model without learned weights, and for a top below 1.
        """
        if not self.trained:
            raise UserError(
                f"{self.architecture.name}: has random weights, so its answers would mean nothing; load a run, or "
                "weights that `triscale models` lists"
            )
        return self.name_classes(self.preprocess(image)[None], top)[0]

    @torch.inference_mode()
    def name_classes(self, x: Tensor, top: int = 5) -> list[list[tuple[str, float]]]:
        """The same for a batch that is preprocessed already, (n, channels, h, w)."""
        with evaluating(self):
            return self.name_logits(self(x.to(next(self.parameters()).device)).float(), top)

    def name_logits(self, logits: Tensor, top: int = 5) -> list[list[tuple[str, float]]]:
        """The same from logits, (n, classes)."""
        check_top(top)
        values, indices = logits.softmax(1).topk(min(top, len(self.classes)))
        return [
            [(self.classes[i], p) for i, p in zip(places, shares, strict=True)]
            for places, shares in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    def save(self, path: Path) -> None:
        """The weights, with `metadata` and the precision to answer in beside them; written whole or not at all."""
        said = self.metadata() if self.precision == "fp32" else {**self.metadata(), "precision": self.precision}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_whole(path, _in_order(safetensors.torch.save(tensors, said)))

    def metadata(self) -> dict[str, str]:
        """What a file says of the model: architecture, classes, preprocessing, and whose weights they were."""
        said = {
            "format": FORMAT,
            "architecture": to_json(self.architecture),
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "preprocess": json.dumps(self.preprocess.to_json()),
        }
        if self.provenance is not None:
            said["provenance"] = json.dumps(self.provenance.to_json(), ensure_ascii=False)
        return said


def check_top(top: int) -> None:
    """Raises `UserError` for a number of classes to show that shows none."""
    if top < 1:
        raise UserError(f"--top {top}: at least one class is shown")


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library writes it in a new one each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def new(architecture: Architecture, classes: tuple[str, ...], preprocess: Preprocess, *, seed: int = 0) -> Model:
    """A model with random weights, the same for the same seed."""
    with torch.device("meta"):
        model = Model(architecture, classes, preprocess)
    weights: dict[str, Tensor] = build(architecture, seed=seed).state_dict()
    model.load_state_dict(weights, assign=True)
    return model


def load(name: str | Path | Model, weights: str | Path | None = None) -> Model:
    """The model that a name means, in evaluation mode.

    name: a run directory, a safetensors file, published weights (`triscale models` lists them), a file of another
    project (recognised by its names) or a directory as timm's hub has it, a zoo name or a JSON file. A zoo name means
    its default published weights where they are on this machine. Otherwise it has no weights of its own, and neither
    has a JSON file or the directory of a search: the model comes with random ones, `.trained` is False, its classes are
    numbers, its preprocessing the paper's (centre crop of 87.5 %, ImageNet's mean and deviation). weights: what such a
    network is to be filled with, named in the same ways; it must fit. A model is given back as it is. Raises
    `UserError` naming what is wrong with the file or the name.
    """
    if isinstance(name, Model):
        return name
    if weights is not None:
        return _filled(name, weights)
    known = default_weights(str(name)) if str(name) in ZOO else find_name(str(name))
    if known is not None and (str(name) not in ZOO or find_weights(known)):
        return from_import(open_weights(known))
    path = Path(name)
    file = path / MODEL_FILE if path.is_dir() else path
    if str(name) not in ZOO and _is_foreign(file):
        return from_import(import_weights(file))
    architecture = resolve(name)  # also finds whatever is wrong with the path
    if str(name) not in ZOO and file.suffix == ".safetensors" and file.is_file():
        return _load_file(file)
    channels = architecture.channels
    mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = IMAGENET_STD if channels == 3 else (0.25,) * channels
    preprocess = Preprocess(architecture.resolution, channels, mean, std, crop=0.875)
    return new(architecture, tuple(map(str, range(architecture.classes))), preprocess).eval()


def from_import(imported: Imported) -> Model:
    """The model of imported weights, in evaluation mode."""
    with torch.device("meta"):
        model = Model(imported.architecture, imported.classes, imported.preprocess)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in imported.tensors.items()}, assign=True)
    model.trained, model.provenance = True, imported.provenance
    return model.eval()


def _filled(name: str | Path, weights: str | Path) -> Model:
    """A network with weights that are named on their own."""
    wanted, model = resolve(name), load(weights)
    if not model.trained:
        raise UserError(f"--weights {weights}: has no learned weights itself; name a run or a file of weights")
    theirs = model.architecture
    if _body(wanted, str(name) in ZOO) != _body(theirs, str(name) in ZOO):
        raise UserError(
            f"--weights {weights}: are of {theirs.name} and do not fit {wanted.name} as it is described; leave the "
            "network out: weights bring theirs"
        )
    return model


def _body(architecture: Architecture, published: bool) -> tuple[object, ...]:
    """What must agree for weights to fill a network. To a published one they bring their own classes, input, padding
    and epsilon; a description of somebody's own means what it says."""
    head = architecture.head
    tensors = architecture.stem, architecture.stages, head.channels, head.activation
    if published:
        return tensors
    own = architecture.channels, architecture.resolution, head.classes, architecture.padding, architecture.norm.epsilon
    return *tensors, *own


def _is_foreign(path: Path) -> bool:
    """Whether it is a file of another project: its ending says so, and it is none of ours."""
    if not readable(path):
        return False
    if path.suffix.lower() != ".safetensors":
        return True
    try:
        read_metadata(path)
    except UserError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Said:
    """What a file says of the model in it; see `Model.metadata`."""

    architecture: Architecture
    classes: tuple[str, ...]
    preprocess: Preprocess
    provenance: Provenance | None
    precision: Precision

    @classmethod
    def read(cls, metadata: Mapping[str, str], source: str) -> "Said":
        """From the metadata of a file. Raises `UserError` naming the source where something is missing or does not fit
        together."""
        try:
            if "architecture" not in metadata:
                raise ValueError("it says no architecture")
            architecture = from_json(metadata["architecture"], source)
            preprocess = Preprocess.from_json(json.loads(metadata["preprocess"]))
            whose = Provenance.from_json(json.loads(metadata["provenance"])) if "provenance" in metadata else None
            precision = precision_of(metadata)
            return cls(architecture, _classes(metadata, architecture, preprocess), preprocess, whose, precision)
        except UserError as error:
            text = str(error)
            raise UserError(text if text.startswith(source) else f"{source}: {text}") from None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(unreadable(source, error)) from None


def _classes(metadata: Mapping[str, str], architecture: Architecture, preprocess: Preprocess) -> tuple[str, ...]:
    """The class names, once everything that a file says of itself fits together. Raises `ValueError`."""
    classes = json.loads(metadata["classes"])
    check_format(metadata)
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        raise ValueError("classes are no list of names")
    if len(set(classes)) != len(classes):
        raise ValueError("a class is named twice")
    if len(classes) != architecture.classes:
        raise ValueError(f"{len(classes)} class names for a network of {architecture.classes} classes")
    if (preprocess.resolution, preprocess.channels) != (architecture.resolution, architecture.channels):
        raise ValueError("preprocessing for another resolution or number of channels")
    return tuple(classes)


def _check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises `ValueError` naming the first tensor that is missing, unknown, or of another shape or type than wanted."""
    for name, one in wanted.items():
        if name not in tensors:
            raise ValueError(f"{name} is missing")
        found = tensors[name]
        if (found.shape, found.dtype) != (one.shape, one.dtype):
            raise ValueError(f"{name} is {found.dtype} of {tuple(found.shape)}, not {one.dtype} of {tuple(one.shape)}")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ValueError(f"{unknown[0]} is no tensor of the network")


def _load_file(path: Path) -> Model:
    said = Said.read(read_metadata(path), str(path))
    try:
        tensors = safetensors.torch.load_file(path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not (tensor.dtype == torch.float32 and tensor.isfinite().all()):
                raise ValueError(f"{name} is not finite fp32")
        with torch.device("meta"):
            model = Model(said.architecture, said.classes, said.preprocess)
        _check_tensors(tensors, model.state_dict())
        model.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise UserError(unreadable(str(path), error)) from None
    model.trained, model.provenance, model.precision = True, said.provenance, said.precision
    return model.eval()
