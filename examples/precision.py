"""Is training in bf16 by Triscale's kernels as good as in fp32 by PyTorch? Loss curves and test accuracy, by seed.

    python examples/precision.py IMAGES examples/precision.json --epochs 4 --seeds 0 1 2 3 4 --out runs/precision

One thread. What is finished lies in OUT and is not trained again; several processes may share the seeds among them.
Differences are paired by seed, which decides split, weights and batches; their 95 % interval is Student's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from triscale.data import Data, read
from triscale.fitting.carrying import How
from triscale.fitting.judging import judge, predict_together
from triscale.fitting.listening import Listener
from triscale.fitting.train import Asked, plan_training
from triscale.models.model import Model
from triscale.training import EpochMetrics, Watch, steady_allocator, train

ARMS = {"fp32 by PyTorch": ("fp32", False), "bf16 by kernels": ("bf16", True)}


class Rows(Watch):
    """Keeps the last epoch's rows."""

    rows: Sequence[EpochMetrics] = ()

    def epoch(self, rows: Sequence[EpochMetrics], average: Model) -> None:
        self.rows = tuple(rows)


def trained(images: Data, network: str, arm: str, epochs: int, seed: int) -> dict[str, Any]:
    """Accuracy and loss on the test images, and the epochs."""
    precision, own = ARMS[arm]
    asked = Asked(network, epochs=epochs, seed=seed, deterministic=True)
    draft = plan_training(images, asked, How(Listener()), time.monotonic())
    model, plan = draft.ready.model, draft.plan
    kernels = tuple(model.with_kernels()) if own else ()
    machine = replace(plan.machine, precision=precision, kernels=kernels, deterministic=False)
    watch, held_out = Rows(), draft.ready.held_out
    average = train(
        model, draft.ready.training, plan.recipe, machine,
        seed=seed, validate=lambda judged: judge(judged, held_out, machine), watch=watch,
    )  # fmt: skip
    test = predict_together(average, draft.ready.test)
    return {"accuracy": test.top().value, "loss": test.log_loss()[0], "epochs": [asdict(row) for row in watch.rows]}


def summary(found: dict[str, list[dict[str, Any]]]) -> None:
    """A line an epoch, then what the test images say."""
    for epoch in range(len(next(iter(found.values()))[0]["epochs"])):
        line = []
        for arm, runs in found.items():
            losses = [run["epochs"][epoch]["loss"] for run in runs]
            line.append(f"{arm} {statistics.mean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})")
        print(f"epoch {epoch + 1}, training loss: " + ", ".join(line))
    for what, factor in (("accuracy", 100), ("loss", 1)):
        values = {arm: [factor * run[what] for run in runs] for arm, runs in found.items()}
        for arm, one in values.items():
            spread = statistics.stdev(one) if len(one) > 1 else 0.0
            print(f"test {what}, {arm}: mean {statistics.mean(one):.4g}, standard deviation of seeds {spread:.2g}")
        before, after = values.values()
        differences = [b - a for a, b in zip(before, after, strict=True)]
        if len(differences) > 1:
            mean, n = statistics.mean(differences), len(differences)
            half = stats.t.ppf(0.975, n - 1) * statistics.stdev(differences) / n**0.5
            print(f"difference {mean:+.3g} (95 % interval {mean - half:+.3g} to {mean + half:+.3g}), n = {n}")


def main() -> None:
    """Trains what is missing, then prints what all seeds found."""
    parser = argparse.ArgumentParser(description="bf16 by kernels against fp32 by PyTorch, seed by seed.")
    parser.add_argument("images")
    parser.add_argument("network")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    steady_allocator()
    asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in asked.seeds:
        images = None
        for arm, runs in found.items():
            place = asked.out / f"{arm.replace(' ', '-')}-{seed}.json"
            if not place.exists():
                images = images or read(asked.images, seed=seed)
                place.write_text(json.dumps(trained(images, asked.network, arm, asked.epochs, seed)))
            runs.append(json.loads(place.read_text()))
            print(f"seed {seed}, {arm}: {100 * runs[-1]['accuracy']:.2f} %", flush=True)
    summary(found)


if __name__ == "__main__":
    main()
