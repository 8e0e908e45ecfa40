"""What came out of a run, as objects and as the plain values that run.json keeps and `--json` answers."""

from dataclasses import asdict, dataclass
from typing import Any

from triscale.engines import Latency
from triscale.evaluating import Predictions
from triscale.fitting.frozen import Frozen
from triscale.fitting.precision import Half
from triscale.fitting.scratch import Scratch
from triscale.models.model import Model
from triscale.runs import RunDirectory
from triscale.stats import PairedDifference
from triscale.training import EpochMetrics


@dataclass(frozen=True)
class Fitted:
    """A finished run.

    test: what the model said of the test images. achieved: what it costs in each limited term, latency and memory
    measured on the trained model. latency: here, whether or not it was limited, in fp32. half: what answering in it
    costs, and so whether the model does where nobody names a precision. steps: as made; fewer than planned
    where the machine became too slow for the time, or validation got no better. kept: the epoch whose weights these
    are. scratch: the same network without the weights that it started from, where it was trained. leaks: test images
    that are exact copies of images learned from. imbalance: training images of the largest class over those of the
    smallest. peak_memory: bytes of a CUDA device. seconds: of planning, training and what follows, all sittings
    together. metrics: of every epoch.
    """

    run: RunDirectory
    model: Model
    plan: Frozen
    test: Predictions
    achieved: dict[str, float]
    latency: Latency
    half: Half
    steps: int
    kept: int
    scratch: Scratch | None
    leaks: int
    imbalance: float
    peak_memory: int | None
    seconds: float
    metrics: tuple[EpochMetrics, ...]

    @property
    def gain(self) -> PairedDifference | None:
        """By how much it is better than from scratch, on the same test images."""
        return None if self.scratch is None else self.scratch.gain

    def to_json(self) -> dict[str, Any]:
        """The result in run.json: all that training and testing found out."""
        top = self.test.top()
        return {
            "test_accuracy": top.value,
            "test_accuracy_interval_95": list(top.interval()),
            "test_top5": self.test.top(5).value if len(self.model.classes) > 5 else None,
            "test_images": top.n,
            "leaks": self.leaks,
            "balanced_accuracy": self.test.balanced(),
            "imbalance": self.imbalance,
            "steps": {"planned": self.plan.steps, "made": self.steps},
            "kept_epoch": self.kept,
            "scratch": None if self.scratch is None else self.scratch.to_json(),
            "budget": {
                term: {"limit": limit, "value": self.achieved[term], "used": self.achieved[term] / limit}
                for term, limit in (self.plan.scaled.limits or {}).items()
            },
            "latency": asdict(self.latency),
            "half": self.half.to_json(),
            "seconds": round(self.seconds, 2),
            "peak_device_memory": self.peak_memory,
        }
