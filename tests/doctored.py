"""Small sound data that tests of the doctor then spoil, and how it stood before."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from triscale.doctoring import Diagnosis, Finding


def picture(seed: int, side: int = 48) -> Image.Image:
    """Soft coloured clouds: no two seeds look alike, and each survives recompression."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def sound(root: Path, *splits: str, classes: tuple[str, ...] = ("cat", "dog"), each: int = 5) -> Path:
    """Class folders, below `splits` where there are any."""
    seed = 0
    for split in splits or (".",):
        for label in classes:
            place = root / split / label
            place.mkdir(parents=True)
            for i in range(each):
                picture(seed).save(place / f"{i}.png")
                seed += 1
    return root


def only(diagnosis: Diagnosis, kind: str) -> Finding:
    """The one finding of that kind."""
    found = [finding for finding in diagnosis.findings if finding.kind == kind]
    assert len(found) == 1, diagnosis.findings
    return found[0]


def state(root: Path) -> dict[str, tuple[str, int]]:
    """Every file's content and time of change."""
    return {
        str(file.relative_to(root)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in root.rglob("*")
        if file.is_file()
    }
