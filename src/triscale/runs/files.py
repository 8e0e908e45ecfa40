"""Files are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from triscale.errors import TriscaleError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes beside `path`, forces the bytes to disk, then renames: a reader sees the old file or the new one.

    Raises `TriscaleError` where the disk refuses; the old file is then as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp gives 0600; a run is as readable as any file its owner makes.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
        sync_directory(path.parent)
    except BaseException as error:  # an interruption too leaves nothing half written
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError | ValueError):  # ValueError: a path that can be none
            raise
        why = getattr(error, "strerror", None) or error
        raise TriscaleError(f"{path}: could not be written ({why}); what was there before is unchanged") from None


def sync_directory(directory: Path) -> None:
    """Makes the rename itself durable; where directories cannot be opened (Windows) the rename has to do."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
