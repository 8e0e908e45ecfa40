"""The main job under faults: one clear line or a documented behaviour, nothing lost, the images untouched."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import digit_folder
from PIL import Image
from pngs import bomb
from sklearn.datasets import load_digits
from tiny import fixed_machine

from triscale.errors import TriscaleError, UserError
from triscale.fitting import Fitted, How, Listener, fit, resume
from triscale.models import load
from triscale.runs import RunDirectory
from triscale.training import CLOCK, Checkpoints, EpochMetrics, StoppedError

QUICK = {"macs": 300_000, "epochs": 1, "baseline": "resnet18"}


def contents(folder: Path) -> dict[str, str]:
    """Every file's digest; links as what they point to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def truncated(path: Path) -> None:
    whole = path.with_suffix(".tmp")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(noise).save(whole, "jpeg")
    path.write_bytes(whole.read_bytes()[:900])
    whole.unlink()


BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated JPEG": ("torn.jpg", truncated, "torn.jpg"),
    "zero bytes": ("none.png", lambda path: path.write_bytes(b""), "empty"),
    "text called .jpg": ("text.jpg", lambda path: path.write_text("no picture\n" * 50), "not a picture"),
    "bomb": ("bomb.png", lambda path: path.write_bytes(bomb()), "20000×20000"),
    "link to itself": ("loop.png", lambda path: path.symlink_to(path), "symbolic links"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_clear_line_or_is_left_out_and_listed(tmp_path: Path, case: str) -> None:
    name, make, word = BAD_FILES[case]
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    make(folder / "digit-0" / name)
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        fit(folder, out=tmp_path / "run", **QUICK)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert word in str(caught.value)
    assert "--on-bad skip" in str(caught.value)
    assert not (tmp_path / "run").exists()

    fitted = fit(folder, out=tmp_path / "run", on_bad="skip", **QUICK)
    assert [bad["name"] for bad in fitted.run.settings()["data"]["skipped"]] == [f"digit-0/{name}"]
    assert contents(folder) == before


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=8)
    (folder / "digit-0" / "again").symlink_to(folder)
    before = contents(folder)
    fitted = fit(folder, out=tmp_path / "run", **QUICK)
    assert len(fitted.run.splits()) == 16
    assert contents(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every directory")
def test_a_directory_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=3, each=8)
    (folder / "digit-1").chmod(0)
    try:
        with pytest.raises(UserError, match="digit-1"):
            fit(folder, out=tmp_path / "run", **QUICK)
    finally:
        (folder / "digit-1").chmod(0o755)
    assert not (tmp_path / "run").exists()


def test_names_in_any_script_come_through_to_the_model_and_the_page(tmp_path: Path) -> None:
    names = ("猫 und 'Hund' & \"Maus\"", "Ёлка <b>", "قطة\u200f-🐈", "[bold] $x_1$")
    folder = digit_folder(tmp_path / "digits", classes=4, each=8)
    for old, new in zip(sorted(folder.iterdir()), names, strict=True):
        old.rename(folder / new)
        for picture in sorted((folder / new).iterdir()):
            picture.rename(picture.with_name(f"фото {picture.name}"))
    fitted = fit(folder, out=tmp_path / "run", **QUICK)
    assert set(load(fitted.run.path).classes) == set(names)
    assert "猫" in fitted.run.report.read_text(encoding="utf-8")
    assert "<b>" not in fitted.run.report.read_text(encoding="utf-8").replace("<figcaption><b>", "")


class Ending(Listener):
    """Ends a fit in the middle, as Ctrl-C does, or a step after it was asked to."""

    def __init__(self, epoch: int, error: BaseException | None) -> None:
        self.at, self.error, self.asked = epoch, error, False

    def epoch(self, metrics: EpochMetrics) -> None:
        if metrics.epoch == self.at:
            if self.error is not None:
                raise self.error
            self.asked = True

    def stopping(self) -> bool:
        return self.asked


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDirectory]:
    """Images, and a run of nine epochs on them that nothing disturbed."""
    folder = digit_folder(tmp_path_factory.mktemp("whole") / "digits", classes=2, each=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triscale.fitting.candidates.fastest_machine", fixed_machine)
        fit(folder, out=folder.parent / "run", **{**QUICK, "epochs": 9})
    return folder, RunDirectory.open(folder.parent / "run")


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triscale.fitting.candidates.fastest_machine", fixed_machine)


def _ended_as(run: RunDirectory, whole: RunDirectory) -> None:
    assert run.model.read_bytes() == whole.model.read_bytes()
    assert run.predictions.read_bytes() == whole.predictions.read_bytes()
    rows = ([{k: v for k, v in row.items() if k not in CLOCK} for row in one.metrics()] for one in (run, whole))
    assert next(rows) == next(rows)


def test_a_disk_that_fills_up_ends_in_one_line_and_the_fit_goes_on_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steady: None, uninterrupted: tuple[Path, RunDirectory]
) -> None:
    folder, whole = uninterrupted
    before = contents(folder)
    real, written = os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 12:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TriscaleError, match="No space left on device") as caught:
            fit(folder, out=tmp_path / "run", **{**QUICK, "epochs": 9})
    assert "\n" not in str(caught.value)
    run = RunDirectory.open(tmp_path / "run")
    assert Checkpoints(run.checkpoints).newest() is not None
    assert len(list(run.metrics())) >= 2
    assert not run.model.exists()
    assert [path.name for path in run.path.rglob(".*") if path.is_file()] == [".lock"]
    resume(run.path, How(Listener()))
    _ended_as(run, whole)
    assert contents(folder) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), None], ids=["interrupted", "asked to stop"])
