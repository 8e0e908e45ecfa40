"""Two recipes on the same network and images, the same number of epochs, the same seeds: which is better here?

    python examples/recipes.py IMAGES NETWORK.json --epochs 12 --seeds 5 --out runs/recipes

A run is a directory; what was interrupted goes on, what is finished is not trained again. Differences are paired by
seed, which decides split, weights and batches; their 95 % interval is Student's.
"""

import argparse
import json
import statistics
from pathlib import Path

from scipy import stats

import triscale


def accuracy(place: Path, images: str, network: str, recipe: str, epochs: int, seed: int) -> float:
    """Of the test images, by a run that is made where it does not lie there yet."""
    settings = place / "run.json"
    if not settings.is_file() or "result" not in json.loads(settings.read_text()):
        triscale.train(images, architecture=network, recipe=recipe, epochs=epochs, seed=seed, out=place, resume=True)
    return float(json.loads(settings.read_text())["result"]["test_accuracy"])


def main() -> None:
    """Prints a line a seed, then the means and the difference."""
    parser = argparse.ArgumentParser(description="Two recipes on the same network, images, epochs and seeds.")
    parser.add_argument("images")
    parser.add_argument("network")
    parser.add_argument("--recipes", nargs=2, default=["modern", "paper"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    asked = parser.parse_args()
    found: dict[str, list[float]] = {recipe: [] for recipe in asked.recipes}
    for seed in range(asked.seeds):
        for recipe, values in found.items():
            place = asked.out / f"{recipe}-{seed}"
            values.append(100 * accuracy(place, asked.images, asked.network, recipe, asked.epochs, seed))
        print(f"seed {seed}: " + ", ".join(f"{recipe} {values[-1]:.2f} %" for recipe, values in found.items()))
    for recipe, values in found.items():
        print(f"{recipe}: mean {statistics.mean(values):.2f} % ({min(values):.2f} to {max(values):.2f})")
    first, second = found.values()
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) > 1:
        half = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
        print(
            f"difference {mean:+.2f} points (95 % interval {mean - half:+.2f} to {mean + half:+.2f}), n = {asked.seeds}"
        )


if __name__ == "__main__":
    main()
