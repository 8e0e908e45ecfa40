"""`train`: a network that is named, trained on images by a recipe; it cannot lose work."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from triscale.arch import ZOO, Architecture, adapt, resolve, to_dict
from triscale.arch.resolve import sides
from triscale.asking import check_same, check_seed
from triscale.data import Data, check_apart, fitting_preprocess, image_resolution, prepare, read
from triscale.errors import UserError
from triscale.fitting.beginning import write_beginning
from triscale.fitting.board import check_tensorboard
from triscale.fitting.candidates import TRAINING_OVERHEAD, Candidate
from triscale.fitting.carrying import How, carry_out
from triscale.fitting.fitted import Fitted
from triscale.fitting.frozen import Frozen
from triscale.fitting.listening import Listener
from triscale.fitting.plan import Draft, Plan
from triscale.fitting.ready import Ready
from triscale.fitting.resume import begun_by, go_on
from triscale.models.model import new
from triscale.nn import build
from triscale.plain import to_plain
from triscale.runs import RunDirectory
from triscale.scaling import RULES, grow
from triscale.training import (
    Machine,
    NamedRecipe,
    Pace,
    Recipe,
    fastest_machine,
    find_recipe,
    joined,
    regularised,
    repeatable_machine,
    steady_allocator,
)
from triscale.training import resolve as resolve_recipe
from triscale.training.asking import check_training
from triscale.training.checkpoints import EVERY
from triscale.training.engine import check_batch
from triscale.training.machine import find_device
from triscale.training.optimizers import make_optimizer
from triscale.training.session import steps_per_epoch


@dataclass(frozen=True)
class Asked:
    """What a training is called with; None leaves it to the recipe, the images or the machine."""

    architecture: str | Path | Architecture | None
    recipe: str | Path | NamedRecipe | None = None
    epochs: int | None = None
    batch: int | None = None
    resolution: tuple[int, int] | None = None
    flip: bool | None = None
    balance: bool | None = None
    seed: int | None = None
    deterministic: bool | None = None
    device: str | None = None
    on_bad: Literal["error", "skip"] | None = None

    def __post_init__(self) -> None:
        if self.seed is not None:
            check_seed(self.seed)

    def complete(self) -> "Asked":
        """With what is taken where nothing is said, so that saying it is the same, and with files as they are read now:
        they may change while the plan is made."""
        named = self.architecture
        return replace(
            self,
            architecture=named if named is None or str(named) in ZOO else _network(named),
            recipe=_named(self.recipe or "quick"),
            balance=bool(self.balance),
            seed=self.seed or 0,
            deterministic=bool(self.deterministic),
            on_bad=self.on_bad or "error",
        )

    def values(self) -> dict[str, Any]:
        """As JSON, to be compared when the run goes on: a file counts by what it holds."""
        network, recipe = self.architecture, self.recipe
        return {
            "verb": "train",
            "architecture": None if network is None else to_dict(_network(network)),
            "recipe": None if recipe is None else to_plain(_named(recipe).recipe),
            "epochs": self.epochs,
            "batch": self.batch,
            "resolution": None if self.resolution is None else list(self.resolution),
            "flip": self.flip,
            "balance": self.balance,
            "seed": self.seed,
            "deterministic": self.deterministic,
            "on_bad": self.on_bad,
        }


def train(
    data: str | Path | None,
    *,
    out: str | Path,
    architecture: str | Path | Architecture | None = None,
    recipe: str | Path | NamedRecipe | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    resolution: int | tuple[int, int] | None = None,
    flip: bool | None = None,
    balance: bool | None = None,
    seed: int | None = None,
    deterministic: bool | None = None,
    device: str | None = None,
    on_bad: Literal["error", "skip"] | None = None,
    resume: bool = False,
    checkpoint_every: float = EVERY,
    tensorboard: bool = False,
    listener: Listener | None = None,
) -> Fitted | None:
    """A network trained on images by a recipe and tested on held-out ones; returns what came out.

    data: class folders, a manifest or IDX files. out: a new or empty directory for the run. architecture: anything
    that `resolve` takes; a network of the zoo is adapted to the images' size, channels and classes, another one to
    channels and classes only. recipe: one of `RECIPES` or a JSON file, `quick` if none is named. epochs, batch, flip,
    balance: go before what the recipe says. resolution: the network's, in pixels. deterministic: the same bytes each
    time on the same machine: fp32, all threads, nothing measured. resume: goes on with the run that was begun in
    `out`, or begins it; what is given besides must be what it was begun with. checkpoint_every: seconds. tensorboard:
    writes its events into the run.

    Started by torchrun, all its processes train one network; the first returns what came out, the others None. Raises
    `UserError` for what was asked wrongly, `StoppedError` where the listener asked to stop, `TriscaleError` where the
    work itself fails.
    """
    with joined() as processes:
        again = resume or processes.restarts > 0
        if not 0 <= checkpoint_every < float("inf"):
            raise UserError(f"--checkpoint-every {checkpoint_every!r}: seconds, 0 for every step")
        if tensorboard:
            check_tensorboard()
        how = How(listener or Listener(), processes, checkpoint_every, tensorboard)
        asked = Asked(
            architecture,
            recipe=recipe,
            epochs=epochs,
            batch=batch,
            resolution=sides(resolution),
            flip=flip,
            balance=balance,
            seed=seed,
            deterministic=deterministic,
            device=device,
            on_bad=on_bad,
        )
        if not processes.leads:  # who follows hears the plan from the leader
            return go_on(RunDirectory(Path(out)), {}, how, data)
        run = RunDirectory(Path(out))
        if again and run.begun():
            with run.alone():
                return go_on(run, _continued(run, asked), how, data)
        data, asked = _checked(data, run.path, asked, again), asked.complete()
        return _begin(run.path, data, asked, how, again)


def _checked(data: str | Path | None, place: Path, asked: Asked, again: bool) -> str | Path:
    """The images, once whatever can be wrong without looking at one is right. Raises `UserError`."""
    if data is None or asked.architecture is None:
        missing = "DATA" if data is None else "--architecture"
        begun = f"there is no run in {place} to go on with" if again else f"{missing} is missing"
        raise UserError(f"{begun}; say what to train: triscale train DATA --architecture NAME --out {place}")
    check_apart(Path(data), place)
    RunDirectory.check_free(place)
    asked.values()
    check_training(asked.device, asked.epochs, asked.batch)
    return data


def _continued(run: RunDirectory, asked: Asked) -> dict[str, Any]:
    """The settings of a run that goes on. Raises `UserError` where it was begun with something else."""
    settings = run.settings()
    before = dict(settings.get("asked", {}))
    if before.get("verb", "train") != "train":
        raise begun_by(before["verb"], run)
    named = {key: value for key, value in asked.values().items() if value is not None and key in before}
    if asked.device is not None:
        device = Frozen.from_json(settings.get("plan", {}), f"{run.path}/run.json").machine.device
        named["device"] = find_device(asked.device).type
        before |= {"device": torch.device(device).type}
    check_same(named, before, {}, run.path)
    return settings


def _begin(place: Path, data: str | Path, asked: Asked, how: How, again: bool) -> Fitted | None:
    started = time.monotonic()
    seed = asked.seed or 0
    images = read(data, seed=seed, on_bad=asked.on_bad or "error", progress=how.listener.reading)
    how.listener.read(images)
    steady_allocator()
    drafted = plan_training(images, asked, how, started)
    run = RunDirectory.take_over(place) if again else RunDirectory.create(place)
    with run.alone():
        if run.begun():
            raise UserError(f"--out {place}: another process began this run meanwhile; name another directory")
        settings = write_beginning(
            run, drafted.ready, drafted.plan, on_bad=asked.on_bad or "error", before={}, asked=asked.values()
        )
        how.processes.from_leader(json.dumps(settings).encode())
        how.listener.planned(drafted.plan, run)
        plan = Frozen.from_json(settings["plan"], str(run.path)).on(how.processes)
        return carry_out(run, settings, plan, drafted.ready, how)


def plan_training(images: Data, asked: Asked, how: How, started: float) -> Draft:
    """The plan of a training in which nothing is left to choose but the machine's precision, threads and kernels."""
    recipe = resolve_recipe(
        _named(asked.recipe or "quick").recipe,
        images,
        epochs=asked.epochs,
        batch=asked.batch,
        flip=asked.flip,
        balance=bool(asked.balance),
    )
    check_batch(recipe, len(images.train), how.processes)
    seed, (baseline, network) = asked.seed or 0, adapted(asked, images)
    machine = _machine(network, recipe, asked, how)
    steps = steps_per_epoch(len(images.train), recipe.batch) * recipe.epochs
    preprocess = fitting_preprocess(images, network)
    told = how.listener.preparing
    ready = Ready(
        new(network, images.classes, preprocess, seed=seed),
        images,
        prepare(images.train, preprocess, recipe.augment, progress=told),
        *(prepare(split, preprocess, progress=told) for split in (images.val, images.test)),
    )
    make_optimizer(ready.model, recipe)  # what its patterns get wrong is said before there is a run
    step = machine.per_image * min(recipe.batch, len(images.train)) * TRAINING_OVERHEAD
    scaled = replace(grow(baseline, RULES["compound"], factor=1), architecture=network, rule="none")
    epoch = step * steps / recipe.epochs
    planning = time.monotonic() - started
    candidate = Candidate(baseline, scaled, network, machine, epoch, 0.0, recipe.epochs)
    if step:
        candidate = replace(candidate, images_per_second=min(recipe.batch, len(images.train)) / step)
    plan = Plan(
        candidates=(candidate,),
        taken=0,
        why="the network that was named",
        architecture=network,
        preprocess=preprocess,
        recipe=recipe,
        machine=machine,
        pace=Pace(step, 0.0),
        steps=steps,
        fewest=1,
        after=0.0,
        planning=planning,
        expected=planning + steps * step if step else None,
        time=None,
        seed=seed,
    )
    return Draft(plan, ready)


