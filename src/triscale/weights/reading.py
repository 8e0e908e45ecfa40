"""Other projects' files → named arrays. Nothing in a file is executed, and its size is known before it is unpacked."""

import hashlib
import io
import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from triscale.errors import UserError
from triscale.weights.naming import Tensor

if TYPE_CHECKING:
    import h5py
    import torch

MAX_BYTES = 8_000_000_000  # unpacked; EfficientNet-L2 in fp32 has two
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
HDF5 = (".h5", ".hdf5", ".keras")
# Where training scripts keep the weights in what they save, the moving average first: it is what they evaluate.
WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "params")
# What else training leaves in a file: torch's count of averaged steps; TensorFlow's of steps, and its optimizers'.
STEPS_AVERAGED = "n_averaged"
COUNTERS = ("global_step", "beta1_power", "beta2_power")
# What DataParallel, torch.compile and Lightning put in front of every name.
PREFIXES = ("module.", "_orig_mod.", "model.")
SLOTS = ("RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")
KERAS_SLOTS = ("optimizer", "optimizer_weights")
AVERAGED = "/ExponentialMovingAverage"
TENSORFLOW_SNIPPET = (
    'import numpy, tensorflow; r = tensorflow.train.load_checkpoint("model.ckpt"); numpy.savez("weights.npz", '
    "**{name: r.get_tensor(name) for name in r.get_variable_to_shape_map()})"
)


@dataclass(frozen=True, eq=False)
class Foreign:
    """What a file holds: arrays by the project's names, in fp32; its SHA-256; what was left out and why."""

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str
    remarks: tuple[str, ...] = ()


def read_foreign(path: Path) -> Foreign:
    """The arrays in a file of PyTorch (also safetensors), NumPy (.npz) or Keras (.h5, .keras).

    Raises `UserError` for what is none of these, is damaged, unpacks to more than 8 GB, or holds more than tensors.
    """
    suffix = path.suffix.lower()
    try:
        if _is_checkpoint(path):
            raise UserError(f"{path}: a TensorFlow checkpoint; turn it into one .npz file first: {TENSORFLOW_SNIPPET}")
        if not path.is_file():
            raise UserError(f"{path}: no such file; name a file of weights")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes; no network of the zoo has so many weights")
        if suffix == ".npz":
            tensors, remarks = _tensorflow(_numpy(path), path)
        elif suffix in HDF5:
            tensors, remarks = _keras(path)
        elif suffix in TORCH:
            tensors, remarks = _unwrapped(_safetensors(path) if suffix == ".safetensors" else _torch(path), path)
        else:
            known = ", ".join((*TORCH, ".npz", *HDF5))
            raise UserError(
                f"{path}: {suffix or 'no ending'} is no kind of file that weights come in; known are {known}"
            )
        sha256 = sha256_of(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a file that can be read") from None
    return Foreign(
        path, {name: _checked(tensor, name, path) for name, tensor in tensors.items()}, sha256, tuple(remarks)
    )


def _is_checkpoint(path: Path) -> bool:
    """Whether it is one of the files of a TensorFlow checkpoint, or what their names begin with."""
    if not path.name:  # of "." or "/", to which no ending can be added
        return False
    parts = path.name == "checkpoint" or path.suffix in (".index", ".meta") or ".data-" in path.name
    return parts or path.with_name(f"{path.name}.index").is_file()


def _checked(tensor: Tensor, name: str, path: Path) -> Tensor:
    if not np.issubdtype(tensor.dtype, np.floating):
        if np.issubdtype(tensor.dtype, np.integer):
            return tensor
        raise UserError(f"{path}: {name} is {tensor.dtype}, not numbers; this is no file of weights")
    with np.errstate(over="ignore"):  # what fp32 cannot hold becomes infinite, and is found
        tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise UserError(f"{path}: {name} is not finite; the file is damaged, or its training broke down")
    return tensor


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Around a library that reads: a damaged file makes it raise, and warn of, whatever comes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, PermissionError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: no file of weights that can be read ({lines[0][:120]}); copy it again from its source"
        ) from None


def _check_size(total: int, path: Path) -> None:
    if total > MAX_BYTES:
        raise UserError(f"{path}: unpacks to {total:,} bytes, more than {MAX_BYTES:,}; refused")


def _check_unpacked(path: Path) -> None:
    """An archive says how large it becomes: believed before it is unpacked, for the unpacker stops there too."""
    with zipfile.ZipFile(path) as archive:
        _check_size(sum(entry.file_size for entry in archive.infolist()), path)


