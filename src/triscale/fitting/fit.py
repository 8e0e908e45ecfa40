"""`fit`: images and a budget in, a tested model in a run directory out."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from triscale.arch import Architecture, resolve
from triscale.data import Data, prepare, read
from triscale.errors import UserError
from triscale.evaluating import Predictions, predict_images
from triscale.fitting.plan import (
    Plan,
    check_recipe,
    make_network,
    make_preprocess,
    make_recipe,
)
from triscale.models.model import Model, new
from triscale.reporting import write_report
from triscale.runs import RunDirectory, write_whole
from triscale.scaling import Budget, Scaled, find_rule
from triscale.training import EpochMetrics, describe, fastest_machine, steady_allocator, train
from triscale.training.engine import Step, augmentation, steps_per_epoch
from triscale.training.machine import find_device
from triscale.units import format_bytes


class Listener:
    """Told what happens, as it happens; does nothing with it. Whoever wants to show progress overrides a method."""

    def reading(self, done: int, total: int) -> None:
        """So many of the images were checked."""

    def read(self, data: Data) -> None:
        """All images were checked."""

    def preparing(self, done: int, total: int) -> None:
        """So many of a split's images were decoded for training."""

    def planned(self, plan: Plan, run: RunDirectory) -> None:
        """The plan is frozen; training starts."""

    def step(self, step: Step) -> None:
        """A training step was made."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch ended and was validated."""


@dataclass(frozen=True)
class Fitted:
    """A finished run: where it lies, the model, what it was planned as, what it said of the test images."""

    run: RunDirectory
    model: Model
    plan: Plan
    test: Predictions
    seconds: float


def fit(
    data: str | Path,
    *,
    out: str | Path,
    macs: float | None = None,
    params: float | None = None,
    activations: float | None = None,
    size: float | None = None,
    epochs: int = 20,
    baseline: str | Path | Architecture = "efficientnet_b0",
    rule: str | None = None,
    batch: int | None = None,
    flip: bool | None = None,
    seed: int = 0,
    device: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
    listener: Listener | None = None,
) -> Fitted:
    """The best network of the baseline's family within the limits, trained on the images and tested on held-out ones.

    data: class folders, a manifest or IDX files. out: a new or empty directory for the run. macs, params, activations,
    size (bytes of fp32 weights): the budget, at least one of them. rule: how to scale; see `plan.scale_to` for what is
    taken without one. flip: whether images are mirrored; by default those with colours. Raises `UserError` for what
    was asked wrongly, before anything is written; `TriscaleError` where the work itself fails.
    """
    terms = {"macs": macs, "params": params, "activations": activations, "size": size}
    limits = {term: limit for term, limit in terms.items() if limit is not None}
    started, listener = time.perf_counter(), listener or Listener()
    # Whatever can be wrong without looking at a single image is found before thousands are checked.
    budget, where = Budget(limits), find_device(device)
    growth = None if rule is None else find_rule(rule)
    network = baseline if isinstance(baseline, Architecture) else resolve(baseline)
    check_recipe(epochs, batch)
    _check_apart(Path(data), RunDirectory.check_free(out))

    images = read(data, seed=seed, on_bad=on_bad, progress=listener.reading)
    listener.read(images)
    scaled, architecture = make_network(images, network, growth, budget)
    preprocess = make_preprocess(images, architecture)
    recipe = make_recipe(images, epochs, batch, flip)
    _check_memory(scaled, recipe.batch, where)
    steady_allocator()
    model = new(architecture, images.classes, preprocess, seed=seed)
    machine = fastest_machine(model, min(recipe.batch, len(images.train)), where)
    steps = steps_per_epoch(len(images.train), recipe.batch) * recipe.epochs
    plan = Plan(scaled, architecture, preprocess, recipe, machine, steps, seed)

    run = RunDirectory.create(out)
    settings = _settings(images, plan, on_bad)
    run.write_settings(settings)
    run.write_splits(_splits(images))
    listener.planned(plan, run)

    trained = _train(model, images, plan, run, listener)
    trained.save(run.model)
    # In fp32, as whoever loads the model runs it: `eval` gives the same figure again.
    test = predict_images(trained, images.test)
    write_whole(run.predictions, test.to_csv())
    fitted = Fitted(run, trained, plan, test, time.perf_counter() - started)
    run.write_settings({**settings, "result": _result(fitted)})
    write_report(run, test)
    return fitted


def _check_apart(data: Path, out: Path) -> None:
    """A run inside the images' folder would be taken for one more class the next time."""
    if data.is_dir() and data.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out}: lies inside the images' folder {data}; name a directory outside it")


def _check_memory(scaled: Scaled, batch: int, device: torch.device) -> None:
    """An estimate, before hours are lost: what training takes against what the device has in all."""
    needed = scaled.cost.memory.training(batch)
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).total_memory
    else:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise UserError(
            f"training on batches of {batch} takes about {format_bytes(needed)} of memory, and there are "
            f"{format_bytes(available)}; lower --batch or the budget"
        )


def _train(model: Model, images: Data, plan: Plan, run: RunDirectory, listener: Listener) -> Model:
    show = listener.preparing
    training = prepare(images.train, plan.preprocess, augmentation(plan.recipe), progress=show)
    held_out = prepare(images.val, plan.preprocess, progress=show)

    def validate(average: Model) -> float:
        return predict_images(average, held_out, precision=plan.machine.precision).top().value

    def on_epoch(metrics: EpochMetrics, average: Model) -> None:
        run.add_metrics(asdict(metrics))
        average.save(run.checkpoint)
        listener.epoch(metrics)

    return train(
        model,
        training,
        plan.recipe,
        plan.machine,
        seed=plan.seed,
        validate=validate,
        on_epoch=on_epoch,
        on_step=listener.step,
    )


def _splits(data: Data) -> Iterator[tuple[str, str, str]]:
    for split, pictures in data.splits().items():
        for name, digest in zip(pictures.names, pictures.digests, strict=True):
            yield name, split, digest.hex()


def _settings(data: Data, plan: Plan, on_bad: str) -> dict[str, Any]:
    return {
        "triscale": version("triscale"),
        "versions": describe(),
        "data": {
            "path": str(data.path.resolve()),
            "kind": data.kind,
            "on_bad": on_bad,
            "fingerprint": data.fingerprint,
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
        "test_top5": fitted.test.top(5).value if len(fitted.model.classes) > 5 else None,
        "seconds": round(fitted.seconds, 2),
        "peak_device_memory": torch.cuda.max_memory_allocated() if fitted.plan.machine.device != "cpu" else None,
    }
