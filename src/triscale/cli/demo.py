"""`triscale demo`."""

from pathlib import Path
from typing import Annotated

import typer

from triscale.cli import arguments
from triscale.cli.console import Output
from triscale.cli.fit import Watcher, show, values
from triscale.errors import UserError

MACS, EPOCHS = 3_000_000, 20


def command(
    out: Annotated[Path, typer.Option(help="For the images and the run: digits, demo, demo-2, …")] = Path("runs"),
    as_json: arguments.Json = False,
) -> None:
    """The main job on scikit-learn's handwritten digits: real images, two cores, under two minutes.

    Example: triscale demo
    """
    output = Output(as_json)
    from triscale.fitting import fit
    from triscale.runs import RunDirectory

    images = out / "digits"
    run = RunDirectory.numbered(out, "demo")
    write_digits(images)
    with Watcher(output) as watcher:
        fitted = fit(images, out=run.path, macs=MACS, epochs=EPOCHS, listener=watcher.listener)
    output.result(values(fitted), lambda console: show(console, fitted))
    output.next_command(f"open {fitted.run.report}; then triscale fit YOUR_IMAGES --macs 10M --out runs/mine")


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
    for index, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)).save(place / f"{index:04}.png")
