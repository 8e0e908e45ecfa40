"""A trial is carried out: in whatever process, from its values and the images alone."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from socket import gethostname
from statistics import median

import numpy as np
import torch

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.data import Data, Images, Prepared, Preprocess, fitting_preprocess, prepare
from triscale.errors import UserError
from triscale.evaluating import predict_images
from triscale.models.model import Model, new
from triscale.nn import Network, build
from triscale.training import InMemory, Keeper, Machine, Recipe, Step, Validation, Watch, rows_of, train
from triscale.training.choosing import all_kernels
from triscale.training.engine import peak_memory
from triscale.training.machine import sample_size, to_device, training_step
from triscale.trials.trial import How, Outcome, Trial, pack

KEPT = 3  # resolutions whose pictures are held at once: siblings of few sizes follow each other
FEWEST, MOST, PROBED = 3, 50, 0.7  # steps of a probe, and its seconds
PART_SEED = 0  # of which images belong to a part: the same for all trials, that only the network differs


@dataclass(frozen=True, eq=False)
class Fitted:
    """The images as a network of one resolution sees them."""

    preprocess: Preprocess
    training: Prepared
    selection: Prepared
    test: Prepared


@dataclass(eq=False)
class Pictures:
    """The images of a study in one process, prepared once for each resolution and part."""

    data: Data
    held: OrderedDict[tuple[object, ...], Fitted] = field(default_factory=OrderedDict)

    def fitted(self, trial: Trial) -> Fitted:
        """Prepared for the trial. Raises `UserError` where the images are not those that it is about."""
        if self.data.fingerprint != trial.data:
            raise UserError(f"{self.data.path}: not the images that the trial is about; they changed, or are others")
        augment, network = trial.recipe.augment, trial.architecture
        key = network.resolution, network.channels, trial.images, augment.crop_scale is not None
        if key not in self.held:
            part = replace(self.data, train=stratified(self.data.train, trial.images))
            preprocess = fitting_preprocess(part, network)
            self.held[key] = Fitted(
                preprocess,
                prepare(part.train, preprocess, augment, threads=trial.how.threads),
                prepare(part.val, preprocess, threads=trial.how.threads),
                prepare(part.test, preprocess, threads=trial.how.threads),
            )
        self.held.move_to_end(key)
        while len(self.held) > KEPT:
            self.held.popitem(last=False)
        return self.held[key]


def stratified(images: Images, count: int) -> Images:
    """So many of the images, of each class in proportion; the larger part of two holds the smaller one. All of them
    where there are no more. They keep their order."""
    if count >= len(images):
        return images
    shuffled = np.random.default_rng(PART_SEED).permutation(len(images))
    labels = images.labels[shuffled]
    place = np.empty(len(images))
    for label in np.unique(labels):  # image k of n of its class stands at (k + ½) / n
        members = np.flatnonzero(labels == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    first = np.argsort(place, kind="stable")[:count]
    return images.select(np.sort(shuffled[first]))


@dataclass(frozen=True)
class Probe:
    """A question of how long a training step takes."""

    architecture: Architecture
    batch: int
    how: How


def seconds_per_image(probe: Probe) -> float:
    """Of a training step, without the optimizer and the making of batches: the median of a few."""
    device = torch.device(probe.how.device)
    network = to_device(build(probe.architecture), device).train()
    network.use(as_machine(probe.how, network).kernels)
    count = sample_size(probe.architecture, probe.batch, device)
    step, times = training_step(network, count, device, probe.how.precision), list[float]()
    with _threads(probe.how.threads):
        while len(times) < 1 + FEWEST or (sum(times[1:]) < PROBED and len(times) < MOST):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return median(times[1:]) / count  # the first warms up


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_trial(trial: Trial, pictures: Pictures, watch: Watch | None = None, keeper: Keeper | None = None) -> Outcome:
    """Trains and judges one network. Nothing outside of the arguments plays a part, and nothing is left behind but what
    `keeper` keeps: an attempt that finds something there goes on from it, and its seconds count those before.

    Raises `DivergedError` where its loss is not finite, `StoppedError` where `watch` asks to stop.
    """
    started = time.perf_counter()
    images = pictures.fitted(trial)
    model = new(trial.architecture, pictures.data.classes, images.preprocess, seed=trial.seed)
    machine = as_machine(trial.how, model)
    keeper, prepared = keeper or InMemory(), time.perf_counter() - started
    before = sum(row.seconds for row in rows_of(keeper))
    with _threads(trial.how.threads):
        trained = train(
            model,
            images.training,
            trial.recipe,
            machine,
            seed=trial.seed,
            validate=_not_before_the_end,
            keeper=keeper,
            watch=watch,
        )
        selection = predict_images(trained, images.selection)
        test = predict_images(trained, images.test)
    return Outcome(
        selection=selection.top().value,
        loss=round(selection.log_loss()[0], 6),
        test=pack(test.predicted == test.labels),
        losses=tuple(row.loss for row in rows_of(keeper)),
        macs=cost(trial.architecture).macs,
        seconds=round(before + time.perf_counter() - started, 3),
        preparing=round(prepared, 3),
        worker=f"{gethostname()}:{os.getpid()}",
        memory=peak_memory(torch.device(trial.how.device)),
    )


def as_machine(how: How, model: Network) -> Machine:
    """What a training session takes, without anything measured."""
    kernels = all_kernels(model) if how.kernels else ()
    return Machine(how.device, how.precision, how.threads, 0, 0.0, {}, kernels=kernels)


def _not_before_the_end(model: Model) -> Validation:
    """Nothing is chosen during a trial, so nothing is looked at."""
    return Validation(0.0, 0.0)


@dataclass
class Stopping(Watch):
    """Passes on, after each step, that a training shall end; and how far it is."""

    asked: Callable[[], bool]
    told: Callable[[Step], None] | None = None

    def step(self, step: Step) -> None:
        """Tells whoever wants to know."""
        if self.told is not None:
            self.told(step)

    def stopping(self) -> bool:
        """Whether the training shall end here."""
        return self.asked()


def passes(recipe: Recipe, images: int) -> int:
    """Images that a training sees, all epochs together."""
    return recipe.epochs * max(1, images // recipe.batch) * min(recipe.batch, images)
