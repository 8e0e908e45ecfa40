"""Files of other projects, made by their names and layouts; whether the names are right, `test_weights_peers` shows."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch

from triscale.arch import published
from triscale.errors import UserError
from triscale.nn import build
from triscale.weights import PROJECTS, import_weights
from triscale.weights.naming import table

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@cache
def _arrays(project: str, network: str, classes: int, channels: int) -> Arrays:
    architecture = published(network)
    architecture = replace(architecture, channels=channels, head=replace(architecture.head, classes=classes))
    state = build(architecture).state_dict()
    return {
        name: state[target.ours].permute(*np.argsort(target.layout.value).tolist()).contiguous().numpy()
        if target.layout.value
        else state[target.ours].numpy()
        for name, target in table(PROJECTS[project], architecture, network).items()
    }


def arrays(project: str, network: str = "mobilenet_v2", classes: int = 1000, channels: int = 3) -> Arrays:
    """Random weights by that project's names."""
    return dict(_arrays(project, network, classes, channels))


def tensors(project: str, network: str = "mobilenet_v2", classes: int = 1000, channels: int = 3) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in arrays(project, network, classes, channels).items()}


def _h5_bytes(found: Mapping[str, Array], compression: str | None = None) -> bytes:
    """As Keras wrote its files before its third version."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, array in found.items():
            layer, variable = name.rsplit("/", 1)
            place = f"{layer}/{layer}/{variable}:0"
            file.create_dataset(place, data=array, compression=compression if array.ndim else None)
    return content.getvalue()


def write(path: Path, found: Mapping[str, Array], *, small: bool = False) -> Path:
    """The arrays in a file of the kind that its ending says; small: compressed, where that kind can be."""
    if path.suffix == ".npz":
        (np.savez_compressed if small else np.savez)(path, **found)
    elif path.suffix == ".h5":
        path.write_bytes(_h5_bytes(found, "gzip" if small else None))
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED) as archive:
            archive.writestr("model.weights.h5", _h5_bytes(found))
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file({name: torch.from_numpy(array) for name, array in found.items()}, path)
    else:
        torch.save({name: torch.from_numpy(np.asarray(array)) for name, array in found.items()}, path)
    return path


def refusal(path: Path, *parts: str, **options: Any) -> str:
    """The one line that refuses a file; it names the file and all parts."""
    with pytest.raises(UserError) as caught:
        import_weights(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    for part in parts:
        assert part in line
    return line
