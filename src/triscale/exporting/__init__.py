"""Networks for other engines: `export` writes files that were checked, `opened` reads them."""

from triscale.exporting.export import Exported, export
from triscale.exporting.formats import FORMATS
from triscale.exporting.opening import File, is_exported, opened

__all__ = ["FORMATS", "Exported", "File", "export", "is_exported", "opened"]
