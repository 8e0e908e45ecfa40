"""Data that is wrong, in every way that tests know, and what `read` says of it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pngs import bomb

from triscale.data import read
from triscale.errors import UserError


def folders(root: Path, *classes: str, n: int = 4) -> Path:
    for k, label in enumerate(classes):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("RGB", (8, 8), (k * n + i, 1, 2)).save(root / label / f"{i}.png")
    return root


def complaint(path: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def truncated(path: Path, suffix: str) -> None:
    noise().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated jpeg": ("x.jpg", lambda p: truncated(p, "jpg"), "damaged"),
    "truncated png": ("x.png", lambda p: truncated(p, "png"), "damaged"),
    "truncated tiff": ("x.tif", lambda p: truncated(p, "tif"), "damaged"),
    "truncated bmp": ("x.bmp", lambda p: truncated(p, "bmp"), "damaged"),
    "truncated webp": ("x.webp", lambda p: truncated(p, "webp"), "damaged"),
    "zero bytes": ("x.jpg", lambda p: p.write_bytes(b""), "empty"),
    "text": ("x.jpg", lambda p: p.write_text("not a picture"), "not a picture"),
    "one byte": ("x.pgm", lambda p: p.write_bytes(b"P"), "not a picture"),
    "bomb": ("x.png", lambda p: p.write_bytes(bomb()), "20000×20000"),
    "dangling link": ("x.png", lambda p: p.symlink_to("nowhere"), "no such file"),
    "link to itself": ("x.png", lambda p: p.symlink_to(p), "symbolic links"),
    "pipe": ("x.png", os.mkfifo, "not a regular file"),
    "floats": ("x.tif", lambda p: Image.new("F", (4, 4), 0.5).save(p), "floating-point"),
    "wide integers": ("x.tif", lambda p: Image.new("I", (4, 4), 70_000).save(p), "16 bits"),
}


MANIFESTS = {
    "label first": ("label,path\n", "label,path"),
    "capital": ("Path,label\n0.png,a\n", "Path,label"),
    "extra column": ("path,label,split,weight\n", "path,label[,split]"),
    "spaces": ("path, label\n0.png,a\n", "path, label"),
    "nothing": ("", "path,label[,split]"),
    "header alone": ("path,label\n", "lists no picture"),
    "unknown split": ("path,label,split\n0.png,a,train\n1.png,b,dev\n", "line 3: unknown split 'dev'"),
    "no split": ("path,label,split\n0.png,a,\n", "unknown split ''"),
    "short row": ("path,label,split\n0.png,a\n", "line 2: 2 cells"),
    "padded label": ("path,label\n0.png,a \n", "'a '"),
    "no label": ("path,label\n0.png,\n", "label ''"),
    "no path": ("path,label\n,a\n", "path ''"),
    "twice": ("path,label\n0.png,a\n1.png,b\n0.png,b\n", "line 4"),
    "no train": ("path,label,split\n0.png,a,val\n1.png,b,test\n", "no line in the split train"),
    "stray quote": ('path,label\n"0.png"x,a\n', "not a CSV file"),
    "missing file": ("path,label\n0.png,a\nlost.png,b\n", "'lost.png' (no such file)"),
    "a folder": ("path,label\n0.png,a\nd,b\n", "'d' (not a regular file)"),
}


def refusing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system lists no folder of that name."""
    scandir = os.scandir

    def scan(path: Path) -> object:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


COMPOSED, APART = "caf\u00e9", "cafe\u0301"  # an é as one letter, and as a letter and an accent


def two_spellings(folder: Path) -> None:
    """Files, or folders of such, of one name in two spellings; where a file system holds one spelling only, no test."""
    if len(list(folder.iterdir())) < 2:
        pytest.skip("a file system of one spelling")
