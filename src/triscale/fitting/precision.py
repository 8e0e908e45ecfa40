"""In which precision a trained model answers where nobody names one: bf16, once images show that it costs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from triscale.data import Batches, Prepared
from triscale.data.chance import sample
from triscale.engines import running
from triscale.engines.table import ENGINES
from triscale.errors import TriscaleError
from triscale.models.model import Model
from triscale.stats import PairedDifference, Proportion

MOST_LOST: Final = 0.005  # of the accuracy, and only where the whole interval lies below it: nobody asked to lose any
MOST = 5_000  # images
SHARE = 0.01  # of the images that training looked at: what judging may take beside it
BATCH = 256
_JUDGED = 0xB16
_NOT_HERE = "Triscale's engine does not compute it on the processor that trained the model"


@dataclass(frozen=True, slots=True)
class Bf16:
    """What bf16 costs a model on validation images, computed by Triscale's engine.

    why: it was not judged, if it was not. lost: how many images only fp32 names right, and how many only bf16. same:
    how many get the same class. most_lost: of the accuracy, below which the interval of what is lost has to end.
    """

    why: str | None = None
    lost: PairedDifference | None = None
    same: Proportion | None = None
    most_lost: float = MOST_LOST

    @property
    def holds(self) -> bool:
        """Whether bf16 surely (95 %) costs less than that: half a point."""
        return self.lost is not None and self.lost.interval()[1] <= self.most_lost

    def to_json(self) -> dict[str, Any]:
        """As run.json holds it."""
        if self.lost is None or self.same is None:
            return {"holds": False, "why": self.why}
        low, high = self.lost.interval()
        return {
            "holds": self.holds,
            "why": None,
            "images": self.lost.n,
            "same_class": self.same.count,
            "only_fp32_right": self.lost.first,
            "only_bf16_right": self.lost.second,
            "lost": self.lost.value,
            "lost_interval_95": [low, high],
            "most_lost": self.most_lost,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> "Bf16":
        """From a run.json; runs of earlier versions say nothing of it."""
        if values is None or values["why"] is not None:
            return cls("an earlier version trained it" if values is None else values["why"])
        n = values["images"]
        lost = PairedDifference(values["only_fp32_right"], values["only_bf16_right"], n)
        return cls(None, lost, Proportion(values["same_class"], n), values["most_lost"])


def judge_bf16(model: Model, held_out: Prepared, *, looked_at: int, seed: int) -> Bf16:
    """The trained model in both precisions, on at most 5,000 of the validation images.

    looked_at: images that training has looked at, again and again; a hundredth of as many are taken here, so that
    judging a model takes little beside training it. Not judged are models where our engine does not compute bf16, and
    models with so few images that half a point could not be told from none. Nothing that goes wrong in judging is an
    error: the model then answers in fp32.
    """
    if ENGINES["native"].missing("bf16") is not None:
        return Bf16(_NOT_HERE)
    validation, share = len(held_out.images), int(SHARE * looked_at)
    n = min(validation, MOST, share)
    if n < fewest():
        which = "validation images" if n == validation else "images, a hundredth of what training looked at,"
        return Bf16(f"{n:,} {which} cannot tell whether it costs half a point; {fewest():,} could")
    some = held_out if n == validation else held_out.select(sample((seed, _JUDGED), validation, n))
    try:
        exact, quick = _answers(model, some)
    except (TriscaleError, MemoryError) as error:
        return Bf16(" ".join(str(error).split()) or type(error).__name__)
    right, still = (one == some.images.labels for one in (exact, quick))
    return Bf16(
        lost=PairedDifference(int((right & ~still).sum()), int((still & ~right).sum()), n),
        same=Proportion(int((exact == quick).sum()), n),
    )


def fewest() -> int:
    """With how many images bf16 could hold, if it named all of them as fp32 does."""
    return next(n for n in range(1, MOST) if PairedDifference(0, 0, n).interval()[1] <= MOST_LOST)


def _answers(model: Model, images: Prepared) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The classes in fp32 and in bf16, by the engine that answers on CPUs, wherever the model lies."""
    exact, quick = (np.empty(len(images.images), np.int64) for _ in range(2))
    place = next(model.parameters()).device
    model.to("cpu")
    try:
        with running(model, engine="native") as slow, running(model, engine="native", precision="bf16") as fast:
            for x, _, index in (batch[:3] for batch in Batches(images, model.preprocess, BATCH)):
                seen = model.preprocess.normalise(x)
                for found, logits in ((exact, slow), (quick, fast)):
                    found[index.numpy()] = logits(seen).argmax(1).numpy()
    finally:
        model.to(place)
    return exact, quick
