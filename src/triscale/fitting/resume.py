"""A run that was killed or stopped goes on: by its frozen plan, with nothing measured or decided again."""

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from triscale.asking import check_same
from triscale.data import Data, prepare, read_again
from triscale.errors import UserError
from triscale.fitting.carrying import How, carry_out, tested_again
from triscale.fitting.fitted import Fitted
from triscale.fitting.frozen import Frozen
from triscale.fitting.ready import Ready
from triscale.models.model import Model, load, new
from triscale.runs import RunDirectory
from triscale.training import describe, steady_allocator

THEN = ", then "  # between the kernels of one sitting and those of the next, in run.json


def resume(
    out: str | Path, how: How, data: str | Path | None = None, named: Mapping[str, Any] | None = None
) -> Fitted | None:
    """The run there, carried out to its end; the leading process returns what came out, the others nothing.

    data: where its images are, if they have moved. named: fields of `Asked.values` that somebody says once more. Raises
    `UserError` where there is no run, where another process works on it, where the images are not the ones that it was
    begun with, or something else than is named. A finished run is tested once more.
    """
    run = RunDirectory.open(out)
    if not how.processes.leads:
        return go_on(run, {}, how, data)
    with run.alone():
        settings = run.settings()
        if named:
            asked = settings.get("asked", {})
            if asked.get("verb", "fit") != "fit":
                raise begun_by(asked["verb"], run)
            check_same(named, asked, {}, run.path)
        return go_on(run, settings, how, data)


def go_on(run: RunDirectory, settings: dict[str, Any], how: How, data: str | Path | None) -> Fitted | None:
    """The same for a run whose settings the leading process has read; the others hear them from it."""
    settings = json.loads(how.processes.from_leader(json.dumps(settings).encode()))
    verb = settings.get("asked", {}).get("verb")
    if verb in ("study", "search"):
        raise begun_by(verb, run)
    plan = Frozen.from_json(settings.get("plan", {}), f"{run.path}/run.json").on(how.processes)
    steady_allocator()
    images = _images(run, settings, plan, how, data)
    if "result" in settings:
        how.listener.note(f"{run.path} is finished: nothing is trained, its model is tested once more")
        return tested_again(run, settings["result"], plan, images) if how.processes.leads else None
    how.listener.resumed(run, plan)
    settings = _with_kernels(run, settings, plan, how)
    return carry_out(run, settings, plan, _ready(run, plan, images, how), how)


def begun_by(verb: str, run: RunDirectory) -> UserError:
    """That another verb has to go on with a run."""
    return UserError(
        f"{run.path}: was begun by {verb}; go on with: triscale {verb} --resume --out {quote(str(run.path))}"
    )


def _with_kernels(run: RunDirectory, settings: dict[str, Any], plan: Frozen, how: How) -> dict[str, Any]:
    """The settings of a run that goes on, in run.json too. Where its layers train by other kernels than before, that is
    said, and these are named after those."""
    versions = settings.get("versions")
    if not isinstance(versions, dict):
        return settings
    before = versions.get("kernels")
    if not plan.machine.kernels or not isinstance(before, str):
        return settings
    last, now = before.rsplit(THEN, 1)[-1], describe()["kernels"]
    if last == now or (last.startswith("none") and now.startswith("none")):
        return settings
    how.listener.note(
        f"{run.path}: kernels were {last}, now {now}; its bytes may differ from those of a run with the same throughout"
    )
    settings = {**settings, "versions": {**versions, "kernels": f"{before}{THEN}{now}"}}
    if how.processes.leads:
        run.write_settings(settings)
    return settings


def _images(run: RunDirectory, settings: dict[str, Any], plan: Frozen, how: How, data: str | Path | None) -> Data:
    kept, source = settings.get("data"), f"{run.path}/run.json"
    verb = settings.get("asked", {}).get("verb", "fit")
    again = f"triscale {verb} DATA --resume --out {quote(str(run.path))}"
    images = read_again(kept, source, seed=plan.seed, place=data, progress=how.listener.reading, again=again)
    before = [bytes.fromhex(digest) for split, digest in run.splits().values() if split == "before"]
    return images.knowing(before) if before else images


def _ready(run: RunDirectory, plan: Frozen, images: Data, how: How) -> Ready:
    told = how.listener.preparing
    training = prepare(images.train, plan.preprocess, plan.recipe.augment, progress=told)
    held_out, test = (prepare(split, plan.preprocess, progress=told) for split in (images.val, images.test))
    return Ready(_start(run, plan, images), images, training, held_out, test)


def _start(run: RunDirectory, plan: Frozen, images: Data) -> Model:
    """The model before its first step; what the checkpoints hold comes over it."""
    if run.start.is_file():
        model = load(run.start)
    elif plan.weights is not None:
        raise UserError(
            f"{run.start}: is missing, with the weights that it starts from; put it back, or begin another run"
        )
    else:
        model = new(plan.architecture, images.classes, plan.preprocess, seed=plan.seed)
    model.provenance = plan.weights
    return model
