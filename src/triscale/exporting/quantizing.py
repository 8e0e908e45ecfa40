"""Networks in int8, by images of the run and without training: everything, but for the layers that cost too much."""

import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from triscale.data import Images, Prepared, prepare
from triscale.data.chance import sample
from triscale.engines import turns
from triscale.engines.latency import Latency
from triscale.engines.runner import Array, Runner
from triscale.engines.table import graph_of, weights_of
from triscale.errors import TriscaleError, UserError
from triscale.evaluating.pairing import paired
from triscale.evaluating.predictions import predict_images
from triscale.exporting.calibrating import TARGETS, Target, chosen, measure_ranges, runner_of, seen
from triscale.exporting.formats import LOST_BY_ESTIMATE
from triscale.exporting.rewriting import LARGEST, Ranges, Wiring, rewrite
from triscale.exporting.saturating import largest_weight
from triscale.exporting.sensitivity import Part, costs, kept_tensors, parts_of
from triscale.models import Model
from triscale.stats import Estimate, PairedDifference, Proportion

CALIBRATION, GATE, RANKED = 256, 10_000, 256  # images, at most
BATCH = 64
_GATE, _RANKED = 42, 43  # apart from what else is drawn by the same seed
WARM_UP = 3  # images that are not timed
ENOUGH = turns.Until(fewest=21, most=200, seconds=2.0)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """A layer that stayed in fp32. kind: convolution, squeeze-excite, SiLU, …; cost: how far logits move when it alone
    computes in int8, as a share of their standard deviation."""

    layer: str
    kind: str
    cost: float


