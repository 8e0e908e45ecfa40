"""`triscale train` as a person or a script meets it."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import digit_folder
from PIL import Image
from trainings import NOISY, checkpoint, network, results

import triscale as package
from triscale.arch import from_dict, published
from triscale.data import read
from triscale.fitting.train import Asked, adapted
from triscale.models import load
from triscale.runs import RunDirectory
from triscale.training import CLOCK, RECIPES, regularised

Run = Callable[..., tuple[int, str, str]]
SHORT = ("--epochs", "3", "--batch", "16", "--seed", "2", "--deterministic")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def trained(digits: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs."""
    out = tmp_path_factory.mktemp("trained") / "run"
    package.train(digits, out=out, architecture=tiny, epochs=3, batch=16, seed=2, deterministic=True)
    return out


def test_the_example_of_the_help_works(triscale: Run, digits: Path, tmp_path: Path) -> None:
    told = " ".join(triscale("train", "--help")[1].split())
    example = "triscale train IMAGES --architecture efficientnet_b0 --epochs 30 --out RUN"
    assert f"Example: {example}" in told
    words = {"IMAGES": digits, "RUN": tmp_path / "run", "30": 1, "efficientnet_b0": "efficientnet_lite0"}
    code, out, err = triscale(*(words.get(word, word) for word in shlex.split(example)[1:]), "--seed", 1)
    assert code == 0, err
    assert "test accuracy" in out
    assert "went by waiting for images" in out
    following = err.strip().splitlines()[-1]
    assert following == f"next: triscale eval {tmp_path / 'run'}"
    assert triscale(*shlex.split(following)[2:])[0] == 0


def test_a_network_of_the_zoo_is_adapted_to_the_images_and_regularised_for_what_it_costs(
    triscale: Run, digits: Path, tmp_path: Path
) -> None:
    words = ("train", digits, "--architecture", "mobilenet_v2", "--epochs", "1", "--deterministic", "--json")
    _, out, _ = triscale(*words, "--out", tmp_path / "run", "--resolution", "24x20")
    found = from_dict(json.loads(out)["architecture"])
    assert (found.resolution, found.channels, found.head.classes) == ((24, 20), 1, 3)
    assert found == regularised(found, published("mobilenet_v2"))
    own = adapted(Asked("mobilenet_v2"), read(digits))[1]
    assert own.resolution == (16, 16), "by default the images' own, enlarged to sixteen pixels"


def test_a_network_of_ones_own_is_trained_as_it_is(trained: Path) -> None:
    found = load(trained).architecture
    assert (found.stages, found.stem, found.resolution) == (NOISY.stages, NOISY.stem, NOISY.resolution)
    assert (found.head.dropout, found.stochastic_depth) == (NOISY.head.dropout, NOISY.stochastic_depth)
    assert found.head.classes == 3


def test_json_is_one_object_on_standard_output(triscale: Run, digits: Path, tiny: Path, tmp_path: Path) -> None:
    code, out, err = triscale("train", digits, "--architecture", tiny, "--out", tmp_path / "run", *SHORT, "--json")
    assert code == 0
    values = json.loads(out)
    assert len(out.strip().splitlines()) == 1
    assert "next:" not in err
    assert values["run"] == str(tmp_path / "run")
    assert Path(values["report"]).is_file()
    assert [row["epoch"] for row in values["metrics"]] == [1, 2, 3]
    assert values["steps"] == {"planned": 6, "made": 6}
    assert values["recipe"]["batch"] == 16
    assert values["machine"]["deterministic"] is True


