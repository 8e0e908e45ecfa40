"""What a network can be exported to: one table behind the command line, the checks and the documentation."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triscale.engines.runner import Array, Runner
from triscale.errors import UserError
from triscale.models import Model

# Keys of what a file says of itself begin with it: other tools write theirs beside them.
PREFIX = "triscale."
EXTRA = "triscale.json"  # the same in an archive of torch.export
LARGEST_WEIGHT = "largest_weight"  # what a file in int8 says beside what the model does: see `saturating`
LOST_BY_ESTIMATE = 0.005  # of the accuracy by int8, at most; the interval may end above it
SAFE = 64  # two products of such a weight with the largest activation, 2 · 64 · 255, fit into 16 bits


@dataclass(frozen=True)
class Format:
    """A kind of file. suffix: of the file that is named; beside: of one more that belongs to it. modules: what writing
    takes; opens: what running takes. engine: which one runs int8 networks from such files; None where none does.

    write: the network as ONNX content, the model, what the file shall say, the file; raises `OSError` where the disk
    refuses. open: the file, threads → what runs it, in fp32. layers: the file, names of modules, images → what those
    modules gave there, in the order of computing, as far as the file still has them.
    """

    name: str
    title: str
    suffix: str
    write: Callable[[bytes, Model, Mapping[str, str], Path], None]
    open: Callable[[Path, int], Runner]
    layers: Callable[[Path, tuple[str, ...], Array], Mapping[str, Array]]
    modules: tuple[str, ...]
    opens: tuple[str, ...] = ()
    beside: str | None = None
    engine: str | None = None

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of an export; what belongs to the named one comes before it."""
        return (path,) if self.beside is None else (path.with_suffix(self.beside), path)

    def wanted(self, graph: bytes, threads: int) -> Callable[[Tensor], Array]:
        """What a file of that graph shall answer, by the engine of the format."""
        from triscale.exporting.calibrating import TARGETS

        assert self.engine is not None
        run = TARGETS[self.engine].run(graph, threads, None)
        return lambda x: run(np.ascontiguousarray(x.numpy()))

    def check(self) -> None:
        """Raises `UserError` where something is not installed that writing takes."""
        _check_installed(self.modules, f"--to {self.name}")

    def check_opening(self, path: Path) -> None:
        """Raises `UserError` where something is not installed that running the file takes."""
        _check_installed(self.opens, str(path))


def _check_installed(modules: Iterable[str], said: str) -> None:
    for module in modules:
        if find_spec(module) is None:
            raise UserError(f"{said}: {module} is not installed; pip install 'triscale[export]'")


def _write_onnx(graph: bytes, model: Model, said: Mapping[str, str], path: Path) -> None:
    import onnx

    content = onnx.load_from_string(graph)
    onnx.helper.set_model_props(content, {PREFIX + key: value for key, value in said.items()})
    onnx.checker.check_model(content, full_check=True)
    path.write_bytes(content.SerializeToString(deterministic=True))


def _open_onnx(path: Path, threads: int) -> Runner:
    from triscale.engines.onnx_runtime import OnnxRuntime

    return OnnxRuntime(path, threads=threads)


def _layers_of_onnx(path: Path, names: tuple[str, ...], images: Array) -> Mapping[str, Array]:
    import onnx

    from triscale.engines.onnx_runtime import OnnxRuntime

    content, wanted = onnx.load(path), set(names)
    found = [output for node in content.graph.node for output in node.output if output in wanted]
    content.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in found)
    run = OnnxRuntime(content.SerializeToString(), threads=1).every(images)
    return {name: run[name] for name in found}


def _write_openvino(graph: bytes, model: Model, said: Mapping[str, str], path: Path) -> None:
    from triscale.engines.open_vino import module

    vino = module()
    content = vino.Core().read_model(graph)
    for key, value in said.items():
        content.set_rt_info(value, ["triscale", key])
    try:
        vino.save_model(content, str(path), compress_to_fp16=False)
    except RuntimeError as error:  # what it says of a full disk is: iostream error
        raise OSError(str(error)) from None


def _open_openvino(path: Path, threads: int) -> Runner:
    from triscale.engines.open_vino import OpenVino

    return OpenVino(path, threads=threads)


def _layers_of_openvino(path: Path, names: tuple[str, ...], images: Array) -> Mapping[str, Array]:
    from triscale.engines.open_vino import OpenVino, module

    vino, wanted = module(), set(names)
    content = vino.Core().read_model(str(path))
    found = [name for op in content.get_ordered_ops() for out in op.outputs() for name in out.get_names() & wanted]
    content.add_outputs(found)
    run = OpenVino(content, threads=1).every(images)
    return {name: run[name] for name in found}


def _write_torch(graph: bytes, model: Model, said: Mapping[str, str], path: Path) -> None:
    from torch.export import Dim, export, save

    # An example of one image would be taken for a batch that is always one.
    example = torch.zeros((2, model.architecture.channels, *model.architecture.resolution))
    program = export(model.eval(), (example,), dynamic_shapes=({0: Dim("n")},))
    archive = io.BytesIO()  # given a path, PyTorch ends the process where the disk is full
    save(program, archive, extra_files={EXTRA: json.dumps(dict(said), ensure_ascii=False)})
    path.write_bytes(archive.getbuffer())


def _open_torch(path: Path, threads: int) -> Runner:
    module = torch.export.load(path).module()

    @torch.inference_mode()
    def run(images: Array, /) -> Array:
        logits: Array = module(torch.from_numpy(images)).numpy()
        return logits

    return run


def _layers_of_torch(path: Path, names: tuple[str, ...], images: Array) -> Mapping[str, Array]:
    module = torch.export.load(path).module()
    wanted = set(names)
    found: dict[str, Array] = {}

    class Watched(torch.fx.Interpreter):
        """Keeps the last value of each module that is wanted."""

        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                for place, _ in n.meta.get("nn_module_stack", {}).values():
                    name = place.removeprefix("L['self'].")
                    if name in wanted:
                        found.pop(name, None)
                        found[name] = value.numpy()
            return value

    with torch.inference_mode():
        Watched(module).run(torch.from_numpy(images))
    return found


FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format(
            "onnx", "ONNX", ".onnx", _write_onnx, _open_onnx, _layers_of_onnx, ("onnx", "onnxruntime"),
            opens=("onnxruntime",), engine="onnxruntime",
        ),
        Format(
            "openvino", "OpenVINO", ".xml", _write_openvino, _open_openvino, _layers_of_openvino,
            ("onnx", "openvino"), opens=("openvino",), beside=".bin", engine="openvino",
        ),
        Format("torch", "torch.export", ".pt2", _write_torch, _open_torch, _layers_of_torch, ("onnx",)),
    )
}  # fmt: skip


def find_format(name: str) -> Format:
    """The format of that name, ready to be written here. Raises `UserError`."""
    if name not in FORMATS:
        raise UserError(f"--to {name!r}: no such format; there are {', '.join(FORMATS)}")
    FORMATS[name].check()
    return FORMATS[name]
