"""Prediction tables for tests: random ones with ties, empty classes and classes that nothing is called, and runs that
hold a table without any training."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from triscale.evaluating import Predictions, Table
from triscale.runs import RunDirectory


def predictions(n: int, classes: int, seed: int, *, ties: bool = False) -> Predictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), n)
    if ties:
        probabilities = np.round(probabilities * 4) / 4
    names = tuple(f"{i}.png" for i in range(n))
    digests = tuple(hashlib.sha256(name.encode()).digest() for name in names)
    labels = rng.integers(0, classes, n)
    return Predictions(names, labels, probabilities.astype(np.float32), tuple(f"c{i}" for i in range(classes)), digests)


def random_predictions(most: int = 60) -> st.SearchStrategy[Predictions]:
    """Few images over many classes leave classes empty, and ones that nothing is called."""
    return st.builds(predictions, st.integers(1, most), st.integers(2, 12), st.integers(0, 10_000), ties=st.booleans())


def made_run(path: Path, table: Table, *, data: Path, seed: int = 0, learned: dict[str, bytes] | None = None) -> Path:
    """A run directory with a table, as far as `eval` and `compare` look at one."""
    path.mkdir(parents=True)
    settings = {
        "data": {"path": str(data), "on_bad": "error", "classes": list(table.classes)},
        "plan": {"seed": seed},
    }
    (path / "run.json").write_text(json.dumps(settings))
    run = RunDirectory.open(path)
    rows = [(name, "train", digest.hex()) for name, digest in (learned or {}).items()]
    rows += [(name, "test", digest.hex()) for name, digest in zip(table.names, table.digests, strict=True)]
    run.write_splits(rows)
    run.predictions.write_text(table.to_csv())
    return path


def four_columns(text: str) -> str:
    """The same table as an earlier version wrote it."""
    rows = list(csv.DictReader(text.splitlines()))
    lines = [f"{row['name']},{row['label']},{row['predicted']},{float(row['confidence']):.4f}" for row in rows]
    return "\n".join(["name,label,predicted,confidence", *lines, ""])
