"""What a run's model promises where there is no torch: PyTorch's answers, from the weights that lie there now."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from native_program import pictures, planned
from tiny import TINY

from triscale.arch.resolve import read_metadata
from triscale.engines.native import Engine, available, compile_plan, open_run
from triscale.errors import UserError
from triscale.fitting import Fitted
from triscale.models import load
from triscale.nn import Network

pytestmark = pytest.mark.skipif(available().isa is None, reason=f"no native engine: {available().why}")

# What somebody without torch writes: a picture's probabilities, and that nothing brought torch.
ANSWER = """
import json, sys
import numpy as np
from triscale.arch.resolve import read_metadata
from triscale.data import Preprocess
from triscale.engines.native import open_run
from pathlib import Path
from PIL import Image

run, picture = map(Path, sys.argv[1:])
metadata = read_metadata(run / "model.safetensors")
look = Preprocess.from_json(json.loads(metadata["preprocess"]))
pixels = look.fit(np.asarray(Image.open(picture))[:, :, None]) / np.float32(255)
images = (pixels - np.float32(look.mean)) / np.float32(look.std)
with open_run(run) as engine:
    logits = engine(np.ascontiguousarray(images.transpose(2, 0, 1)[None], np.float32))[0]
shares = np.exp(logits - logits.max())
classes = json.loads(metadata["classes"])
print(json.dumps(dict(zip(classes, (shares / shares.sum()).tolist()))))
assert "torch" not in sys.modules
"""


def network_weights(network: Network) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


def test_a_picture_is_answered_without_torch_as_with_it(fitted: Fitted, digits: Path) -> None:
    picture = digits / "digit-1" / "003.png"
    words = [sys.executable, "-c", ANSWER, str(fitted.run.path), str(picture)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    wanted = dict(load(fitted.run.path).predict(picture))
    assert found.keys() == wanted.keys()
    assert all(abs(found[name] - share) < 1e-4 for name, share in wanted.items())


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_run_and_its_model_file_give_the_bits_of_the_network(fitted: Fitted, name: str) -> None:
    model = load(fitted.run.path)
    x = pictures(model.architecture, 3)
    with Engine(compile_plan(model.architecture, network_weights(model))) as engine:
        wanted = engine(x)
    with open_run(fitted.run.path / name, threads=1, streams=2) as engine:
        assert (engine.threads, engine.streams) == (1, 2)
        assert engine(x).tobytes() == wanted.tobytes()


def test_what_is_answered_comes_from_the_weights_that_lie_there_now(fitted: Fitted, tmp_path: Path) -> None:
    shutil.copy(fitted.run.model, tmp_path)
    model = load(tmp_path)
    x = pictures(model.architecture, 1)
    with open_run(tmp_path) as before, torch.no_grad():
        model.get_parameter("head.classifier.bias").add_(1)
        model.save(tmp_path / "model.safetensors")
        with open_run(tmp_path) as after:
            assert np.allclose(after(x), before(x) + 1, atol=1e-5)


def test_nothing_is_left_in_the_run(fitted: Fitted, tmp_path: Path) -> None:
    shutil.copy(fitted.run.model, tmp_path)
    open_run(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _stripped(file: Path) -> None:
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), file)


def _another_format(file: Path) -> None:
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), file, read_metadata(file) | {"format": "2"})


def _another_network(file: Path) -> None:
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), file, read_metadata(file) | {"architecture": "[]"})


def _without_a_tensor(file: Path) -> None:
    tensors = safetensors.numpy.load_file(file)
    del tensors["stem.conv.conv.weight"]
    safetensors.numpy.save_file(tensors, file, read_metadata(file))


def _not_finite(file: Path) -> None:
    tensors = safetensors.numpy.load_file(file)
    tensors["head.classifier.bias"][0] = np.nan
    safetensors.numpy.save_file(tensors, file, read_metadata(file))


def _whole_numbers(file: Path) -> None:
    tensors = safetensors.numpy.load_file(file)
    tensors["head.classifier.bias"] = tensors["head.classifier.bias"].astype(np.int32)
    safetensors.numpy.save_file(tensors, file, read_metadata(file))


def _of_type(kind: torch.dtype) -> Callable[[Path], None]:
    def harm(file: Path) -> None:
        tensors = safetensors.torch.load_file(file)
        tensors["head.classifier.bias"] = tensors["head.classifier.bias"].to(kind)
        safetensors.torch.save_file(tensors, file, read_metadata(file))

    return harm


def _a_plan(file: Path) -> None:
    planned(TINY)[0].save(file)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_a_plan, r"a plan; open it with Engine\(Plan.load\(path\)\)"),
        (Path.unlink, "there is no such file; name a finished run"),
        (_cut, "not a model that this version can read"),
        (_emptied, "not a model that this version can read"),
        (_stripped, r"no model that Triscale wrote \(it does not say its 'format'\)"),
        (_another_format, r"not a model that this version can read \(format 2\)"),
        (_another_network, "a network is a JSON object.*; copy or train it again"),
        (_without_a_tensor, "is missing among the weights"),
        (_not_finite, "values that are not finite"),
        (_whole_numbers, "is of int32"),
        (_of_type(torch.bfloat16), "'head.classifier.bias' is of (BF16|bfloat16)"),  # which onnx teaches numpy
        (_of_type(torch.float8_e4m3fn), r"not a model .* \('head\.classifier\.bias' is of F8_E4M3\); copy or train"),
    ],
)
def test_a_file_that_is_no_whole_model_is_named_in_one_line(
    fitted: Fitted, tmp_path: Path, harm: Callable[[Path], object], says: str
) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copy(fitted.run.model, file)
    harm(file)
    with pytest.raises(UserError, match=says) as caught:
        open_run(tmp_path)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
