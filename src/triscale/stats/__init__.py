"""What a number is worth: intervals, paired differences. No torch, no numpy."""

from triscale.stats.intervals import Estimate, Proportion
from triscale.stats.paired import FEWEST_APART, PairedDifference
from triscale.stats.spread import Spread

__all__ = ["FEWEST_APART", "Estimate", "PairedDifference", "Proportion", "Spread"]
