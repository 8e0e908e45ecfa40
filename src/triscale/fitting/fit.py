"""`fit`: images and a budget in, a tested model in a run directory out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from triscale.data import Data, read
from triscale.engines import Latency, measure_latency, measure_memory
from triscale.errors import UserError
from triscale.evaluating import Predictions, predict_images
from triscale.fitting.plan import Draft, Plan, PlanListener, judge, make_plan
from triscale.fitting.scratch import Scratch, gain, scratch_values, train_scratch
from triscale.fitting.wish import Baseline, Wish, make_wish
from triscale.models.model import Model, load
from triscale.reporting import write_report
from triscale.runs import RunDirectory, write_whole
from triscale.stats import PairedDifference
from triscale.training import EpochMetrics, Step, describe, steady_allocator, train


class Listener(PlanListener):
    """Told what happens, as it happens; does nothing with it. Whoever wants to show progress overrides a method."""

    def reading(self, done: int, total: int) -> None:
        """So many of the images were checked."""

    def read(self, data: Data) -> None:
        """All images were checked."""

    def planned(self, plan: Plan, run: RunDirectory) -> None:
        """The plan is frozen; training starts."""

    def step(self, step: Step) -> None:
        """A training step was made."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch ended and was validated."""

    def scratch(self) -> None:
        """The training from scratch begins, which the first one is compared with."""


@dataclass(frozen=True)
class Fitted:
    """A finished run.

    test: what the model said of the test images. achieved: what it costs in each limited term, latency and memory
    measured on the trained model. latency: here, whether or not it was limited. steps: as made; fewer than planned
    where the machine became too slow for the time, or validation got no better. kept: the epoch whose weights these
    are. scratch: the same network without the weights that it started from, where it was trained. leaks: test images
    that are exact copies of images learned from. imbalance: training images of the largest class over those of the
    smallest. peak_memory: bytes of a CUDA device.
    """

    run: RunDirectory
    model: Model
    plan: Plan
    test: Predictions
    achieved: dict[str, float]
    latency: Latency
    steps: int
    kept: int
    scratch: Scratch | None
    leaks: int
    imbalance: float
    peak_memory: int | None
    seconds: float

    @property
    def gain(self) -> PairedDifference | None:
        """By how much it is better than from scratch, on the same test images."""
        return None if self.scratch is None else gain(self.test, self.scratch.test)


def fit(
    data: str | Path,
    *,
    out: str | Path,
    macs: float | None = None,
    params: float | None = None,
    activations: float | None = None,
    size: float | None = None,
    latency: float | None = None,
    memory: float | None = None,
    time: float | None = None,
    epochs: int | None = None,
    baseline: Baseline | Sequence[Baseline] | None = None,
    rule: str | None = None,
    batch: int | None = None,
    flip: bool | None = None,
    balance: bool = False,
    seed: int = 0,
    device: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
    weights: str | Path | Model | None = None,
    scratch: bool = True,
    listener: Listener | None = None,
) -> Fitted:
    """The best network within the limits, trained on the images and tested on held-out ones.

    data: class folders, a manifest or IDX files. out: a new or empty directory for the run. macs, params, activations,
    size (bytes of fp32 weights), latency (seconds for one image, median, measured here), memory (bytes at the peak of
    running one image, measured here): the budget, at least one of them; all hold. time: seconds of wall clock for all
    of it; decides the epochs, and how large the network may be. epochs: without a time 20. baseline: one or several
    networks to scale, of which the plan takes one; by default `CANDIDATES`. rule: how to scale; see
    `candidates.scale_to` for what is taken without one. flip: whether images are mirrored; by default those with
    colours. balance: every class weighs the same in the loss. weights: what the training starts from, as `load` takes
    it: they fix the network, get a new head, and no budget is needed. scratch: with weights, the same network is
    trained from scratch as well, and the difference reported. Raises `UserError` for what was asked wrongly, before
    anything is written; `TriscaleError` where the work itself fails.
    """
    limits = {
        "macs": macs,
        "params": params,
        "activations": activations,
        "size": size,
        "latency": latency,
        "memory": memory,
    }
    wish = make_wish(
        limits,
        baseline=baseline,
        rule=rule,
        time=time,
        epochs=epochs,
        batch=batch,
        flip=flip,
        balance=balance,
        seed=seed,
        device=device,
        on_bad=on_bad,
        weights=weights,
        scratch=scratch,
    )
    return carry_out(data, out, wish, listener or Listener())


def draft(data: str | Path, wish: Wish, listener: Listener, out: str | Path | None = None) -> Draft:
    """What `carry_out` would do, and everything that it starts from; nothing is written."""
    if out is not None:
        _check_apart(Path(data), RunDirectory.check_free(out))
    return _draft(data, wish, listener, time.monotonic())


