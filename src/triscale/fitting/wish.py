"""What somebody asks of a fit, checked before a single image is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from triscale.arch import Architecture, resolve, to_dict
from triscale.arch.resolve import MODEL_FILE
from triscale.asking import check_seed, check_time
from triscale.engines.logits import engine_for
from triscale.engines.table import ENGINES
from triscale.errors import UserError
from triscale.models import Model, learned
from triscale.runs import RunDirectory
from triscale.scaling import Rule, find_rule
from triscale.scaling.budget import check_limits
from triscale.training.asking import check_training
from triscale.training.machine import find_device
from triscale.weights import Provenance, run_meant
from triscale.weights.reading import sha256_of

CANDIDATES = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet18")
Baseline = str | Path | Architecture


@dataclass(frozen=True)
class Wish:
    """Limits by term (at least one, without weights), seconds of wall clock or none, and how to train; None lets the
    plan decide.

    asked: what it was made from, as JSON. weights: a model to start from; it fixes the network. scratch: whether that
    network is trained from scratch as well. started_from: whose weights they are. learned_before: the images that they
    were learned from, where a run says so: name there → hex digest. engine: what latency is measured with; None for
    what `predict` takes.
    """

    asked: Mapping[str, Any]
    limits: Mapping[str, float]
    baselines: tuple[Architecture, ...]
    rule: Rule | None
    time: float | None
    epochs: int | None
    batch: int | None
    flip: bool | None
    balance: bool
    seed: int
    device: torch.device
    on_bad: Literal["error", "skip"]
    weights: Model | None = None
    scratch: bool = False
    started_from: Provenance | None = None
    learned_before: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a fit is called with, see `fit`; None leaves it to the images and the machine."""

    limits: Mapping[str, float]
    baseline: Baseline | Sequence[Baseline] | None = None
    rule: str | Rule | None = None
    time: float | None = None
    epochs: int | None = None
    batch: int | None = None
    flip: bool | None = None
    balance: bool = False
    seed: int = 0
    device: str | None = None
    on_bad: Literal["error", "skip"] = "error"
    weights: str | Path | Model | None = None
    scratch: bool = True
    engine: str | None = None

    def wish(self) -> Wish:
        """With names resolved. Raises `UserError` for whatever can be wrong without looking at an image."""
        weights = self.weights
        if self.limits or weights is None:
            check_limits(self.limits)
        self._check_one_start()
        check_time(self.time, "10m")
        check_seed(self.seed)
        check_training(self.device, self.epochs, self.batch)
        started = None if weights is None else learned(weights)
        source = None if isinstance(weights, Model) or weights is None else run_meant(weights)
        baselines = _baselines(self.baseline if started is None else started.architecture)
        return Wish(
            asked=self._with(baselines) | ({"scratch": None} if started is None else {}),  # files may change meanwhile
            limits=dict(self.limits),
            baselines=baselines,
            rule=None if self.rule is None else find_rule(self.rule),
            time=self.time,
            epochs=self.epochs,
            batch=self.batch,
            flip=self.flip,
            balance=self.balance,
            seed=self.seed,
            device=find_device(self.device),
            engine=_engine(self.engine, find_device(self.device)),
            on_bad=self.on_bad,
            weights=started,
            scratch=self.scratch and started is not None,
            started_from=None if started is None else _started_from(weights, started, source),
            learned_before={} if source is None else _learned(source),
        )

    def values(self) -> dict[str, Any]:
        """As JSON, each limit in a place of its own, to be compared when the run goes on. Networks count by what they
        are, rules and weights by what they are called. Raises `UserError` for networks that cannot be read, and where
        weights are named beside something to scale."""
        self._check_one_start()
        return self._with(() if self.weights is not None else _baselines(self.baseline))

    def _check_one_start(self) -> None:
        if self.weights is not None and (self.baseline is not None or self.rule is not None):
            too = "--rule" if self.baseline is None else "--baseline"
            raise UserError(f"--weights {self.weights}: fix the network, so there is nothing to scale; leave {too} out")

    def _with(self, baselines: Sequence[Architecture]) -> dict[str, Any]:
        return {
            "verb": "fit",
            **self.limits,
            "baseline": None if self.weights is not None else [to_dict(one) for one in baselines],
            "rule": self.rule if self.rule is None or isinstance(self.rule, str) else self.rule.name,
            "time": self.time,
            "epochs": self.epochs,
            "batch": self.batch,
            "flip": self.flip,
            "balance": self.balance,
            "seed": self.seed,
            "device": find_device(self.device).type,
            "on_bad": self.on_bad,
            "weights": None if isinstance(self.weights, Model) or self.weights is None else str(self.weights),
            "scratch": self.scratch,
            "engine": self.engine,
        }


def _engine(name: str | None, device: torch.device) -> str | None:
    """The engine that was named. Raises `UserError` where it is not here, or no use for planning."""
    quick = ", ".join(one for one, kind in ENGINES.items() if not kind.slow)
    if name is not None and name not in ENGINES:
        raise UserError(f"--engine {name!r}: no such engine; there are {quick}")
    if name is not None and ENGINES[engine_for(device, name)].slow:
        raise UserError(f"--engine {name}: takes minutes before its first answer; take one of {quick}")
    return name


def _started_from(weights: str | Path | Model | None, model: Model, source: RunDirectory | None) -> Provenance:
    """Whose weights; of what was learned here which run or file it is, and what that started from."""
    before = model.provenance
    if before is not None and source is None:
        return before
    if weights is None or isinstance(weights, Model):
        return Provenance(None, "triscale", "a model in memory", "")
    path = Path(weights)
    return Provenance(
        name=None,
        project="triscale",
        file=(path if source is None else source.path).resolve().name,
        sha256=sha256_of(path / MODEL_FILE if path.is_dir() else path),
        source=None if before is None else f"a run that started from {before.name or before.file}",
        licence=None if before is None else before.licence,
        trained_on=None if before is None else before.trained_on,
    )


def _learned(run: RunDirectory) -> dict[str, str]:
    """What a run learned from or chose by, and what its weights had before: none of it is news to them."""
    return {
        f"{run.path.resolve().name}: {name}": digest
        for name, (split, digest) in run.splits().items()
        if split != "test"
    }


def _baselines(named: Baseline | Sequence[Baseline] | None) -> tuple[Architecture, ...]:
    if named is None:
        named = CANDIDATES
    several = [named] if isinstance(named, str | Path | Architecture) else list(named)
    found = [name if isinstance(name, Architecture) else resolve(name) for name in several]
    if not found:
        raise UserError("no baseline to scale; name at least one")
    for index, architecture in enumerate(found):
        if architecture in found[:index]:
            raise UserError(f"--baseline {architecture.name} is named twice; name each once")
    return tuple(found)
