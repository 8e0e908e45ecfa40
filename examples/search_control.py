"""Searches and their controls at equal cost: what is proposed by what was learned, against what is drawn at random.

    python examples/search_control.py IMAGES --out DIR --macs 5M --candidates 80 --images 26600 --epochs 9 --seeds 3

For every seed DIR/evolution-SEED tries that many candidates; then DIR/random-SEED draws from the same space until it
has passed over the training images as often, the final repeats left out. Both are `triscale search`: halved and
repeated in the same way, and what is finished is kept, so that the script goes on wherever it ended. Prints a table in
Markdown: passes, minutes of training, and by how much each winner is better than the reference on the validation
images. `examples/contest.py` then trains the winners from scratch.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triscale.searching import SearchListener, Standing, resume_search, search_network
from triscale.trials import Progress
from triscale.units import parse_count

Values = Mapping[str, Any]


class Told(SearchListener):
    """A line for every trial that ended."""

    def __init__(self, name: str) -> None:
        self.name, self.done = name, -1

    def progress(self, progress: Progress, standing: Standing) -> None:
        if progress.done != self.done and progress.last is not None:
            self.done = progress.done
            label, outcome = progress.last
            print(f"{self.name}: {label}: {outcome.selection:.2%}", file=sys.stderr, flush=True)


def passes(found: Values) -> int:
    """Over the training images, of all candidates before the final repeats."""
    runs = [run for one in found["candidates"] for run in one["runs"]]
    return sum(run["epochs"] for run in runs if run["seed"] == runs[0]["seed"])


def searched(place: Path, strategy: str, seed: int, asked: argparse.Namespace, candidates: int) -> Values:
    """What the search there found, begun or gone on with where it is not finished with so many candidates."""
    kept, told = place / "search.json", Told(place.name)
    if kept.is_file() and json.loads(kept.read_text("utf-8"))["asked"]["candidates"] >= candidates:
        pass
    elif (place / "run.json").is_file():
        resume_search(place, candidates=candidates, listener=told)
    else:
        search_network(
            asked.data,
            out=place,
            macs=asked.macs,
            candidates=candidates,
            images=asked.images,
            epochs=asked.epochs,
            strategy=strategy,
            seed=seed,
            workers=asked.workers,
            listener=told,
        )
    values: Values = json.loads(kept.read_text("utf-8"))
    return values


def controlled(seed: int, asked: argparse.Namespace) -> tuple[Values, Values]:
    """A search, and its control with as many passes or a few more; with fewer where its space holds no more."""
    search = searched(asked.out / f"evolution-{seed}", "evolution", seed, asked, asked.candidates)
    wanted, candidates = passes(search), asked.candidates
    control = searched(asked.out / f"random-{seed}", "random", seed, asked, candidates)
    while passes(control) < wanted and not control["used_up"]:
        tried = control["asked"]["candidates"]  # those that could not be trained included
        candidates = tried + max(1, math.ceil((wanted - passes(control)) * tried / passes(control)))
        control = searched(asked.out / f"random-{seed}", "random", seed, asked, candidates)
    return search, control


def row(seed: int, found: Values) -> str:
    """A line of the table."""
    gain = found["gain"]  # none where the reference is the best
    winner = next(one for one in (found["reference"], *found["candidates"]) if one["order"] == found["winner"])
    apart = " | ".join("" if gain is None else f"{100 * gain[bound]:+.2f}" for bound in range(3))
    trained = found["time"]["trained"] / 60
    return (
        f"| {seed} | {found['strategy']} | {len(found['candidates'])} | {passes(found)} | {trained:.0f} | "
        f"{100 * winner['accuracy'][0]:.2f} | {apart} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--macs", type=lambda text: parse_count(text, "--macs"), required=True)
    parser.add_argument("--candidates", type=int, default=80)
    parser.add_argument("--images", type=int, default=26600)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    print("| seed | proposed by | candidates | passes | worker-minutes | winner, % | over the reference | from | to |")
    print("| ---: | --- " + "| ---: " * 7 + "|", flush=True)
    for seed in range(asked.seeds):
        for found in controlled(seed, asked):
            print(row(seed, found), flush=True)


if __name__ == "__main__":
    main()
