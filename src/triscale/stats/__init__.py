"""What a number is worth: intervals, paired differences. No torch."""

from triscale.stats.intervals import Proportion
from triscale.stats.paired import PairedDifference

__all__ = ["PairedDifference", "Proportion"]
