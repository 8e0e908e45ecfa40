"""`fit`: images and a budget in, a tested model in a run directory out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from triscale.data import check_apart, read
from triscale.fitting.beginning import write_beginning
from triscale.fitting.carrying import How, carry_out
from triscale.fitting.fitted import Fitted
from triscale.fitting.frozen import Frozen
from triscale.fitting.listening import Listener
from triscale.fitting.plan import Draft, make_plan
from triscale.fitting.wish import Asked, Baseline, Wish
from triscale.models.model import Model
from triscale.runs import RunDirectory
from triscale.scaling import Rule
from triscale.scaling.budget import limits_of
from triscale.training import steady_allocator


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
    rule: str | Rule | None = None,
    batch: int | None = None,
    flip: bool | None = None,
    balance: bool = False,
    seed: int = 0,
    device: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
    weights: str | Path | Model | None = None,
    scratch: bool = True,
    engine: str | None = None,
    listener: Listener | None = None,
) -> Fitted:
    """The best network within the limits, trained on the images and tested on held-out ones.

    data: class folders, a manifest or IDX files. out: a new or empty directory for the run. macs, params, activations,
    size (bytes of fp32 weights), latency (seconds for one image, median, measured here), memory (bytes at the peak of
    running one image, measured here): the budget, at least one of them; all hold. time: seconds of wall clock for all
    of it; decides the epochs, and how large the network may be. epochs: without a time 20. baseline: one or several
    networks to scale, of which the plan takes one; by default `CANDIDATES`. rule: how to scale, or its name for
    `find_rule`; see `scale_to` for what is taken without. flip: whether images are mirrored; by default those with
    colours. balance: every class weighs the same in the loss. weights: what the training starts from, as `load` takes
    it: they fix the network, get a new head, and no budget is needed. scratch: with weights, the same network is
    trained from scratch as well, and the difference reported. engine: what latencies are measured with, one of
    `engines.table.ENGINES`; without it what `predict` takes. Raises `UserError` for what was asked wrongly, before
    anything is written; `TriscaleError` where the work itself fails. What was begun goes on with `resume`.
    """
    asked = Asked(
        limits_of(macs=macs, params=params, activations=activations, size=size, latency=latency, memory=memory),
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
        engine=engine,
    )
    return begin(data, out, asked.wish(), How(listener or Listener()))


def draft(data: str | Path, wish: Wish, listener: Listener, out: str | Path | None = None) -> Draft:
    """What `begin` would do, and everything that it starts from; nothing is written."""
    if out is not None:
        check_apart(Path(data), RunDirectory.check_free(out))
    return _draft(data, wish, listener, time.monotonic())


def begin(data: str | Path, out: str | Path, wish: Wish, how: How) -> Fitted:
    """The wish fulfilled in a new run directory; see `fit`."""
    started = time.monotonic()
    check_apart(Path(data), RunDirectory.check_free(out))
    drafted = _draft(data, wish, how.listener, started)
    run = RunDirectory.create(out)
    with run.alone():
        settings = write_beginning(
            run, drafted.ready, drafted.plan, on_bad=wish.on_bad, before=wish.learned_before, asked=wish.asked
        )
        how.listener.planned(drafted.plan, run)
        fitted = carry_out(run, settings, Frozen.from_json(settings["plan"], str(run.path)), drafted.ready, how)
    assert fitted is not None
    return fitted


def _draft(data: str | Path, wish: Wish, listener: Listener, started: float) -> Draft:
    images = read(data, seed=wish.seed, on_bad=wish.on_bad, progress=listener.reading)
    if wish.learned_before:
        images = images.knowing(bytes.fromhex(digest) for digest in wish.learned_before.values())
    listener.read(images)
    steady_allocator()
    return make_plan(images, wish, started, listener)
