"""What is left behind: the run directory, and files written whole or not at all. No torch."""

from triscale.runs.directory import RunDirectory
from triscale.runs.files import write_whole

__all__ = ["RunDirectory", "write_whole"]
