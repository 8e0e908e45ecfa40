"""What `explain` leaves behind: a directory of sheets, and every overlay as a picture of its own."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from triscale.explaining.drawing import overlay
from triscale.explaining.explain import Explained
from triscale.explaining.seeing import Pixels
from triscale.explaining.sheets import capacity, sheet
from triscale.runs import RunDirectory, write_whole


class Gallery:
    """A directory `out`: sheet.png, sheet-2.png, … of up to 24 pictures, and the overlays `001-photo.png`, ….

    Made with the first picture that is added. Raises `UserError` where something lies there already.
    """

    def __init__(self, out: str | Path, networks: Sequence[str]) -> None:
        self.out = RunDirectory.check_free(out)
        self.networks = tuple(networks)
        self.sheets: list[Path] = []
        self._waiting: list[Explained] = []
        self._pictures = 0

    def add(self, explained: Explained) -> tuple[Path, ...]:
        """The files of the overlays, one per network. A picture that was not read leaves none."""
        if explained.picture is None:
            return ()
        if not self._pictures:
            RunDirectory.create(self.out)
        self._pictures += 1
        files = []
        for place, each in enumerate(explained.explanations):
            # The number comes first and is never given twice: no two names are the same, whatever follows.
            name = f"{self._pictures:03}-{_safe(explained.path.stem)}"
            if len(self.networks) > 1:
                name += f"-{place + 1}-{_safe(each.network)}"
            files.append(self.out / f"{name}.png")
            write_whole(files[-1], _png(overlay(explained, each)))
        self._waiting.append(explained)
        if len(self._waiting) == capacity(len(self.networks)):
            self._finish_sheet()
        return tuple(files)

    def finish(self) -> tuple[Path, ...]:
        """All sheets, the last one written now."""
        if self._waiting:
            self._finish_sheet()
        return tuple(self.sheets)

    def _finish_sheet(self) -> None:
        number = len(self.sheets) + 1
        place = self.out / ("sheet.png" if number == 1 else f"sheet-{number}.png")
        write_whole(place, sheet(self._waiting, self.networks))
        self.sheets.append(place)
        self._waiting = []


def _safe(name: str) -> str:
    """Letters, digits, dots, dashes: what every file system takes, and short, also in bytes."""
    letters = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[:40]
    return letters.encode()[:80].decode(errors="ignore")


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()
