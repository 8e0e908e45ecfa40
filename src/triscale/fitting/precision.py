"""In which precision a trained model answers where nobody names one: half, once images show that it costs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from triscale.data import Batches, Prepared
from triscale.data.chance import sample
from triscale.engines import running
from triscale.engines.native import available
from triscale.errors import TriscaleError
from triscale.evaluating.pairing import paired
from triscale.models.model import Model
from triscale.precision import HalfPrecision, Precision
from triscale.stats import PairedDifference, Proportion

LOST_AT_WORST: Final = 0.005  # of the accuracy, where the interval ends: nobody asked to lose any
MOST = 5_000  # images
SHARE = 0.01  # of the images that training looked at: what judging may take beside it
BATCH = 256
_JUDGED = 0xB16
_NOT_HERE = "Triscale's engine has none on the processor that trained the model"


@dataclass(frozen=True, slots=True)
class Half:
    """What half precision costs a model on validation images, computed by Triscale's engine.

    precision: bf16 or fp16, in which the processor that trained it is faster; None where it is in neither. why: it was
    not judged, if it was not. lost: how many images only fp32 names right, and how many only the other. same: how many
    get the same class. most_lost: of the accuracy, below which the interval of what is lost has to end.
    """

    precision: HalfPrecision | None = None
    why: str | None = None
    lost: PairedDifference | None = None
    same: Proportion | None = None
    most_lost: float = LOST_AT_WORST

    @property
    def holds(self) -> bool:
        """Whether it surely (95 %) costs less than that: half a point."""
        return self.lost is not None and self.lost.interval()[1] <= self.most_lost

    @property
    def answers(self) -> Precision:
        """In which precision the model answers where the processor has it and nobody names one."""
        return self.precision if self.holds and self.precision is not None else "fp32"

    def to_json(self) -> dict[str, Any]:
        """As run.json holds it."""
        if self.lost is None or self.same is None:
            return {"precision": self.precision, "holds": False, "why": self.why}
        low, high = self.lost.interval()
        return {
            "precision": self.precision,
            "holds": self.holds,
            "why": None,
            "images": self.lost.n,
            "same_class": self.same.count,
            "only_fp32_right": self.lost.first,
            "only_half_right": self.lost.second,
            "lost": self.lost.value,
            "lost_interval_95": [low, high],
            "most_lost": self.most_lost,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Half":
        """As `to_json` wrote it."""
        if values["why"] is not None:
            return cls(values["precision"], values["why"])
        n = values["images"]
        lost = PairedDifference(values["only_fp32_right"], values["only_half_right"], n)
        return cls(values["precision"], None, lost, Proportion(values["same_class"], n), values["most_lost"])


def judge_half(model: Model, held_out: Prepared, *, looked_at: int, seed: int) -> Half:
    """The trained model in fp32 and in the half precision of this processor, on at most 5,000 validation images.

    looked_at: images that training has looked at, again and again; a hundredth of as many are taken here, so that
    judging a model takes little beside training it. Not judged are models where our engine has no half precision, and
    models with so few images that half a point could not be told from none. Nothing that goes wrong in judging is an
    error: the model then answers in fp32.
    """
    precision = available().half
    if precision is None:
        return Half(None, _NOT_HERE)
    validation, share = len(held_out.images), int(SHARE * looked_at)
    n = min(validation, MOST, share)
    if n < fewest():
        which = "validation images" if n == validation else "images, a hundredth of what training looked at,"
        return Half(precision, f"{n:,} {which} cannot tell whether it costs half a point; {fewest():,} could")
    some = held_out if n == validation else held_out.select(sample((seed, _JUDGED), validation, n))
    try:
        exact, quick = _answers(model, some, precision)
    except (TriscaleError, MemoryError) as error:
        return Half(precision, " ".join(str(error).split()) or type(error).__name__)
    labels = some.images.labels
    return Half(
        precision,
        lost=paired(exact == labels, quick == labels),
        same=Proportion(int((exact == quick).sum()), n),
    )


def fewest() -> int:
    """With how many images half precision could hold, if it named all of them as fp32 does."""
    return next(n for n in range(1, MOST) if PairedDifference(0, 0, n).interval()[1] <= LOST_AT_WORST)


def _answers(
    model: Model, images: Prepared, precision: HalfPrecision
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The classes in fp32 and in half precision, by the engine that answers on CPUs, wherever the model lies."""
    exact, quick = (np.empty(len(images.images), np.int64) for _ in range(2))
    place = next(model.parameters()).device
    model.to("cpu")
    try:
        with running(model, engine="native") as slow, running(model, engine="native", precision=precision) as fast:
            for x, _, index in (batch[:3] for batch in Batches(images, model.preprocess, BATCH)):
                seen = model.preprocess.normalise(x)
                for found, logits in ((exact, slow), (quick, fast)):
                    found[index.numpy()] = logits(seen).argmax(1).numpy()
    finally:
        model.to(place)
    return exact, quick