def carry_out(data: str | Path, out: str | Path, wish: Wish, listener: Listener) -> Fitted:
    """The wish fulfilled in a new run directory; see `fit`."""
    started = time.monotonic()
    _check_apart(Path(data), RunDirectory.check_free(out))
    drafted = _draft(data, wish, listener, started)
    plan, images = drafted.plan, drafted.images

    run = RunDirectory.create(out)
    settings = _settings(images, plan, wish.on_bad)
    run.write_settings(settings)
    run.write_splits(_splits(images, wish))
    listener.planned(plan, run)

    trained, steps, kept = _train(drafted, run, listener, started)
    peak = torch.cuda.max_memory_allocated(wish.device) if wish.device.type == "cuda" else None
    trained.save(run.model)
    # In fp32, as whoever loads the model runs it: `eval` gives the same figure again.
    test = predict_images(trained, drafted.test)
    write_whole(run.predictions, test.to_csv())
    scratch = _from_scratch(drafted, run, listener, started)
    latency, achieved = _achieved(run, plan, wish.device)
    fitted = Fitted(
        run=run,
        model=trained,
        plan=plan,
        test=test,
        achieved=achieved,
        latency=latency,
        steps=steps,
        kept=kept,
        scratch=scratch,
        leaks=images.leaks,
        imbalance=images.imbalance()[0],
        peak_memory=peak,
        seconds=time.monotonic() - started,
    )
    run.write_settings({**settings, "result": _result(fitted)})
    write_report(run, test, images.test)
    return fitted


def _draft(data: str | Path, wish: Wish, listener: Listener, started: float) -> Draft:
    images = read(data, seed=wish.seed, on_bad=wish.on_bad, progress=listener.reading)
    if wish.learned_before:
        images = images.knowing(bytes.fromhex(digest) for digest in wish.learned_before.values())
    listener.read(images)
    steady_allocator()
    return make_plan(images, wish, started, listener)


def _check_apart(data: Path, out: Path) -> None:
    """A run inside the images' folder would be taken for one more class the next time."""
    if data.is_dir() and data.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out}: lies inside the images' folder {data}; name a directory outside it")


def _train(drafted: Draft, run: RunDirectory, listener: Listener, started: float) -> tuple[Model, int, int]:
    """The trained model, the number of steps that were made, and the epoch whose weights are kept."""
    plan = drafted.plan
    seen: list[EpochMetrics] = []

    def on_epoch(metrics: EpochMetrics, average: Model) -> None:
        seen.append(metrics)
        run.add_metrics(asdict(metrics))
        average.save(run.checkpoint)
        listener.epoch(metrics)

    model = train(
        drafted.model,
        drafted.training,
        plan.recipe,
        plan.machine,
        seed=plan.seed,
        validate=lambda average: judge(average, drafted.held_out, plan.machine),
        deadline=plan.deadline(started),
        on_epoch=on_epoch,
        on_step=listener.step,
    )
    return model, seen[-1].step, seen[-1].kept or seen[-1].epoch


def _from_scratch(drafted: Draft, run: RunDirectory, listener: Listener, started: float) -> Scratch | None:
    if drafted.plan.scratch is None:
        return None
    listener.scratch()
    scratch = train_scratch(drafted, started, listener.epoch, listener.step)
    write_whole(run.scratch_predictions, scratch.test.to_csv())
    return scratch


def _achieved(run: RunDirectory, plan: Plan, device: torch.device) -> tuple[Latency, dict[str, float]]:
    """What the saved model takes here, and its cost in each limited term: measured anew where it is measured."""
    model = load(run.model)
    latency = measure_latency([model], device=device)[0]
    values = dict(plan.scaled.values or {})
    if "latency" in values:
        values["latency"] = latency.median
    if "memory" in values:
        values["memory"] = float(measure_memory(model, device=device))
    return latency, values


def _splits(data: Data, wish: Wish) -> Iterator[tuple[str, str, str]]:
    """Which image went where, and what the weights had learned from before."""
    for split, pictures in data.splits().items():
        for name, digest in zip(pictures.names, pictures.digests, strict=True):
            yield name, split, digest.hex()
    for name, known in wish.learned_before.items():
        yield name, "before", known


def _settings(data: Data, plan: Plan, on_bad: str) -> dict[str, Any]:
    return {
        "triscale": version("triscale"),
        "versions": describe(),
        "data": {
            "path": str(data.path.resolve()),
            "kind": data.kind,
            "on_bad": on_bad,
            "fingerprint": data.fingerprint,
            "test_fingerprint": data.test_fingerprint(),
            "classes": list(data.classes),
            "size": list(data.size),
            "uniform": data.uniform,
            "channels": data.channels,
            "counts": data.counts(),
            "skipped": [asdict(bad) for bad in data.skipped],
            "leaks": data.leaks,
            "duplicates": data.duplicates,
        },
        "plan": plan.to_dict(),
    }


def _result(fitted: Fitted) -> dict[str, Any]:
    top = fitted.test.top()
    low, high = top.interval()
    return {
        "test_images": top.n,
        "test_accuracy": top.value,
        "test_accuracy_interval_95": [low, high],
        "leaks": fitted.leaks,
        "balanced_accuracy": fitted.test.balanced(),
        "imbalance": fitted.imbalance,
        "steps": fitted.steps,
        "kept_epoch": fitted.kept,
        "scratch": None
        if fitted.scratch is None
        else {
            **scratch_values(fitted.scratch, fitted.test),
            "metrics": [asdict(metrics) for metrics in fitted.scratch.metrics],
        },
        "budget": {
            term: {"limit": limit, "value": fitted.achieved[term], "used": fitted.achieved[term] / limit}
            for term, limit in (fitted.plan.scaled.limits or {}).items()
        },
        "latency": asdict(fitted.latency),
        "test_top5": fitted.test.top(5).value if len(fitted.model.classes) > 5 else None,
        "seconds": round(fitted.seconds, 2),
        "peak_device_memory": fitted.peak_memory,
    }
