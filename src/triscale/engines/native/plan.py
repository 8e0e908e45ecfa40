"""A plan: all that an engine needs of a network, and its file."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from triscale.arch import Architecture, from_dict, to_dict
from triscale.engines.native.layers import Layer
from triscale.errors import UserError
from triscale.plain import read_json
from triscale.runs import write_whole

FORMAT = 1
_BUFFERS = slice(Layer._fields.index("input"), Layer._fields.index("sums") + 1)
KEY = "triscale_plan"  # one entry: safetensors writes several in a new order each time
_UNSEALED = b"0" * 64


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A network's layers and their weights.

    layers: int64 [n, 25], each row a `Layer`. blob: float32, all weights one after another. Both are read-only. Raises
    ValueError for arrays of other types, and where images or logits are not the architecture's; all else that the
    numbers say is checked where they are used, by the engine.
    """

    architecture: Architecture
    layers: npt.NDArray[np.int64]
    blob: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        self.check(self.layers)
        for name in ("layers", "blob"):
            array = np.require(getattr(self, name), requirements=["C", "A"]).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def check(self, layers: npt.NDArray[np.int64]) -> None:
        """Raises ValueError where the blob or these layers are none, or are not the architecture's. An engine asks of
        its own copy of the layers: a plan that was copied or pickled can be written to."""
        if layers.dtype != np.int64 or layers.ndim != 2 or layers.shape[1] != len(Layer._fields):
            raise ValueError(f"layers are int64 [n, {len(Layer._fields)}], not {layers.dtype} {layers.shape}")
        if not len(layers):
            raise ValueError("a plan has at least one layer")
        if self.blob.dtype != np.float32 or self.blob.ndim != 1:
            raise ValueError(f"the blob is float32 [n], not {self.blob.dtype} {self.blob.shape}")
        images = (*self.architecture.resolution, self.architecture.channels)
        if _images_and_logits(layers) != (images, self.classes):
            raise ValueError(f"the layers are not those of {self.architecture.name}")

    @property
    def buffers(self) -> int:
        """How many buffers the layers name."""
        return count_buffers(self.layers)

    @property
    def classes(self) -> int:
        """How many logits there are for an image."""
        return self.architecture.classes

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, whole or not at all: the same bytes for the same plan.

        Raises `TriscaleError` where the disk refuses.
        """
        about = {"format": FORMAT, "sha256": _UNSEALED.decode(), "architecture": to_dict(self.architecture)}
        tensors: dict[str, npt.NDArray[Any]] = {"layers": self.layers, "blob": self.blob}
        content = safetensors.numpy.save(tensors, {KEY: json.dumps(about)})
        write_whole(Path(path), _with_seal(content, _UNSEALED, _seal(content, _UNSEALED)))

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """The plan in a file. Raises `UserError` for one that is damaged, in whatever byte, or of another version."""
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}; name a plan's file") from None
        about = _about(content, str(path))
        if about.get("format") != FORMAT:
            raise UserError(
                f"{path}: a plan of another version of Triscale, or damaged; this one reads format {FORMAT}: "
                "export the model again"
            )
        seal = str(about.get("sha256")).encode(errors="replace")
        if len(seal) != len(_UNSEALED) or _seal(content, seal) != seal:
            raise UserError(f"{path}: damaged (its checksum is another); copy it again or export the model again")
        try:
            tensors = safetensors.numpy.load(content)
            return cls(from_dict(about["architecture"], str(path)), tensors["layers"], tensors["blob"])
        except UserError as error:
            raise UserError(f"{error}; export the model again") from None
        except KeyError as error:
            raise UserError(
                f"{path}: no plan of a network ({error}: missing, or unknown here); export the model again"
            ) from None
        except (ValueError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: no plan of a network ({error}); export the model again") from None


def count_buffers(layers: npt.NDArray[np.int64]) -> int:
    """How many buffers they name."""
    return int(layers[:, _BUFFERS].max()) + 1


def _images_and_logits(layers: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], int]:
    """(height, width, channels) of an image, and how many logits there are."""
    first, last = (dict(zip(Layer._fields, row, strict=True)) for row in layers[[0, -1]].tolist())
    return (first["height"], first["width"], first["channels"]), last["outputs"]


def _about(content: bytes, source: str) -> dict[str, Any]:
    """What the file says of itself."""
    try:
        header = json.loads(content[8 : _end(content)])
        about = read_json(header["__metadata__"][KEY], source)
    except (ValueError, KeyError, TypeError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise UserError(f"{source}: no plan of a network, or damaged; copy it again or export the model again")
    return about


def _end(content: bytes) -> int:
    """Where the header ends."""
    return 8 + int.from_bytes(content[:8], "little")


def _seal(content: bytes, seal: bytes) -> bytes:
    """SHA-256, as text, of every byte of a file that has this seal in its header, zeros in the seal's place."""
    view = memoryview(content)
    place = content.find(seal, 8, _end(content))
    digest = hashlib.sha256(view[:place])
    digest.update(_UNSEALED)
    digest.update(view[place + len(seal) :])
    return digest.hexdigest().encode()


def _with_seal(content: bytes, before: bytes, seal: bytes) -> bytes:
    place = content.index(before, 8, _end(content))
    return content[:place] + seal + content[place + len(before) :]
