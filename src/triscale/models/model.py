"""A model: a network that knows its classes and how to look at a picture; saved as one safetensors file."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from triscale.arch import ZOO, Architecture, from_json, to_json
from triscale.arch.resolve import MODEL_FILE, read_metadata, resolve
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.nn.network import Network, build
from triscale.runs import write_whole

FORMAT = "1"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Model(Network):
    """A network with `.architecture`, `.classes` (names in the order of the logits), `.preprocess(image)`.

    trained: whether the weights were learned; a zoo name alone gives random ones.
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

    def predict(self, image: Image.Image | str | Path, top: int = 5) -> list[tuple[str, float]]:
        """The `top` likeliest class names with their probabilities, for one picture."""
        return self.name_classes(self.preprocess(image)[None], top)[0]

    @torch.inference_mode()
    def name_classes(self, x: Tensor, top: int = 5) -> list[list[tuple[str, float]]]:
        """The same for a batch that is preprocessed already, (n, channels, h, w)."""
        device = next(self.parameters()).device
        mode = self.training
        self.eval()
        try:
            probabilities = self(x.to(device)).float().softmax(1)
        finally:
            self.train(mode)
        values, indices = probabilities.topk(min(top, len(self.classes)))
        return [
            [(self.classes[i], p) for i, p in zip(places, shares, strict=True)]
            for places, shares in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    def save(self, path: Path) -> None:
        """The weights with architecture, classes and preprocessing as metadata; written whole or not at all."""
        metadata = {
            "format": FORMAT,
            "architecture": to_json(self.architecture),
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "preprocess": json.dumps(self.preprocess.to_json()),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_whole(path, _in_order(safetensors.torch.save(tensors, metadata)))


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


def load(name: str | Path) -> Model:
    """The model of a run directory, a safetensors file, a zoo name or a JSON file, in evaluation mode.

    A zoo name or a JSON file has no weights of its own: the model comes with random ones, `.trained` is False, its
    classes are numbers, its preprocessing the paper's (centre crop of 87.5 %, ImageNet's mean and deviation).
    Raises `UserError` naming what is wrong with the file.
    """
    architecture = resolve(name)  # also finds whatever is wrong with the path
    path = Path(name)
    if str(name) not in ZOO and (path.is_dir() or path.suffix == ".safetensors"):
        return _load_file(path / MODEL_FILE if path.is_dir() else path)
    channels = architecture.channels
    mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = IMAGENET_STD if channels == 3 else (0.25,) * channels
    preprocess = Preprocess(architecture.resolution, channels, mean, std, crop=0.875)
    return new(architecture, tuple(map(str, range(architecture.classes))), preprocess).eval()


def _checked_metadata(metadata: dict[str, str], architecture: Architecture, preprocess: Preprocess) -> tuple[str, ...]:
    """The class names, once everything that a file says of itself fits together. Raises `ValueError`."""
    classes = json.loads(metadata["classes"])
    if metadata["format"] != FORMAT:
        raise ValueError(f"format {metadata['format']}")
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        raise ValueError("classes are no list of names")
    if len(set(classes)) != len(classes):
        raise ValueError("a class is named twice")
    if (preprocess.resolution, preprocess.channels) != (architecture.resolution, architecture.channels):
        raise ValueError("preprocessing for another resolution or number of channels")
    return tuple(classes)


def _load_file(path: Path) -> Model:
    metadata = read_metadata(path)
    architecture = from_json(metadata["architecture"], str(path))
    try:
        preprocess = Preprocess.from_json(json.loads(metadata["preprocess"]))
        classes = _checked_metadata(metadata, architecture, preprocess)
        tensors = safetensors.torch.load_file(path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not (tensor.dtype == torch.float32 and tensor.isfinite().all()):
                raise ValueError(f"{name} is not finite fp32")
        with torch.device("meta"):
            model = Model(architecture, classes, preprocess)
        model.load_state_dict(tensors, assign=True)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a model that this version can read ({reason}); copy or train it again") from None
    model.trained = True
    return model.eval()
