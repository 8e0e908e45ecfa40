"""Metrics where TensorBoard reads them, for those who ask for it."""

from dataclasses import asdict
from pathlib import Path

from triscale.errors import UserError
from triscale.training import EpochMetrics

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raises `UserError` where the extra is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            "--tensorboard: the package tensorboard is not installed; pip install 'triscale[tensorboard]'"
        ) from None


class Board:
    """Events in the run's folder `tensorboard`. Raises `UserError` where the extra is not installed."""

    def __init__(self, run: Path, after: int) -> None:
        """after: the step up to which events of earlier sittings hold."""
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run / FOLDER, purge_step=after + 1)

    def add(self, metrics: EpochMetrics) -> None:
        """An epoch's figures, at once on disk."""
        for name, value in asdict(metrics).items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, metrics.step)
        self._writer.flush()
