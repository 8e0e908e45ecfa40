"""New processes of one engine each, to the first image of a network: `starting` is what they run."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from triscale.benching.starting import STARTS
from triscale.benching.subjects import Subject, Way
from triscale.data import Preprocess
from triscale.engines.table import graph_of, weights_of
from triscale.engines.turns import Rounds, take_turns
from triscale.errors import TriscaleError
from triscale.models import Model
from triscale.stats import Spread


@dataclass(frozen=True, slots=True)
class Started:
    """A new process to its first image: seconds beyond Python and numpy, by part, and bytes at the peak."""

    seconds: Mapping[str, Spread]
    memory: Spread


def launch(
    subject: Subject, ways: tuple[Way, ...], threads: int, rounds: int, progress: Callable[[int, int], None]
) -> dict[str, Started]:
    """The engines that can be started alone, in turns, each time in a new process; rounds: after one not counted."""
    wanted = [way for way in ways if way.engine.name in STARTS]
    with tempfile.TemporaryDirectory(prefix="triscale-") as place:
        files = write_files(subject, {way.engine.name for way in wanted}, Path(place))
        found = take_turns(
            [partial(start, way, files[way.engine.name], threads) for way in wanted],
            Rounds(rounds),
            uncounted=1,  # it brings the files into memory
            progress=lambda done: progress(done, rounds + 1),
        )
    return {
        way.name: Started(
            {part: Spread.of([one[part] for one in rows]) for part in rows[0] if part != "memory"},
            Spread.of([one["memory"] for one in rows]),
        )
        for way, rows in zip(wanted, found, strict=True)
    }


def start(way: Way, file: Path, threads: int) -> dict[str, float]:
    """What a new process says of its first image: seconds by part, and bytes of memory.

    file: as `write_files` makes it for the engine. Raises `TriscaleError` where the process comes to no image.
    """
    # -P: whoever has a random.py where they work does not mean it to be Python's.
    module = ["-P", "-m", "triscale.benching.starting"]
    words = (way.engine.name, way.precision, str(file), str(threads))
    done = subprocess.run([sys.executable, *module, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and said nothing"]
        raise TriscaleError(
            f"{way.name}: a new process came to no first image, and what was timed before is lost: {said[-1].strip()}"
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def write_files(subject: Subject, engines: set[str], folder: Path) -> dict[str, Path]:
    """The network as each engine reads it, in the folder; a subject that is a file already is read as it is."""
    if subject.network is None:
        assert subject.file is not None
        return dict.fromkeys(engines, subject.file)
    network, architecture = subject.network, subject.architecture
    files = {}
    if "native" in engines:
        files["native"] = folder / "network.plan"
        subject.plan().save(files["native"])
    if "torch" in engines:
        files["torch"] = folder / "network.safetensors"
        look = Preprocess(architecture.resolution, architecture.channels, *((0.5,) * architecture.channels,) * 2)
        model = Model(architecture, tuple(map(str, range(architecture.classes))), look)
        model.load_state_dict(network.state_dict())
        model.save(files["torch"])
    if engines & {"onnxruntime", "openvino"}:
        graph = folder / "network.onnx"
        graph.write_bytes(graph_of(architecture, weights_of(network)))
        files |= {"onnxruntime": graph, "openvino": graph}
    return files