def test_an_interrupted_fit_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, steady: None, uninterrupted: tuple[Path, RunDirectory], error: BaseException | None
) -> None:
    folder, whole = uninterrupted
    before = contents(folder)
    with pytest.raises(StoppedError if error is None else KeyboardInterrupt):
        fit(folder, out=tmp_path / "run", **{**QUICK, "epochs": 9}, listener=Ending(3, error))
    run = RunDirectory.open(tmp_path / "run")
    assert [row["epoch"] for row in run.metrics()] == [1, 2, 3]
    assert run.settings()["plan"]["recipe"]["epochs"] == 9
    again = resume(run.path, How(Listener()))
    assert again is not None
    assert len(again.metrics) == 9
    _ended_as(run, whole)
    assert contents(folder) == before


def test_control_c_while_planning_leaves_no_run(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits")
    words = ["fit", str(folder), "--macs", "400M", "--time", "1h", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "triscale", *words], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # the images are read: planning begins
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, first + err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_second_fit_into_the_same_directory_is_refused_before_any_work(digits: Path, fitted: Fitted) -> None:
    before = contents(fitted.run.path)

    class Watch(Listener):
        def reading(self, done: int, total: int) -> None:
            pytest.fail("images were read for a run that cannot be made")

    with pytest.raises(UserError, match="something lies there already"):
        fit(digits, out=fitted.run.path, listener=Watch(), **QUICK)
    assert contents(fitted.run.path) == before


def test_one_giant_class_is_trained_and_said_to_be_one(tmp_path: Path) -> None:
    digits = load_digits()
    for label, count in ((0, 170), (1, 6), (2, 6)):
        place = tmp_path / "digits" / f"class-{label}"
        place.mkdir(parents=True)
        for index, picture in enumerate(digits.images[digits.target == label][:count]):
            Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)).save(place / f"{index:03}.png")
    fitted = fit(tmp_path / "digits", out=tmp_path / "run", balance=True, **QUICK)
    assert fitted.imbalance > 20
    assert fitted.run.settings()["result"]["balanced_accuracy"] == fitted.test.balanced()
    assert all(parameter.isfinite().all() for parameter in fitted.model.parameters())


def test_classes_of_one_image_are_trained_and_no_image_is_in_two_splits(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", classes=2, each=12)
    digits = load_digits()
    for label in (5, 6, 7):
        place = folder / f"lonely-{label}"
        place.mkdir()
        picture = digits.images[digits.target == label][0]
        Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)).save(place / "0.png")
    fitted = fit(folder, out=tmp_path / "run", balance=True, **QUICK)
    splits = fitted.run.splits()
    assert {splits[f"lonely-{label}/0.png"][0] for label in (5, 6, 7)} == {"train"}
    assert len(fitted.model.classes) == 5
    assert "lonely-5" in fitted.run.report.read_text(encoding="utf-8")


def test_nothing_but_classes_of_one_image_is_refused_in_one_line(tmp_path: Path) -> None:
    digit_folder(tmp_path / "digits", classes=4, each=1)
    with pytest.raises(UserError, match="bring more") as caught:
        fit(tmp_path / "digits", out=tmp_path / "run", **QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hundred_thousand_tiny_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (100, 4, 4), np.uint8)
    encoded = []
    for picture in pixels:
        Image.fromarray(picture).save(tmp_path / "one.png")
        encoded.append((tmp_path / "one.png").read_bytes())
    for label in range(10):
        (tmp_path / "tiny" / f"class-{label}").mkdir(parents=True)
    for i in range(100_000):
        # A different comment after the picture makes each file's content its own.
        content = encoded[i % 100] + i.to_bytes(4, "little")
        (tmp_path / "tiny" / f"class-{i % 10}" / f"{i:06}.png").write_bytes(content)
    asked = {"macs": 100_000, "batch": 512, "epochs": 1, "baseline": "resnet18"}
    start = time.monotonic()
    fitted = fit(tmp_path / "tiny", out=tmp_path / "run", **asked)
    print(f"100,000 files: {time.monotonic() - start:.0f} s")
    counts = fitted.run.settings()["data"]["counts"]
    assert sum(sum(table.values()) for table in counts.values()) == 100_000
    assert len(fitted.run.splits()) == 100_000