def adapted(asked: Asked, images: Data) -> tuple[Architecture, Architecture]:
    """The network that was named, and as it is trained: for these channels and classes; one of the zoo also for the
    images' size, and regularised for what it then costs."""
    assert asked.architecture is not None
    named = _network(asked.architecture)
    published = not isinstance(asked.architecture, Architecture) and str(asked.architecture) in ZOO
    resolution = asked.resolution or (image_resolution(images) if published else None)
    network = adapt(named, resolution=resolution, channels=images.channels, classes=len(images.classes))
    return network, regularised(network, named) if published else network


def _machine(network: Architecture, recipe: Recipe, asked: Asked, how: How) -> Machine:
    device = find_device(asked.device)
    if device.type == "cuda" and how.processes.world > 1:
        device = torch.device("cuda", how.processes.local)
    threads = max(1, torch.get_num_threads() // how.processes.local_world)
    if asked.deterministic:
        return repeatable_machine(build(network), device, threads)
    torch.set_num_threads(threads)
    return fastest_machine(build(network), -(-recipe.batch // how.processes.world), device)


def _network(named: str | Path | Architecture) -> Architecture:
    return named if isinstance(named, Architecture) else resolve(named)


def _named(recipe: str | Path | NamedRecipe) -> NamedRecipe:
    return recipe if isinstance(recipe, NamedRecipe) else find_recipe(recipe)
