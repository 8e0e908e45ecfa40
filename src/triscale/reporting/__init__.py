"""What people look at: pages made from plain values."""

from triscale.reporting.card import write_card
from triscale.reporting.page import write_report

__all__ = ["write_card", "write_report"]
