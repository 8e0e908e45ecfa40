"""Networks in int8 against themselves in fp32: what is lost on images, what fell back, what one image takes.

    python benchmarks/int8.py RUN [RUN ...] --threads 1
    python benchmarks/int8.py efficientnet_lite0 resnet18 --threads 1

A run is judged by its validation images, and told of its test images, which decide nothing. A network without a run has
nothing to be right about: counted is how many crops of two photographs keep the class that it names in fp32. One with
random weights is only timed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from sklearn.datasets import load_sample_images

from triscale.benching.machine import machine
from triscale.data import Images
from triscale.data.pictures import Memory
from triscale.engines.runner import Runner
from triscale.engines.table import graph_of, weights_of
from triscale.errors import TriscaleError
from triscale.evaluating.pairing import paired
from triscale.evaluating.predictions import predict_images
from triscale.exporting.calibrating import TARGETS, Target, runner_of
from triscale.exporting.images import images_of
from triscale.exporting.quantizing import LOST_BY_ESTIMATE, quantize
from triscale.models import Model, load
from triscale.runs import RunDirectory

CROPS, SIDE = 128, 400


def crops(seed: int) -> Images:
    """Of two photographs, at random."""
    chance, found = np.random.default_rng(seed), []
    for i in range(CROPS):
        whole = load_sample_images().images[i % 2]
        top, left = (int(chance.integers(0, side - SIDE)) for side in whole.shape[:2])
        found.append(whole[top : top + SIDE, left : left + SIDE])
    names = tuple(map(str, range(CROPS)))
    return Images(np.zeros(CROPS, np.int64), names, tuple(map(str.encode, names)), Memory(np.stack(found)))


def likeliest(model: Model, images: Images, run: Runner) -> np.ndarray:
    """The class of each image."""
    return predict_images(
        model, images, logits=lambda x: torch.from_numpy(run(np.ascontiguousarray(x.numpy())))
    ).predicted


def graphs(model: Model, graph: bytes, target: Target, threads: int) -> Iterator[Runner]:
    """The network in fp32 and in int8."""
    for content in (graph_of(model.architecture, weights_of(model)), graph):
        yield runner_of(target, onnx.load_from_string(content), threads)


def measure(name: str, engine: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One network by one engine."""
    model, target, most = load(name), TARGETS[engine], asked.most_lost / 100
    network = f"{model.architecture.name} at {'×'.join(map(str, model.architecture.resolution))}"
    found: dict[str, Any] = {"network": network, "trained": model.trained, "engine": engine}
    run = RunDirectory(Path(name))
    if run.begun():
        data = images_of(run, None)
        learned, judging = data.train, data.val
    else:
        learned, judging, most = crops(0), crops(1), 0.99
        fp32 = runner_of(target, onnx.load_from_string(graph_of(model.architecture, weights_of(model))), asked.threads)
        labels = likeliest(model, judging, fp32)
        judging = Images(labels, judging.names, judging.digests, judging.source)
    try:
        done = quantize(model, learned, judging, engine=engine, most_lost=most, threads=asked.threads)
    except TriscaleError as error:
        return found | {"refused": str(error), "lines": [str(error)]}
    lines = list(done.lines())
    if not run.begun():
        agreeing = [f"{done.same.count} of {done.same.n} crops keep their class"] if model.trained else []
        lines = [lines[0], *agreeing, lines[-1]]
    found |= done.values() | {"lines": lines}
    if run.begun():
        right = [
            likeliest(model, data.test, one) == data.test.labels
            for one in graphs(model, done.graph, target, asked.threads)
        ]
        before, after = right
        lost = paired(before, after)
        found |= {"test_lost": lost.value, "test_lost_interval": list(lost.interval()), "test_n": lost.n}
        found["lines"].append(f"test: {before.mean():.2%} in fp32, {after.mean():.2%} in int8: lost {lost}")
    return found


def main() -> None:
    """Prints as it goes, or one JSON object."""
    parser = argparse.ArgumentParser(description="Networks in int8 against themselves in fp32, in turns.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a run, or whatever names a network")
    parser.add_argument("--engine", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most-lost", type=float, default=100 * LOST_BY_ESTIMATE, help="points of the gate (0.5)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    here, found = machine(), []
    if not asked.json:
        print(", ".join(f"{name} {value}" for name, value in here.items()))
    for name in asked.names:
        for engine in asked.engine:
            found.append(measure(name, engine, asked))
            if not asked.json:
                print(f"\n{found[-1]['network']}, {TARGETS[engine].title}", *found[-1]["lines"], sep="\n  ")
                sys.stdout.flush()
    if asked.json:
        print(json.dumps({"machine": here, "networks": found}))


if __name__ == "__main__":
    main()