def test_the_same_call_gives_the_same_bytes_where_that_was_asked_for(
    triscale: Run, digits: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    triscale("train", digits, "--architecture", tiny, "--out", tmp_path / "run", *SHORT)
    assert results(tmp_path / "run") == results(trained)


def test_metrics_of_a_deterministic_training_hold_nothing_of_the_clock(trained: Path) -> None:
    metrics, timings = (
        [json.loads(line) for line in (trained / f"{name}.jsonl").read_text().splitlines()]
        for name in ("metrics", "timings")
    )
    assert len(metrics) == len(timings) == 3
    for metric, timing in zip(metrics, timings, strict=True):
        assert not set(CLOCK) & set(metric)
        assert set(timing) == {"epoch", *CLOCK}
    assert [set(CLOCK) <= set(row) for row in RunDirectory.open(trained).metrics()] == [True] * 3


def test_a_training_that_is_not_deterministic_keeps_all_in_one_file(
    triscale: Run, digits: Path, tiny: Path, tmp_path: Path
) -> None:
    triscale("train", digits, "--architecture", tiny, "--out", tmp_path / "run", "--epochs", "1")
    assert set(CLOCK) < set(json.loads((tmp_path / "run" / "metrics.jsonl").read_text()))
    assert not (tmp_path / "run" / "timings.jsonl").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_is_shown_is_read_back_as_the_same(triscale: Run, tmp_path: Path, name: str) -> None:
    code, out, err = triscale("train", "--show-recipe", name)
    assert (code, err) == (0, "")
    (tmp_path / "mine.json").write_text(out)
    assert triscale("train", "--show-recipe", tmp_path / "mine.json")[1] == out
    assert set(json.loads(out)) == {"schema", "name", "about", "recipe", "provenance"}


def test_a_recipe_of_ones_own_is_what_is_trained_by(triscale: Run, digits: Path, tiny: Path, tmp_path: Path) -> None:
    recipe = json.loads(triscale("train", "--show-recipe", "paper")[1])
    recipe["recipe"] |= {"epochs": 2, "batch": 20, "smoothing": 0.25}
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    words = ("train", digits, "--architecture", tiny, "--recipe", tmp_path / "mine.json", "--deterministic")
    values = json.loads(triscale(*words, "--out", tmp_path / "run", "--json")[1])
    used = values["recipe"]
    assert (used["epochs"], used["batch"], used["smoothing"], used["suit"]) == (2, 20, 0.25, False)
    assert used["optimizer"]["kind"] == "rmsprop"
    assert used["rate"]["peak"] == pytest.approx(0.016 * 20 / 256)


MISTAKES = [
    ([], ["--out"]),
    (["images", "--architecture", "tiny.json"], ["--out"]),
    (["images", "--out", "run"], ["--architecture", "is missing"]),
    (["--architecture", "tiny.json", "--out", "run"], ["DATA", "is missing"]),
    (["--resume", "--out", "run"], ["no run in run", "--architecture"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--recipe", "papre"], ["papre", "paper"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--recipe", "bad.json"], ["bad.json", "not JSON"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--recipe", "typo.json"], ["typo.json", "epoch"]),
    (["images", "--architecture", "efficientnet_b9", "--out", "run"], ["efficientnet_b9"]),
    (["images", "--architecture", "bad.json", "--out", "run"], ["bad.json"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--epochs", "0"], ["--epochs 0"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--epochs", "many"], ["--epochs", "many"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--batch", "1"], ["--batch 1"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--seed", "-1"], ["--seed -1"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--on-bad", "maybe"], ["--on-bad", "maybe"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--device", "tpu"], ["tpu", "cpu"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--resolution", "big"], ["--resolution", "big"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--checkpoint-every", "x"], ["--checkpoint-every"]),
    (["images", "--architecture", "tiny.json", "--out", "taken"], ["taken", "something lies there"]),
    (["images", "--architecture", "tiny.json", "--out", "taken", "--resume"], ["taken", "something lies there"]),
    (["images", "--architecture", "tiny.json", "--out", "images/run"], ["images/run", "inside"]),
    (["one", "--architecture", "tiny.json", "--out", "run"], ["one class"]),
    (["images", "--architecture", "tiny.json", "--out", "run", "--recipe", "names.json"], ["stages.9.*", "stem.conv"]),
    (["missing", "--architecture", "tiny.json", "--out", "run"], ["missing"]),
    (["--show-recipe", "papre"], ["papre", "quick"]),
    (["images", "--fast"], ["--fast", "--help"]),
]


@pytest.mark.parametrize(("words", "named"), MISTAKES, ids=lambda value: " ".join(value))
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_mistake_is_one_line_that_names_it_and_exit_code_two(
    triscale: Run,
    digits: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    named: list[str],
    as_json: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(digits)
    (tmp_path / "tiny.json").symlink_to(tiny)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "typo.json").write_text('{"schema": 1, "recipe": {"epoch": 3}}')
    (tmp_path / "names.json").write_text(
        '{"schema": 1, "recipe": {"epochs": 3, "by_name": [{"pattern": "stages.9.*", "rate": 0}]}}'
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "digit-0").symlink_to(digits / "digit-0")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    code, out, err = triscale("train", *words, *(["--json"] if as_json else []))
    assert code == 2
    message = json.loads(out)["error"] if as_json else err.strip().splitlines()[-1]
    assert as_json or (out == "" and message.startswith("triscale: "))
    for part in named:
        assert part in message
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert not (digits / "run").exists()
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"


def test_resuming_what_was_never_begun_begins_it(
    triscale: Run, digits: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    for left in ((), (".lock", "splits.csv", ".run.json.ab12cd34")):
        out = tmp_path / f"run{len(left)}"
        for name in left:
            out.mkdir(exist_ok=True)
            (out / name).write_text("half")
        code, _, err = triscale("train", digits, "--architecture", tiny, "--out", out, *SHORT, "--resume")
        assert code == 0, err
        assert results(out) == results(trained)
        assert not (out / ".run.json.ab12cd34").exists()


@pytest.fixture
def again(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, under another path."""
    return Path(shutil.copytree(trained, tmp_path / "copied" / "run"))


def test_resuming_a_finished_run_ends_well_with_the_same_model(triscale: Run, again: Path, trained: Path) -> None:
    number = checkpoint(again)
    code, out, err = triscale("train", "--resume", "--out", again, "--json")
    assert code == 0, err
    assert results(again) == results(trained)
    assert json.loads(out)["steps"] == {"planned": 6, "made": 6}
    assert [row["epoch"] for row in json.loads(out)["metrics"]] == [1, 2, 3]
    assert checkpoint(again) == number
    assert "is finished: nothing is trained" in err


def test_a_finished_run_without_checkpoints_stays_as_it_is(triscale: Run, again: Path, trained: Path) -> None:
    shutil.rmtree(again / "checkpoints")
    before = {path.name: path.read_bytes() for path in again.iterdir() if path.is_file()}
    assert triscale("train", "--resume", "--out", again)[0] == 0
    assert {path.name: path.read_bytes() for path in again.iterdir() if path.is_file()} == before
    assert not (again / "checkpoints").exists()


@pytest.mark.parametrize("words", [("--recipe", "quick"), ("--on-bad", "error"), ("--device", "cpu")])
def test_saying_what_is_taken_anyway_is_the_same_as_not_saying_it(
    triscale: Run, again: Path, words: tuple[str, str]
) -> None:
    assert triscale("train", "--resume", "--out", again, *words)[0] == 0


def test_a_run_of_fit_is_gone_on_with_by_fit(triscale: Run, again: Path) -> None:
    settings = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps(settings | {"asked": {"verb": "fit"}}))
    code, _, err = triscale("train", "--resume", "--out", again, "--seed", 1)
    assert code == 2
    assert f"triscale fit --resume --out {again}" in err


def test_resuming_with_what_it_was_begun_with_says_nothing_against_it(
    triscale: Run, again: Path, digits: Path, tiny: Path
) -> None:
    assert triscale("train", digits, "--architecture", tiny, "--out", again, *SHORT, "--resume")[0] == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "4"),
        ("--seed", "3"),
        ("--batch", "8"),
        ("--architecture", "resnet18"),
        ("--recipe", "paper"),
        ("--resolution", "32"),
        ("--on-bad", "skip"),
        ("--balance", None),
        ("--flip", None),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["alone", "with data and network"])
def test_resuming_with_something_else_names_the_option(
    triscale: Run, again: Path, digits: Path, tiny: Path, trained: Path, option: str, value: str | None, whole: bool
) -> None:
    words: list[object] = [digits, "--architecture", tiny] if whole and option != "--architecture" else []
    code, out, err = triscale("train", *words, "--resume", "--out", again, option, *([value] if value else []))
    assert (code, out) == (2, "")
    said = f"--{option[2:]} {value}" if value and option not in ("--architecture", "--recipe") else option
    said = said.replace("32", "32x32")
    assert err.strip().splitlines()[-1].startswith(f"triscale: {said}: {again} was begun with")
    assert f"leave {option} out to go on" in err
    assert results(again) == results(trained)


def test_resuming_on_other_images_is_refused(triscale: Run, tiny: Path, tmp_path: Path) -> None:
    images = digit_folder(tmp_path / "images", classes=2, each=10)
    words = ("train", images, "--architecture", tiny, "--epochs", "1", "--deterministic", "--out", tmp_path / "run")
    assert triscale(*words)[0] == 0
    before = results(tmp_path / "run")
    picture = images / "digit-0" / "000.png"
    changed = Image.open(picture).copy()
    changed.putpixel((0, 0), 99)
    changed.save(picture)
    code, _, err = triscale("train", "--resume", "--out", tmp_path / "run")
    assert code == 2
    assert "not the images that the run was begun with" in err.splitlines()[-1]
    picture.unlink()
    code, _, err = triscale("train", "--resume", "--out", tmp_path / "run")
    assert code == 2
    assert "19 now, 20 then" in err.splitlines()[-1]
    images.rename(tmp_path / "moved")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    for verb in ("train", "fit"):
        (tmp_path / "run" / "run.json").write_text(json.dumps(settings | {"asked": settings["asked"] | {"verb": verb}}))
        code, _, err = triscale(verb, "--resume", "--out", tmp_path / "run")
        assert code == 2
        again = f"triscale {verb} DATA --resume --out {tmp_path / 'run'}"
        assert f"/images' does not exist any more; put it back, or name where it is now: {again}" in err
    assert results(tmp_path / "run") == before


def test_images_that_have_moved_are_named_to_go_on(triscale: Run, tiny: Path, tmp_path: Path) -> None:
    images = digit_folder(tmp_path / "images", classes=2, each=10)
    words = ("train", images, "--architecture", tiny, "--epochs", "1", "--deterministic", "--out", tmp_path / "run")
    assert triscale(*words)[0] == 0
    images.rename(tmp_path / "moved")
    code, _, err = triscale("train", "--resume", "--out", tmp_path / "run")
    assert code == 2
    assert str(images) in err
    assert triscale("train", tmp_path / "moved", "--resume", "--out", tmp_path / "run")[0] == 0


def test_a_run_that_another_process_works_on_is_left_to_it(
    triscale: Run, again: Path, digits: Path, tiny: Path, trained: Path
) -> None:
    with RunDirectory.open(again).alone():
        for words in (("--resume",), (digits, "--architecture", tiny, "--resume")):
            code, _, err = triscale("train", *words, "--out", again)
            assert code == 2
            assert "another process works on this run" in err
    assert results(again) == results(trained)


@pytest.mark.parametrize("missing", ["plan", "plan recipe", "plan machine", "data", "data path", "data fingerprint"])
def test_a_plan_that_is_damaged_is_one_line(triscale: Run, again: Path, missing: str) -> None:
    settings = json.loads((again / "run.json").read_text())
    *path, last = missing.split()
    del (settings[path[0]] if path else settings)[last]
    (again / "run.json").write_text(json.dumps(settings))
    code, _, err = triscale("train", "--resume", "--out", again)
    assert code == 2
    assert f"{again}/run.json: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_a_run_json_that_is_none_is_one_line(triscale: Run, again: Path, content: str) -> None:
    (again / "run.json").write_text(content)
    code, _, err = triscale("train", "--resume", "--out", again)
    assert code == 2
    assert f"{again / 'run.json'}: not" in err
    assert "Traceback" not in err


def test_events_for_tensorboard_are_written_where_it_is_installed(
    triscale: Run, digits: Path, tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    code, _, err = triscale("train", digits, "--architecture", tiny, "--out", tmp_path / "run", *SHORT, "--tensorboard")
    assert code == 0, err
    assert list((tmp_path / "run" / "tensorboard").iterdir())
