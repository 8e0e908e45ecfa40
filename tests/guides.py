"""The commands of the README and of the guides in docs/, and what a test runs of them.

There a command stands in an indented block, with names such as IMAGES for what the reader has. A test furnishes these
names, and runs the command with a budget that is small enough; what is not run is listed here with the reason.
"""

import re
from pathlib import Path

from pages import DOCS, ROOT
from pictures import digit_folder
from PIL import Image

from triscale.arch import adapt, published, to_json
from triscale.scaling import Budget, find_rule, solve

GUIDES = (
    ROOT / "README.md",
    *sorted(page for page in DOCS.glob("*.md") if page.stem not in ("index", "measured", "tour")),
)
COMMAND = re.compile(
    r"^    (?:\$ )?((?:triscale|\.venv/bin/|python|make|torchrun|pip|apt-get|curl) ?.*)$", re.MULTILINE
)
INLINE = re.compile(r"`((?:\.venv/bin/)?triscale [^`…]*)`")

# What makes a command small: the first that fits, everything of it. The rest of a command stays as it is.
SMALLER = (
    (r"(fit .*--baseline .*)--macs 20M(?: --time \S+)?", r"\1--macs 6M --epochs 1"),
    (r"(fit .*)--macs 10M --time 10m", r"\1--macs 400k --epochs 1"),
    (r"(fit .*--weights \S+)", r"\1 --epochs 1 --no-scratch"),
    (r"(train .*)--epochs 30", r"\1--epochs 1"),
    (r"(bench \S+) --peers", r"\1 --batch 1 --threads 1 --rounds 1"),
    (r"(train .*)--architecture resnet18", r"\1--architecture my-network.json --epochs 1"),
    (r"(search .*)--macs 5M --time 1h", r"\1--macs 500k --candidates 8 --epochs 1"),
    (
        r"(study .*--baseline) (?:mobilenet_v2|efficientnet_b0) --time 1h",
        r"\1 my-network.json --seeds 3 --epochs 1 --no-again",
    ),
    (r"(study .*)--time 1h", r"\1--seeds 3 --epochs 1 --no-again"),
    (r"(scale .*)--rule STUDY/coefficients.json --factor 4", r"\1--rule STUDY/coefficients.json --factor 4"),
)

# Beginnings of commands that no test of the documentation runs, and why.
NOT_RUN = {
    "make ": "installs and tests everything; continuous integration does it",
    "pip install": "needs a network; `make install` has done it",
    "apt-get": "needs a network and the right to install",
    "torchrun": "several processes; tests/test_train_together.py",
    "triscale train --selftest": "a minute; tests/test_train_cli.py",
    "triscale fit IMAGES --search --study": "an hour; tests/test_whole.py runs a small one",
    "triscale study IMAGES --baseline efficientnet_b0 --design paper": "a day; tests/test_studies_designs.py",
    "triscale study FASHION": "45 minutes, images of Debian's; examples/studies has what it found",
    "triscale study LETTERS": "15 minutes, fonts of Debian's; examples/studies has what it found",
    "triscale fit stamps": "ten minutes on pictures of Debian's; docs/weights.md has what it found",
    "triscale export": "the commands of docs/verbs/export.md are run",
    "triscale serve": "answers until it is ended; the commands of docs/verbs/serve.md are run",
    "curl": "asks a server; the commands of docs/verbs/serve.md are run",
    "triscale models download": "needs a network; tests/test_weights_download.py has a server of its own",
    "triscale predict photo.jpg --model torchvision/": "needs what was downloaded before",
    "triscale models import": "needs a file of another project; tests/test_weights_import.py writes some",
    "triscale predict photo.jpg --model b3.safetensors": "needs what was imported before",
    "python examples/": "tests/test_examples.py and the tests named for each example",
    "python benchmarks/": "measures for minutes; CONTRIBUTING.md",
}


def commands(page: Path) -> list[str]:
    """The commands of a page's indented blocks, as they are typed where `triscale` is on the PATH."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [bare(found[1]) for found in COMMAND.finditer(text)]


def bare(command: str) -> str:
    """Without the comment after it and the path before it."""
    return re.sub(r"\s{2,}# .*$", "", command.removeprefix(".venv/bin/")).strip()


def reason(command: str) -> str | None:
    """Why a command is not run; None where it is."""
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)


def smaller(command: str) -> str:
    """The command with a budget of seconds."""
    for pattern, small in SMALLER:
        changed, count = re.subn(rf"^triscale {pattern}", rf"triscale {small}", command)
        if count:
            return changed
    return command


def furnish_guide(directory: Path) -> None:
    """What the guides call IMAGES, FASHION, photo.jpg and my-network.json; runs/mine and runs/other are a test's."""
    directory.mkdir(parents=True)
    images = digit_folder(directory / "IMAGES", classes=3, each=24)
    for place, name in zip(sorted(images.iterdir()), ("bird", "cat", "dog"), strict=True):
        place.rename(images / name)
    (directory / "FASHION").symlink_to("IMAGES")
    Image.effect_mandelbrot((96, 64), (-2.0, -1.2, 1.0, 1.2), 60).convert("RGB").save(directory / "photo.jpg")
    start = adapt(published("mobilenet_v2"), resolution=(16, 16), channels=1, classes=3)
    small = solve(start, find_rule("slim"), Budget({"macs": 2e6})).architecture
    (directory / "my-network.json").write_text(to_json(small))
