"""What plans promise: PyTorch's mathematics for every network, and a file that is whole or refused."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from native_program import Interpreter, answered, arrays, furthest, pictures, planned, trained
from specs import architectures
from tiny import TINY

from triscale.arch import Architecture, Conv, FusedMBConv, Head, Stage, adapt, published
from triscale.engines.native import Plan, compile_plan
from triscale.engines.native import plan as plan_module
from triscale.engines.native.layers import Kind
from triscale.errors import TriscaleError, UserError
from triscale.nn import build

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mnasnet_a1", "resnet18", "resnet50")
Tensors = dict[str, npt.NDArray[np.generic]]


@settings(max_examples=120)
@given(architectures(), st.integers(0, 1000))
def test_a_plan_computes_what_pytorch_does(architecture: Architecture, seed: int) -> None:
    plan, network = planned(architecture, seed)
    x = pictures(architecture, 2, seed)
    assert furthest(Interpreter(plan)(x), answered(network, x)) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plan_of_a_published_network_computes_what_pytorch_does(name: str) -> None:
    architecture = adapt(published(name), resolution=(40, 53), classes=11)
    plan, network = planned(architecture)
    x = pictures(architecture, 2)
    assert furthest(Interpreter(plan)(x), answered(network, x)) < 1e-5


def test_a_depthwise_convolution_brings_its_expansion_and_its_sums() -> None:
    kinds = [Kind(kind) for kind in planned(adapt(published("efficientnet_b0"), resolution=(64, 64)))[0].layers[:, 0]]
    assert kinds[:6] == [Kind.INPUT, Kind.CONV, Kind.DEPTHWISE, Kind.EXCITE, Kind.CONV, Kind.DEPTHWISE]
    assert len(kinds) == 2 + 3 * 16 + 3


def test_maps_share_few_buffers() -> None:
    # A block's input and output, what lies between, sums and gates.
    assert planned(adapt(published("efficientnet_b0"), resolution=(64, 64)))[0].buffers <= 5
    assert planned(adapt(published("resnet50"), resolution=(64, 64)))[0].buffers <= 4


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        planned(TINY, 3)[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(architectures())
def test_a_plan_comes_back_from_its_file(tmp_path: Path, architecture: Architecture) -> None:
    plan = compile_plan(architecture, arrays(build(architecture)))
    plan.save(tmp_path / "plan")
    again = Plan.load(tmp_path / "plan")
    assert again.architecture == architecture
    assert again.architecture.name == architecture.name
    assert np.array_equal(again.layers, plan.layers)
    assert again.blob.tobytes() == plan.blob.tobytes()
    assert (again.buffers, again.classes) == (plan.buffers, architecture.classes)
    assert not again.layers.flags.writeable
    assert not again.blob.flags.writeable


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan"
    # Small, so that many of the bytes that are changed lie in the header.
    architecture = replace(TINY, stages=(Stage(Conv(1, "relu"), 2),))
    compile_plan(architecture, arrays(build(architecture))).save(path)
    return path


@settings(max_examples=300)
@given(st.data())
def test_a_plan_with_any_byte_changed_is_refused(saved: Path, data: st.DataObject) -> None:
    content = bytearray(saved.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    refused(saved, bytes(content))


@given(st.data())
def test_a_plan_that_was_cut_or_has_more_is_refused(saved: Path, data: st.DataObject) -> None:
    content = saved.read_bytes()
    refused(saved, content[: data.draw(st.integers(0, len(content) - 1))])
    refused(saved, content + data.draw(st.binary(min_size=1, max_size=100)))


@given(st.binary(max_size=200))
def test_what_is_no_plan_is_refused(saved: Path, content: bytes) -> None:
    refused(saved, content)
    refused(saved, len(content).to_bytes(8, "little") + content)


def refused(saved: Path, content: bytes) -> None:
    path = saved.with_name("changed")
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Plan.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "again" in message
    assert len(message.splitlines()) == 1


def test_a_plan_of_another_version_is_refused(saved: Path) -> None:
    content = saved.read_bytes().replace(rb"\"format\": 1", rb"\"format\": 2")
    path = saved.with_name("other")
    path.write_bytes(content)
    with pytest.raises(UserError, match="another version"):
        Plan.load(path)


def test_a_plan_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(UserError, match="name a plan's file"):
            Plan.load(path)


def test_a_whole_plan_of_no_network_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "plan"
    with monkeypatch.context() as other:
        other.setattr(plan_module, "to_dict", lambda _: {})
        planned(TINY)[0].save(place)
    with pytest.raises(UserError, match=r'no "schema".*; export the model again') as caught:
        Plan.load(place)
    assert str(caught.value).count(str(place)) == 1
    with monkeypatch.context() as other:
        save = safetensors.numpy.save
        other.setattr(safetensors.numpy, "save", lambda tensors, told: save({"layers": tensors["layers"]}, told))
        planned(TINY)[0].save(place)
    with pytest.raises(UserError, match=r"no plan of a network \('blob': missing, or unknown here\); export"):
        Plan.load(place)


def test_a_plan_is_not_saved_where_no_path_can_be() -> None:
    with pytest.raises(TriscaleError, match="could not be written"):
        planned(TINY)[0].save("a\0b")


def test_arrays_of_other_types_are_no_plan() -> None:
    plan = planned(TINY)[0]
    for layers, blob in (
        (plan.layers.astype(np.int32), plan.blob),
        (plan.layers[:, 1:], plan.blob),
        (plan.layers[:0], plan.blob),
        (plan.layers, plan.blob.astype(np.float64)),
        (plan.layers, plan.blob[None]),
    ):
        with pytest.raises(ValueError, match=r"int64|layer|float32"):
            Plan(TINY, layers, blob)


def test_a_plan_takes_the_images_and_gives_the_logits_of_its_architecture() -> None:
    plan = planned(TINY)[0]
    for other in (replace(TINY, resolution=(16, 17)), replace(TINY, channels=2), replace(TINY, head=Head(5, None))):
        with pytest.raises(ValueError, match="not those of custom"):
            replace(plan, architecture=other)


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def changed(name: str, change: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]) -> Callable[..., Tensors]:
    return lambda tensors: tensors | {name: change(tensors[name].copy())}


def filled(value: float) -> Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]:
    return lambda tensor: np.full_like(tensor, value)


FAULTS = [
    (without("stages.1.0.expand.conv.weight"), "'stages.1.0.expand.conv.weight' is missing"),
    (without("head.classifier.bias"), "'head.classifier.bias' is missing"),
    (without("stem.conv.norm.running_var"), "'stem.conv.norm.running_var' is missing"),
    (changed("stem.conv.conv.weight", lambda w: w[1:]), r"'stem.*' is \(7, 1, 3, 3\), not \(8, 1, 3, 3\)"),
    (changed("head.classifier.weight", lambda w: w.T), r"'head.classifier.weight' is \(16, 4\), not \(4, 16\)"),
    (changed("stem.conv.norm.bias", lambda w: w.astype(np.int64)), "'stem.conv.norm.bias' is of int64"),
    (changed("stages.0.0.depthwise.conv.weight", filled(np.nan)), "'stages.0.0.depthwise.conv.weight' has values"),
    (changed("stages.0.0.squeeze_excite.reduce.bias", filled(np.inf)), "'stages.0.0.squeeze_excite.reduce.bias' has"),
    (changed("stages.0.0.project.norm.running_var", filled(np.inf)), "'stages.0.0.project.norm.running_var' has"),
    (changed("stages.0.0.project.norm.running_var", filled(-1)), "'stages.0.0.project': not finite once"),
    (changed("stages.0.0.project.norm.weight", filled(3e38)), "'stages.0.0.project': not finite once"),
    (lambda tensors: tensors | {"stages.2.0.x": tensors["head.classifier.bias"]}, "'stages.2.0.x': custom has no such"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_weights_that_do_not_fit_are_named(change: Callable[[Tensors], Tensors], said: str) -> None:
    tensors = arrays(trained(TINY))
    tensors["stages.0.0.project.norm.running_var"][0] = 1e-9
    with pytest.raises(UserError, match=said):
        compile_plan(TINY, change(tensors))


def test_weights_may_be_of_any_floating_type_and_of_whatever_is_an_array() -> None:
    network = trained(TINY)
    tensors = arrays(network)
    wanted = compile_plan(TINY, tensors).blob.tobytes()
    for weights in (
        {name: tensor.astype(np.float64) for name, tensor in tensors.items()},
        {name: tensor.tolist() for name, tensor in tensors.items() if tensor.ndim},
        network.state_dict(),
    ):
        assert compile_plan(TINY, weights).blob.tobytes() == wanted


def test_gates_without_a_projection_scale_the_map() -> None:
    architecture = replace(TINY, stages=(Stage(FusedMBConv(3, 1, 0.5), 8, 2),))
    kinds = planned(architecture)[0].layers[:, 0].tolist()
    assert kinds.count(Kind.SCALE) == kinds.count(Kind.SUM) == 2


def test_plans_need_no_torch(saved: Path) -> None:
    code = (
        "import sys, triscale.engines, triscale.kernels, triscale.engines.native as native\n"
        f"plan = native.Plan.load({str(saved)!r})\n"
        "print(native.available().isa)\n"
        "if native.available().isa:\n"
        "    import numpy as np\n"
        "    with native.Engine(plan) as engine: assert engine(np.ones((2, 1, 16, 16), np.float32)).shape == (2, 4)\n"
        "assert not {'torch', 'PIL', 'scipy'} & set(sys.modules)\n"
        "from triscale.kernels import norm_depthwise, pointwise\n"
        "assert 'torch' in sys.modules\n"
        "from triscale.engines import measure_latency\n"
    )
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source})
    assert done.returncode == 0, done.stderr