def _torch(path: Path) -> object:
    import torch

    with _reading(path):
        if zipfile.is_zipfile(path):
            _check_unpacked(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise UserError(
                f"{path}: holds more than tensors, which could run code when it is loaded, or is damaged; refused. "
                "Save only the weights where you trust it: torch.save(model.state_dict(), FILE)"
            ) from None


def _safetensors(path: Path) -> object:
    import safetensors.torch

    with _reading(path):
        return safetensors.torch.load_file(path)


def _unwrapped(saved: object, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The arrays of a state dict, found inside whatever a training script saved around it."""
    import torch

    remarks: list[str] = []
    if isinstance(saved, dict) and not any(isinstance(value, torch.Tensor) for value in saved.values()):
        inside = next((key for key in WRAPPERS if isinstance(saved.get(key), dict) and saved[key]), None)
        if inside is not None:
            others = ", ".join(sorted(str(key) for key in saved if key != inside))
            remarks.append(f"taken from {inside}" + (f"; not weights: {others}" if others else ""))
            saved = saved[inside]
    if not isinstance(saved, dict) or not saved:
        raise UserError(f"{path}: holds no dictionary of tensors; save model.state_dict()")
    for name, value in saved.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {name!r} is no tensor; save model.state_dict() and nothing else")
    if STEPS_AVERAGED in saved:
        remarks.append(f"not weights: {STEPS_AVERAGED}")
        saved = {name: value for name, value in saved.items() if name != STEPS_AVERAGED}
    while prefix := next((each for each in PREFIXES if saved and all(name.startswith(each) for name in saved)), None):
        saved = {name.removeprefix(prefix): value for name, value in saved.items()}
    _check_size(4 * sum(tensor.numel() for tensor in saved.values()), path)  # strides of 0 make much of little
    with _reading(path):
        return {name: _array(value) for name, value in saved.items()}, remarks


def _array(tensor: "torch.Tensor") -> Tensor:
    array: Tensor = (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous().numpy()
    return array


def _numpy(path: Path) -> dict[str, Tensor]:
    with _reading(path):
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}


def _tensorflow(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The official code's variables without their scope; of those that have one, the moving average."""
    averaged = {name.removesuffix(AVERAGED) for name in tensors if name.endswith(AVERAGED)}
    slots = [name for name in tensors if name.rpartition("/")[2] in SLOTS]
    loose = [name for name in tensors if name in COUNTERS]
    kept = {
        name: tensors[name + AVERAGED] if name in averaged else tensor
        for name, tensor in tensors.items()
        if not name.endswith(AVERAGED) and name not in slots and name not in loose
    }
    kept |= {name: tensors[name + AVERAGED] for name in averaged - kept.keys()}
    scopes = {name.partition("/")[0] for name in kept if "/" in name}
    if len(scopes) == 1:
        kept = {name.partition("/")[2] or name: tensor for name, tensor in kept.items()}
    remarks = [f"the moving averages of {len(averaged)} variables were taken"] if averaged else []
    if slots or loose:
        remarks.append(f"not weights: {len(slots)} of the optimizer" + "".join(f", {name}" for name in sorted(loose)))
    plain = {_plain_norm(name): tensor for name, tensor in kept.items()}
    if len(plain) < len(kept):
        twice = next(name for name, many in Counter(map(_plain_norm, kept)).items() if many > 1)
        raise UserError(f"{path}: holds {twice} twice; bring the weights of one network")
    return plain, remarks


def _plain_norm(name: str) -> str:
    return name.replace("tpu_batch_normalization", "batch_normalization")


def _keras(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path}: Keras' files are read by h5py; install it with: pip install 'triscale[keras]'"
        ) from None
    with _reading(path):
        source: Path | IO[bytes] = path
        if path.suffix.lower() == ".keras":
            _check_unpacked(path)
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(source, "r") as file:
            return _variables(file, path)


# How Keras 3 orders the variables of the layers that these networks have; its files number them.
_ORDERS: Mapping[str, tuple[str, ...]] = {
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "normalization": ("mean", "variance", "count"),
}


def _variables(file: "h5py.File", path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The arrays by `layer/variable`, of a file of Keras 3 (numbered variables) or one of before (named ones)."""
    import h5py

    datasets: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    file.visititems(collect)  # follows no link out of the file
    _check_size(sum(dataset.nbytes for dataset in datasets.values()), path)
    slots = [name for name in datasets if name.partition("/")[0] in KERAS_SLOTS]
    tensors: dict[str, Tensor] = {}
    for name, dataset in datasets.items():
        if dataset.external or dataset.is_virtual:
            raise UserError(f"{path}: {name} lies in another file; refused")
        if name in slots:
            continue
        variable = _variable(name, dataset)
        if variable in tensors:
            raise UserError(f"{path}: holds {variable} twice; bring the weights of one network")
        tensors[variable] = np.asarray(dataset[()])
    return tensors, [f"not weights: {len(slots)} of the optimizer"] if slots else []


def _variable(name: str, dataset: "h5py.Dataset") -> str:
    first, *rest = [part for part in name.split("/") if part != "model_weights"]
    if first != "layers" or rest[-2] != "vars":
        layer, variable = first, rest[-1].partition(":")[0].removeprefix("depthwise_")
    else:
        layer = dataset.parent.attrs.get("name", rest[0])
        variable = _ORDERS.get(_unnumbered(rest[0]), ("kernel", "bias"))[int(rest[-1])]
    # Keras numbers this layer, which the networks leave unnamed, as often as one is built.
    return f"{'normalization' if _unnumbered(layer) == 'normalization' else layer}/{variable}"


def _unnumbered(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")


def sha256_of(path: Path) -> str:
    """The hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable(path: Path) -> bool:
    """Whether a name ends like a file that `read_foreign` reads."""
    return path.suffix.lower() in (*TORCH, ".npz", *HDF5) and path.is_file()