@dataclass(frozen=True, slots=True)
class Quantized:
    """A network in int8, as the content of an ONNX file.

    engine: which one it was judged by. largest: the largest level of a weight: 127, or 64 where the engine's sums
    overflow with larger ones on this processor. parts: how many layers, activations and sums could be in int8; kept:
    those that are not, the most costly first. before, after: accuracy on the images of the gate, in fp32 and in int8;
    lost: how many images only fp32 names right, and how many only int8; same: how many have the same likeliest class.
    most_lost: what the gate allowed. tried: how many networks were held against it. fp32, int8: one image, by this
    engine, here, in turns; gained: by how many seconds int8 is faster, the median of the turns.
    """

    graph: bytes
    engine: str
    largest: int
    parts: int
    kept: tuple[Kept, ...]
    before: Proportion
    after: Proportion
    lost: PairedDifference
    same: Proportion
    most_lost: float
    tried: int
    fp32: Latency
    int8: Latency
    gained: Estimate

    @property
    def fully(self) -> bool:
        """Whether nothing was kept in fp32."""
        return not self.kept

    @property
    def certain(self) -> bool:
        """Whether the loss is within what is allowed at the worse end of its interval too."""
        return self.lost.interval()[1] <= self.most_lost

    @property
    def faster(self) -> bool:
        """Whether it is, beyond chance."""
        return self.gained.low > 0

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "engine": self.engine,
            "largest_weight": self.largest,
            "parts": self.parts,
            "kept": [{"layer": one.layer, "kind": one.kind, "cost": one.cost} for one in self.kept],
            "accuracy_fp32": self.before.value,
            "accuracy_int8": self.after.value,
            "lost": self.lost.value,
            "lost_interval": list(self.lost.interval()),
            "most_lost": self.most_lost,
            "certain": self.certain,
            "same": self.same.value,
            "n": self.lost.n,
            "tried": self.tried,
            "ms_fp32": _milliseconds(self.fp32),
            "ms_int8": _milliseconds(self.int8),
            "ms_gained": {
                "median": 1e3 * self.gained.value, "low": 1e3 * self.gained.low, "high": 1e3 * self.gained.high,
            },
            "faster": self.faster,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The same for people."""
        if self.fully:
            yield f"all {self.parts} layers are in int8"
        else:
            rest, layers = self.parts - len(self.kept), ", ".join(f"{one.layer} ({one.kind})" for one in self.kept)
            yield f"{rest} of {self.parts} layers are in int8; in fp32, the costliest first: {layers}"
        if self.largest < LARGEST:
            yield (
                f"weights are whole numbers up to {self.largest} instead of {LARGEST}: with larger ones "
                f"{TARGETS[self.engine].title}'s sums overflow on this processor"
            )
        yield f"validation accuracy {self.before.value:.2%} in fp32, {self.after.value:.2%} in int8: lost {self.lost}"
        if not self.certain:
            yield (
                f"the interval goes beyond the {100 * self.most_lost:g} points allowed: "
                f"{self.lost.n:,} images cannot tell more precisely"
            )
        fp32, int8 = (
            f"{1e3 * one.median:.3g} ms (80 % within {1e3 * one.low:.3g} to {1e3 * one.high:.3g})"
            for one in (self.fp32, self.int8)
        )
        gained, low, high = (1e3 * value for value in (self.gained.value, *self.gained.interval()))
        yield (
            f"one image by {TARGETS[self.engine].title}, n = {self.int8.n} in turns, threads: {self.int8.threads}: "
            f"fp32 {fp32}, int8 {int8}; gained {gained:+.3g} ms (95 % interval {low:+.3g} to {high:+.3g})"
            + ("" if self.faster else "; int8 is not faster here")
        )


def _milliseconds(latency: Latency) -> dict[str, float]:
    found = {"median": latency.median, "p10": latency.low, "p90": latency.high}
    return {name: 1e3 * seconds for name, seconds in found.items()} | {"n": latency.n, "threads": latency.threads}


def quantize(
    model: Model,
    calibration: Images,
    gate: Images,
    *,
    engine: str = "onnxruntime",
    most_lost: float = LOST_BY_ESTIMATE,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quantized:
    """The model, on the CPU, in int8: weights by output channel, activations by the ranges that calibration shows.

    calibration: images learned from, of which 256 are taken. gate: labelled images not learned from (validation, never
    test), of which at most 10,000 are. The gate holds where the accuracy lost on these is at most `most_lost`: the
    estimate, not the end of its interval, which a few hundred images never bring so low. Where it does not hold, layers
    go back to fp32 in the order of what each costs alone, as few as hold it. engine: `onnxruntime` or `openvino`, which
    judges and is timed, and for which the graph is made. threads: of one call; by default as many as PyTorch uses. The
    same seed, images and engine give the same graph. Raises `UserError` without images of either kind; `TriscaleError`
    where the gate does not hold as long as any layer with weights is in int8.
    """
    target = _checked(engine, calibration, gate, most_lost)
    threads, tell = threads or torch.get_num_threads(), progress or (lambda stage, done, of: None)
    graph = onnx.load_model_from_string(graph_of(model.architecture, weights_of(model)))
    some, held = chosen(calibration, CALIBRATION, seed=seed), gate.select(sample((seed, _GATE), len(gate), GATE))
    ranges = measure_ranges(
        graph, model, some, target=target, threads=threads, progress=partial(tell, "measuring ranges")
    )
    attempt = _Attempt(graph, ranges, target, threads, largest_weight(target))
    trial = _Gate(model, prepare(held, model.preprocess), attempt, most_lost, tell)
    parts, found = parts_of(attempt.wiring), trial.held(())
    kept: tuple[Kept, ...] = ()
    if found is None:
        few = held.select(sample((seed, _RANKED), len(held), RANKED))
        ranked = _ranked(parts, attempt, list(seen(model, few, BATCH)), partial(tell, "layers alone"))
        found = trial.fewest([part for part, _ in ranked])
        kept = tuple(Kept(part.layer, part.kind, cost) for part, cost in ranked[: len(found.kept)])
    written = attempt.write(kept_tensors(found.kept))
    onnx.checker.check_model(written, full_check=True)
    x = next(seen(model, held.select([0]), 1))
    fp32, int8, gained = _in_turns([runner_of(target, one, threads, 1) for one in (graph, written)], x, threads, target)
    return Quantized(
        written.SerializeToString(deterministic=True), engine, attempt.most, len(parts), kept,
        found.before, found.after, found.lost, found.same, most_lost, trial.tried, fp32, int8, gained,
    )  # fmt: skip


def _ranked(
    parts: Sequence[Part], attempt: "_Attempt", few: Sequence[Array], progress: Callable[[int, int], None]
) -> list[tuple[Part, float]]:
    """The parts with what each costs alone, the most costly first."""
    found = costs(attempt.graph, parts, attempt.write, attempt.open, few, progress)
    return sorted(zip(parts, found, strict=True), key=lambda one: -one[1])


def _checked(engine: str, calibration: Images, gate: Images, most_lost: float) -> Target:
    if engine not in TARGETS:
        raise UserError(f"int8: {engine!r}: computes no int8 networks; there are {', '.join(TARGETS)}")
    if not 0 <= most_lost < 1:
        raise UserError(f"int8: {most_lost}: no share of an accuracy that may be lost; write for example 0.005")
    for images, what in ((calibration, "training images to calibrate with"), (gate, "validation images to judge by")):
        if not len(images):
            raise UserError(f"int8: there are no {what}; name the images that the run was made from")
    return TARGETS[engine]


@dataclass(frozen=True)
class _Attempt:
    """What a graph in int8 is made from, but for what is kept."""

    graph: onnx.ModelProto
    ranges: Ranges
    target: Target
    threads: int
    most: int

    @property
    def wiring(self) -> Wiring:
        return Wiring(self.graph.graph, joins=self.target.joins)

    def write(self, kept: Set[str]) -> onnx.ModelProto:
        return rewrite(self.graph, self.ranges, kept, joins=self.target.joins, most=self.most)

    def open(self, graph: onnx.ModelProto) -> Runner:
        return runner_of(self.target, graph, self.threads)


@dataclass(frozen=True)
class _Found:
    """What was held against the gate, and how it went."""

    kept: tuple[Part, ...]
    before: Proportion
    after: Proportion
    lost: PairedDifference
    same: Proportion


class _Gate:
    """The images that decide. tried: how many networks they were asked about."""

    def __init__(self, model: Model, images: Prepared, attempt: _Attempt, most_lost: float, progress: Progress) -> None:
        self.model, self.images, self.attempt = model, images, attempt
        self.most_lost, self.progress, self.tried = most_lost, progress, 0
        self.labels = images.images.labels
        self.likeliest = self._likeliest(attempt.graph)
        self.right = self.likeliest == self.labels
        self.last: _Found | None = None

    def _likeliest(self, graph: onnx.ModelProto) -> npt.NDArray[np.int64]:
        """The likeliest class of each image."""
        run = self.attempt.open(graph)

        def logits(x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(run(np.ascontiguousarray(x.numpy())))

        return predict_images(self.model, self.images, logits=logits).predicted

    def held(self, kept: Sequence[Part]) -> _Found | None:
        """What was found, where the gate holds."""
        self.progress("the gate", self.tried, self.tried + 1)
        likeliest, n = self._likeliest(self.attempt.write(kept_tensors(kept))), len(self.labels)
        right = likeliest == self.labels
        self.tried += 1
        lost = paired(self.right, right)
        before, after = (Proportion(int(one.sum()), n) for one in (self.right, right))
        same = Proportion(int((likeliest == self.likeliest).sum()), n)
        self.last = _Found(tuple(kept), before, after, lost, same)
        return self.last if lost.value <= self.most_lost else None

    def fewest(self, order: Sequence[Part]) -> _Found:
        """As few of these in fp32 as hold the gate, from the first on, found by doubling and halving.

        None at all does not hold it. Raises `TriscaleError` where none with weights would be left in int8.
        """
        most = max(place for place, part in enumerate(order) if part.weighted)  # that many leave one
        low, high = 0, min(1, most)
        found = self.held(order[:high]) if high else None
        while found is None and high < most:
            low, high = high, min(2 * high, most)
            found = self.held(order[:high])
        if found is None:
            raise TriscaleError(self._refused(len(order)))
        while high - low > 1:
            middle = (low + high) // 2
            better = self.held(order[:middle])
            low, high, found = (middle, high, found) if better is None else (low, middle, better)
        return found

    def _refused(self, parts: int) -> str:
        assert self.last is not None
        kept = f"with {len(self.last.kept)} of {parts} layers in fp32 it still loses" if self.last.kept else "it loses"
        return (
            f"int8: {kept} {self.last.lost}, and {100 * self.most_lost:g} may be lost; export the network in fp32, or "
            "allow more"
        )


def _in_turns(runs: Sequence[Runner], x: Array, threads: int, target: Target) -> tuple[Latency, Latency, Estimate]:
    """The latency of both on one image, and by how much the second is faster; in turns, so that a busy moment falls on
    both."""
    passes = [partial(run, x) for run in runs]
    for one in passes:
        turns.warm_up(one, WARM_UP)
    taken = turns.take_turns([partial(turns.seconds, one) for one in passes], ENOUGH)
    told = partial(Latency.of, device="cpu", threads=threads, engine=target.name)
    fp32, int8 = told(taken[0], precision="fp32"), told(taken[1], precision="int8")
    return fp32, int8, median_of([a - b for a, b in zip(*taken, strict=True)])


def median_of(values: Sequence[float]) -> Estimate:
    """The median and the 95 % interval between two of the sorted values that holds it whatever their distribution is,
    as the binomial distribution says (David and Nagaraja 2003, section 7.1); their ends where they are under six."""
    n, ordered = len(values), sorted(values)
    outside, place = 0.5**n, 0
    while outside <= 0.025:
        place += 1
        outside += math.comb(n, place) * 0.5**n
    first = max(place - 1, 0)
    return Estimate(median(ordered), ordered[first], ordered[n - 1 - first])
