"""The range of every tensor of a network, from images of the training split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from triscale.data import Batches, Images, Prepared
from triscale.data.chance import permutation
from triscale.engines.onnx_runtime import OnnxRuntime
from triscale.engines.open_vino import OpenVino
from triscale.engines.runner import Array, Runner
from triscale.errors import UserError
from triscale.exporting.rewriting import Ranges, Wiring
from triscale.models import Model

_CALIBRATION = 41  # apart from what else is drawn by the same seed
HELD = 2**28  # bytes of tensors at a time, about


@dataclass(frozen=True, slots=True)
class Target:
    """An engine that computes in int8. joins: see `Wiring`. run: a graph, threads, images of every call."""

    name: str
    title: str
    joins: bool
    run: Callable[[bytes, int, int | None], OnnxRuntime | OpenVino]


TARGETS = {
    target.name: target
    for target in (
        Target("onnxruntime", "ONNX Runtime", False, lambda graph, n, most: OnnxRuntime(graph, threads=n, batch=most)),
        Target("openvino", "OpenVINO", True, lambda graph, n, most: OpenVino(graph, threads=n, batch=most)),
    )
}


def chosen(images: Images, n: int, *, seed: int) -> Images:
    """At most n of a split, the same for the same seed: as many of every class as it has, or as of the others."""
    order = permutation((seed, _CALIBRATION), len(images))
    labels = images.labels[order]
    turns = np.zeros(len(images), np.int64)  # of each image, how many of its class come before it
    for label in np.unique(labels):
        turns[labels == label] = np.arange((labels == label).sum())
    return images.select(np.sort(order[np.argsort(turns, kind="stable")[:n]]))


def seen(model: Model, images: Images | Prepared, batch: int) -> Iterator[Array]:
    """Images as the network sees them, float32 (n, channels, h, w)."""
    for part in Batches(images, model.preprocess, batch):
        yield np.ascontiguousarray(model.preprocess.normalise(part.x).numpy())


def measure_ranges(
    graph: onnx.ModelProto,
    model: Model,
    images: Images,
    *,
    target: Target,
    threads: int,
    progress: Callable[[int, int], None],
) -> Ranges:
    """The least and the largest value of every tensor on these images. Raises `UserError` where one is not finite."""
    names = Wiring(graph.graph, joins=target.joins).activations()
    every = onnx.ModelProto()
    every.CopyFrom(graph)
    every.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names[1:])
    run = target.run(every.SerializeToString(), threads, None)
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    done, batch = 0, 1  # the first one shows how much memory an image takes
    while done < len(images):
        part = images.select(np.arange(done, min(done + batch, len(images))))
        for x in seen(model, part, batch):
            found = run.every(x) | {names[0]: x}
            for name in names:
                low[name] = min(low[name], float(found[name].min()))
                high[name] = max(high[name], float(found[name].max()))
        done += len(part)
        progress(done, len(images))
        batch = max(1, min(64, HELD * len(part) // sum(value.nbytes for value in found.values())))
    for name in names:
        if not np.isfinite([low[name], high[name]]).all():
            raise UserError(f"int8: {name}: is not finite on the images; a network that overflows has no ranges")
    return {name: (low[name], high[name]) for name in names}


def runner_of(target: Target, graph: onnx.ModelProto, threads: int, batch: int | None = None) -> Runner:
    """What gives a graph's logits."""
    return target.run(graph.SerializeToString(), threads, batch)
