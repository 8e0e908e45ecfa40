"""`triscale demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from triscale.cli import arguments
from triscale.cli.console import Output
from triscale.cli.fit import show, values
from triscale.errors import UserError

MACS, EPOCHS = 3_000_000, 50


def command(
    out: Annotated[Path, typer.Option(help="For the images and the run: digits, demo, demo-2, …")] = Path("runs"),
    as_json: arguments.Json = False,
) -> None:
    """The main job on scikit-learn's handwritten digits: real images, two cores, under two minutes.

    Example: triscale demo
    """
    output = Output(as_json)
    from triscale.cli.watching import Watcher
    from triscale.fitting import fit

    run, images = _fresh(out)
    write_digits(images)
    with Watcher(output) as watcher:
        fitted = fit(images, out=run, macs=MACS, epochs=EPOCHS, listener=watcher)
    output.result(values(fitted), lambda console: show(console, fitted))
    output.next_command("triscale", "fit", "YOUR_IMAGES", "--macs", "10M", "--out", out / "mine")


def _fresh(out: Path) -> tuple[Path, Path]:
    """Where the run and its images go: names that nothing has yet, so that nothing is overwritten."""
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        run, images = out / f"demo{suffix}", out / f"digits{suffix}"
        if not os.path.lexists(run) and not os.path.lexists(images):
            return run, images
        number += 1


def write_digits(folder: Path) -> None:
    """scikit-learn's 1,797 digits, 8×8 pixels of 17 shades, as PNG files in class folders."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the demo's images come with scikit-learn; install it with: pip install 'triscale[demo]'"
        ) from None
    import numpy as np
    from PIL import Image

    digits = load_digits()
    try:
        for label in set(digits.target):
            (folder / str(label)).mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--out {folder.parent}: {error.strerror}; name a directory that can be written to") from None
    for index, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels = np.round(picture * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / str(label) / f"{index:04}.png")
