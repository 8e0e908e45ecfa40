"""What a number is worth: intervals. No torch."""

from triscale.stats.intervals import Proportion

__all__ = ["Proportion"]
