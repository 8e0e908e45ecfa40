"""What held-out images say of a model, looked at by one process or by several together."""

from triscale.data import Prepared
from triscale.evaluating import Predictions, merge, predict_images
from triscale.models.model import Model
from triscale.precision import TrainingPrecision
from triscale.training import ALONE, Machine, Processes, Validation


def judge(model: Model, held_out: Prepared, machine: Machine, processes: Processes = ALONE) -> Validation:
    """What the validation images say of the model."""
    found = predict_together(model, held_out, machine.precision, processes)
    return Validation(found.top().value, *found.log_loss())


def predict_together(
    model: Model, images: Prepared, precision: TrainingPrecision = "fp32", processes: Processes = ALONE
) -> Predictions:
    """What the model says of every image: each process looks at its share, and all know the whole. No image counts
    twice, however few there are."""
    own = predict_images(model, images, precision=precision, rank=processes.rank, world=processes.world)
    if processes.world == 1:
        return own
    split, world = images.images, processes.world
    return merge(
        [
            Predictions(
                split.names[rank::world], split.labels[rank::world], rows, own.classes, split.digests[rank::world]
            )
            for rank, rows in enumerate(processes.gather(own.probabilities))
        ]
    )
