"""What the importer refuses: files that would run something, are damaged, too large, or leave a tensor over."""

import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from foreign import Array, Arrays, arrays, refusal, tensors, write

from triscale.errors import UserError
from triscale.models import load
from triscale.weights import import_weights


class Command:
    """Pickled, it is a command that runs when the pickle is loaded."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.words,)


def _save_plain(command: Command, path: Path) -> None:
    torch.save(command, path)


def _save_beside_tensors(command: Command, path: Path) -> None:
    torch.save(tensors("torchvision") | {"note": command}, path)


def _save_in_the_old_way(command: Command, path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(2)}, "args": command}, path, _use_new_zipfile_serialization=False)


def _pickle(command: Command, path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": command}, protocol=2))


@pytest.mark.parametrize("save", [_save_plain, _save_beside_tensors, _save_in_the_old_way, _pickle])
@pytest.mark.filterwarnings("ignore:.*pickle:UserWarning")
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(
    save: Callable[[Command, Path], None], tmp_path: Path
) -> None:
    place, ran = tmp_path / "efficientnet_b0.pth", tmp_path / "ran"
    save(Command(f"touch {ran}"), place)
    refusal(place, "could run code", "refused", project="torchvision")
    with pytest.raises(UserError, match="refused"):
        load(place)
    assert not ran.exists()
    loading: Any = (lambda: pickle.loads(place.read_bytes())) if save is _pickle else None
    (loading or (lambda: torch.load(place, weights_only=False)))()
    assert ran.exists()  # so it was such a pickle


ENDINGS = (".pth", ".safetensors", ".npz", ".h5", ".keras")
SMALL: Arrays = {f"a/layer{i}/kernel": np.full((3, 4), i, np.float32) for i in range(4)}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["truncated", "empty", "random"])
def test_a_damaged_file_is_refused_in_one_line(kind: str, ending: str, tmp_path: Path) -> None:
    place = write(tmp_path / f"damaged{ending}", SMALL)
    content = place.read_bytes()
    damaged = {"truncated": content[: len(content) // 2], "empty": b"", "random": random.Random(0).randbytes(4000)}
    place.write_bytes(damaged[kind])
    # Of bytes that PyTorch takes for a pickle nobody knows what they would have done.
    refusal(
        place, "damaged; refused" if (kind, ending) == ("random", ".pth") else "no file of weights that can be read"
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_bytes_are_changed_the_answer_is_one_line(ending: str, tmp_path: Path) -> None:
    content = write(tmp_path / f"sound{ending}", SMALL, small=True).read_bytes()
    chance, place = random.Random(1), tmp_path / f"changed{ending}"
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 3, 30])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        place.write_bytes(changed)
        refusal(place)  # SMALL itself is no network


def test_a_tensor_left_over_is_an_error_that_names_it(tmp_path: Path) -> None:
    found = arrays("torchvision") | {"features.99.weight": np.zeros(3, np.float32)}
    place = write(tmp_path / "mobilenet_v2.pth", found)
    refusal(place, "mobilenet_v2", "1 are left over", "features.99.weight", project="torchvision")


def test_a_missing_tensor_is_an_error_that_names_it(tmp_path: Path) -> None:
    found = arrays("torchvision")
    del found["features.3.conv.1.1.running_mean"]
    place = write(tmp_path / "mobilenet_v2.pth", found)
    refusal(place, "1 tensors are missing", "features.3.conv.1.1.running_mean", project="torchvision")


@pytest.mark.parametrize("name", ["features.3.conv.1.1.running_mean", "classifier.1.bias", "features.0.0.weight"])
def test_another_shape_is_an_error_that_names_it_and_both_shapes(name: str, tmp_path: Path) -> None:
    found = arrays("torchvision")
    found[name] = np.zeros((7, *found[name].shape[1:]), np.float32)
    place = write(tmp_path / "mobilenet_v2.pth", found)
    refusal(place, "1 tensors have other shapes", name, "(7", project="torchvision")


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (3, 3, 3, 32, 1)])
@pytest.mark.parametrize(
    ("project", "ending", "name"),
    [("tensorflow", ".npz", "stem/conv2d/kernel"), ("keras", ".h5", "predictions/kernel")],
)
def test_a_first_or_last_tensor_of_other_axes_is_refused_in_one_line(
    project: str, ending: str, name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    found = arrays(project, "efficientnet_b0") | {name: np.zeros(shape, np.float32)}
    refusal(write(tmp_path / f"b0{ending}", found), "other shapes", name, str(shape), project=project)


def test_more_channels_than_a_network_has_are_refused_naming_the_file(tmp_path: Path) -> None:
    found = arrays("timm", "resnet18") | {"conv1.weight": np.zeros((64, 70_000, 1, 1), np.float32)}
    refusal(write(tmp_path / "resnet18.safetensors", found), "other shapes", "conv1.weight", project="timm")


def test_variables_that_two_layers_of_tensorflow_share_are_refused(tmp_path: Path) -> None:
    found = arrays("tensorflow", "efficientnet_b0")
    found["stem/tpu_batch_normalization/gamma"] = found["stem/batch_normalization/gamma"] + 7
    refusal(write(tmp_path / "efficientnet-b0.npz", found), "stem/batch_normalization/gamma twice")


def test_an_average_that_was_never_filled_hides_no_weights(tmp_path: Path) -> None:
    torch.save({"model": tensors("timm", "resnet18"), "model_ema": {}}, tmp_path / "resnet18.pth")
    assert import_weights(tmp_path / "resnet18.pth", "timm").architecture.name == "resnet18"


def test_pixels_that_keras_normalises_in_another_number_of_channels_are_not_averaged(tmp_path: Path) -> None:
    found = arrays("keras", "efficientnet_b0")
    found |= {f"normalization/{name}": np.ones(5, np.float32) for name in ("mean", "variance")}
    read = import_weights(write(tmp_path / "efficientnetb0.h5", found))
    assert read.preprocess.mean == (0.485, 0.456, 0.406)
    assert "none that can be used" in read.because


@pytest.mark.parametrize(
    ("name", "counter", "named"),
    [
        ("features.99.1.num_batches_tracked", np.asarray(3), "features.99.1.num_batches_tracked"),
        ("features.0.1.num_batches_tracked", np.asarray([3, 4]), "a counter of (2,)"),
        ("features.0.1.num_batches_tracked", np.asarray(1e30), "a counter of 1e+30"),
        ("features.0.1.num_batches_tracked", np.asarray(-5), "a counter of -5"),
    ],
)
def test_a_counter_of_no_layer_is_left_over_too(name: str, counter: Array, named: str, tmp_path: Path) -> None:
    refusal(write(tmp_path / "mobilenet_v2.pth", arrays("torchvision") | {name: counter}), named)


@pytest.mark.parametrize(
    ("value", "named"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e300, "not finite"), (-1.0, "below 0")]
)
def test_a_variance_that_cannot_be_is_refused(value: float, named: str, tmp_path: Path) -> None:
    found = arrays("torchvision")
    found["features.0.1.running_var"] = np.full(32, value, np.float64)
    refusal(write(tmp_path / "mobilenet_v2.pth", found), "features.0.1.running_var", named)


def test_weights_in_whole_numbers_are_refused(tmp_path: Path) -> None:
    found = arrays("torchvision") | {"classifier.1.bias": np.zeros(1000, np.int8)}
    refusal(write(tmp_path / "mobilenet_v2.pth", found), "classifier.1.bias", "int8")


def test_what_is_no_dense_tensor_is_refused(tmp_path: Path) -> None:
    saved = tensors("torchvision")
    saved["classifier.1.weight"] = saved["classifier.1.weight"].to_sparse()
    torch.save(saved, tmp_path / "sparse.pth")
    refusal(tmp_path / "sparse.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    refusal(tmp_path / "list.pth", "no dictionary of tensors")


def test_an_archive_of_python_objects_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    objects = np.array([Command(f"touch {ran}")], dtype=object)
    np.savez(tmp_path / "objects.npz", **{"efficientnet-b0/stem/conv2d/kernel": objects})
    refusal(tmp_path / "objects.npz", "Object arrays cannot be loaded")
    assert not ran.exists()
    with np.load(tmp_path / "objects.npz", allow_pickle=True) as archive:
        assert archive["efficientnet-b0/stem/conv2d/kernel"].shape == (1,)
    assert ran.exists()  # so it was such an archive


def test_texts_are_no_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("a/notes.txt", "no array")
    refusal(tmp_path / "notes.npz", "notes.txt", "not numbers")
    with h5py.File(tmp_path / "notes.h5", "w") as file:
        file["layer/kernel:0"] = "a text"
    refusal(tmp_path / "notes.h5", "layer/kernel", "not numbers")


def _never(*_: object, **__: object) -> None:
    raise AssertionError("unpacked before it was refused")


@pytest.mark.parametrize("ending", [".pth", ".npz", ".h5", ".keras"])
def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write(tmp_path / f"large{ending}", {"a/kernel": np.zeros(100_000, np.float32)}, small=True)
    if ending == ".pth":  # torch itself does not compress
        with zipfile.ZipFile(place) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    monkeypatch.setattr("triscale.weights.reading.MAX_BYTES", place.stat().st_size - 1)
    refusal(place, "larger than")
    monkeypatch.setattr("triscale.weights.reading.MAX_BYTES", 300_000)
    for whole, name in ((torch, "load"), (np, "load"), (zipfile.ZipFile, "read"), (h5py.Dataset, "__getitem__")):
        monkeypatch.setattr(whole, name, _never)
    refusal(place, "unpacks to", "refused")


def test_a_tensor_that_repeats_one_number_without_end_is_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "endless.pth")
    assert (tmp_path / "endless.pth").stat().st_size < 10_000
    refusal(tmp_path / "endless.pth", "unpacks to 4,000,000,000,000 bytes")


def test_nothing_outside_a_keras_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4000))
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("stem_conv/kernel:0", (1000,), np.float32, external=[(str(secret), 0, 4000)])
    refusal(tmp_path / "external.h5", "stem_conv/kernel", "lies in another file", "refused")
    other = write(tmp_path / "other.h5", {"stem_conv/kernel": np.zeros(1000, np.float32)})
    layout = h5py.VirtualLayout((1000,), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "stem_conv/stem_conv/kernel:0", (1000,))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("stem_conv/kernel:0", layout)
    refusal(tmp_path / "virtual.h5", "lies in another file", "refused")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["stem_conv"] = h5py.ExternalLink(str(other), "stem_conv")
        file["top_bn/gamma:0"] = np.zeros(3)
    refusal(tmp_path / "linked.h5", f"{len(arrays('keras', 'efficientnet_b0')) - 1} tensors are missing")


def test_a_layer_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "twice.h5", "w") as file:
        for inside in ("one", "two"):
            file[f"model_weights/stem_conv/{inside}/kernel:0"] = np.zeros(3)
    refusal(tmp_path / "twice.h5", "stem_conv/kernel twice")


@pytest.mark.parametrize(
    "name", ["checkpoint", "model.ckpt.index", "model.ckpt-7.data-00000-of-00001", "model.ckpt.meta", "model.ckpt"]
)
def test_a_tensorflow_checkpoint_is_answered_with_the_conversion(name: str, tmp_path: Path) -> None:
    for part in {name, "model.ckpt.index"} - {"model.ckpt"}:  # which is no file, but what the names begin with
        (tmp_path / part).write_bytes(b"1234")
    refusal(tmp_path / name, "TensorFlow checkpoint", "load_checkpoint", "numpy.savez")


def test_what_is_no_file_of_weights_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"1234")
    refusal(tmp_path / "weights.onnx", ".onnx", ".pth", ".safetensors", ".npz", ".h5", ".keras")
    refusal(tmp_path / "gone.pth", "no such file")
    refusal(Path(), "no such file", project="timm")  # ".", which has no name
    refusal(write(tmp_path / "small.pth", SMALL), "of none of the projects", "a/layer0/kernel", "timm")
    refusal(write(tmp_path / "small.pth", SMALL), "are none of timm's", project="timm")
    with pytest.raises(UserError, match="--from mxnet: no such project; there are timm"):
        import_weights(tmp_path / "small.pth", "mxnet")
