"""The command line as a person or a script meets it."""

import io
import json
import os
import re
import shlex
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pictures import digit_folder
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_image

from triscale.arch import Architecture, Head, MBConv, Stage, Stem, published, to_json
from triscale.cli.console import pasteable, print_table, table
from triscale.cli.stopping import going_on, stopping_gently, way
from triscale.data import Preprocess
from triscale.errors import HopelessError, TriscaleError
from triscale.fitting import Fitted
from triscale.models.model import new
from triscale.runs import RunDirectory

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
VERBS = ("fit", "train", "models", "cost", "scale", "eval", "predict", "demo")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(triscale, verb: str) -> None:  # noqa: ANN001
    code, out, _ = triscale(verb, "--help")
    assert code == 0
    assert f"Example: triscale {verb}" in " ".join(out.split())
    assert "--json" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["cost", "efficientnet_b9"], ["efficientnet_b9", "triscale models"]),
        (["cost", "efficientnet_b0", "--resolution", "big"], ["big", "480x640"]),
        (["cost", "efficientnet_b0", "--resolution", "0"], ["0"]),
        (["cost", "efficientnet_b0", "--classes", "0"], ["0"]),
        (["cost", "efficientnet_b0", "--resolution", "99999999"], ["99999999", "at most 8,192"]),
        (["cost"], ["name", "see triscale cost --help"]),
        (["costs"], ["costs", "see triscale --help"]),
        (["cost", "efficientnet_b0", "--fast"], ["--fast", "see triscale cost --help"]),
        (["models", "cost"], ["cost", "see triscale models --help"]),
        (["bench", "x", "--batch", "1", "--batch", "foo"], ["--batch 1 --batch foo", "see triscale bench --help"]),
        (["scale", "efficientnet_b0"], ["--macs", "--factor", "--phi"]),
        (["scale", "efficientnet_b0", "--macs", "banana"], ["banana", "400M"]),
        (["scale", "efficientnet_b0", "--macs", "1"], ["1 MACs", "132k"]),
        (["scale", "efficientnet_b0", "--macs", "-5M"], ["-5M"]),
        (["scale", "efficientnet_b0", "--phi", "two"], ["--phi", "two"]),
        (["scale", "efficientnet_b0", "--factor", "nan"], ["nan"]),
        (["scale", "efficientnet_b0", "--factor", "0"], ["0"]),
        (["scale", "efficientnet_b0", "--factor", "2", "--phi", "1"], ["one"]),
        (["scale", "efficientnet_b0", "--macs", "1G", "--rule", "sideways"], ["sideways", "compound"]),
        (["scale", "efficientnet_b0", "--macs", "1G", "--rule", "0.5,0.5,0.5"], ["1.5"]),
        (["scale", "efficientnet_b0", "--params", "9M", "--rule", "resolution"], ["params"]),
        (["scale", "efficientnet_b0", "--macs", "1e40"], ["largest"]),
        (["scale", "efficientnet_b0", "--steps", "0..7"], ["--out"]),
        (["scale", "efficientnet_b0", "--steps", "7..0", "--out", "x"], ["7..0"]),
        (["fit", "missing-folder", "--macs", "1M", "--out", "run"], ["missing-folder"]),
        (["fit", "one-class", "--macs", "1M", "--out", "run"], ["one class"]),
        (["fit", "digits", "--out", "run"], ["--macs"]),
        (["fit", "digits", "--macs", "1M"], ["--out"]),
        (["fit", "digits", "--macs", "banana", "--out", "run"], ["banana"]),
        (["fit", "digits", "--macs", "1", "--out", "run"], ["smallest"]),
        (["fit", "digits", "--macs", "1M", "--out", "run", "--epochs", "many"], ["--epochs", "many"]),
        (
            ["fit", "digits", "--macs", "1M", "--out", "run", "--baseline", "broken.json"],
            ["broken.json", "kernel", "4"],
        ),
        (["fit", "digits", "--macs", "1M", "--out", "run", "--on-bad", "maybe"], ["maybe"]),
        (["fit", "digits", "--macs", "1M", "--out", "run", "--seed", "-1"], ["-1"]),
        (["fit", "digits", "--macs", "1M", "--out", "digits"], ["digits", "new or empty"]),
        (["fit", "digits", "--macs", "1M", "--out", "run", "--time", "soon"], ["--time", "soon", "10m"]),
        (["fit", "digits", "--macs", "1M", "--out", "run", "--time", "2s"], ["--time", "give it"]),
        (["fit", "digits", "--latency", "10", "--out", "run"], ["--latency", "10ms"]),
        (["fit", "digits", "--latency", "1us", "--baseline", "resnet18", "--out", "run"], ["no network that small"]),
        (["fit", "digits", "--memory", "much", "--out", "run"], ["--memory", "much"]),
        (
            ["fit", "digits", "--latency", "9ms", "--engine", "foo", "--out", "run"],
            ["'foo'", "there are native, torch, onnxruntime, openvino"],
        ),
        (["fit", "--resume", "--out", "run", "--macs", "5M"], ["run: no run", "--out"]),
        (["fit", "images", "--macs", "5M", "--no-scratch", "--out", "run"], ["--no-scratch", "only with --weights"]),
        (["fit", "digits", "--macs", "1M", "--baseline", "resnet19", "--dry-run"], ["resnet19"]),
        (["fit", "digits", "--macs", "1M", "--dry-run", "--out", "digits"], ["something lies there"]),
        (["fit", "bad\udcff", "--macs", "1M", "--out", "run"], ["bad", "UTF-8"]),
        (["eval", "missing-run"], ["missing-run"]),
        (["eval", "efficientnet_b0", "digits"], ["random weights"]),
        (["predict", "efficientnet_b0", "digits"], ["random weights"]),
        (["predict", "missing-run", "digits"], ["missing-run"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_mistake_is_one_line_that_names_it_and_exit_code_two(
    triscale,  # noqa: ANN001
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    named: list[str],
    as_json: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").symlink_to(digits)
    (tmp_path / "one-class").mkdir()
    (tmp_path / "one-class" / "digit-0").symlink_to(digits / "digit-0")
    (tmp_path / "broken.json").write_text(to_json(published("efficientnet_b0")).replace('"kernel": 5', '"kernel": 4'))
    code, out, err = triscale(*words, *(["--json"] if as_json else []))
    assert code == 2
    if as_json:
        message = json.loads(out)["error"]
    else:
        assert out == ""
        message = err.strip().splitlines()[-1]
        assert message.startswith("triscale: ")
    for part in named:
        assert part in message
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_json_before_a_subcommand_which_would_not_hear_of_it_is_refused(triscale) -> None:  # noqa: ANN001
    code, out, _ = triscale("models", "--json", "download", "efficientnet_lite0")
    assert code == 2
    assert json.loads(out)["error"].startswith("models --json download: --json goes behind it")


def test_nothing_is_cut_off_where_output_goes_to_a_file(triscale, tmp_path: Path) -> None:  # noqa: ANN001
    _, out, _ = triscale("scale", "efficientnet_b0", "--steps", "0..3", "--out", tmp_path / "family")
    assert "…" not in out
    assert str(tmp_path / "family" / "efficientnet_b0-phi3.json") in out


def test_a_table_is_whole_on_a_narrow_terminal() -> None:
    out = io.StringIO()
    made = table("", "candidate", "MACs", "latency")
    made.add_row("→", "efficientnet_lite0_of_mine", "9.905M", "5.29 ms (3.58 ms to 6.02 ms)")
    print_table(Console(file=out, width=40), made)
    assert "efficientnet_lite0_of_mine" in out.getvalue()
    assert "5.29 ms (3.58 ms to 6.02 ms)" in out.getvalue()
    assert "…" not in out.getvalue()


def test_memory_that_runs_out_is_one_line(triscale, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("triscale.cli.main.app", full)
    code, _, err = triscale("cost", "efficientnet_b0")
    assert code == 1
    assert err.strip() == "triscale: not enough memory; a smaller network, or fewer images at a time, need less"


def test_fit_eval_and_predict_answer_in_json_alone(triscale, digits: Path, tmp_path: Path) -> None:  # noqa: ANN001
    place = tmp_path / "run"
    code, out, err = triscale("fit", digits, "--macs", "400k", "--epochs", "2", "--out", place, "--json")
    assert code == 0
    values = json.loads(out)
    assert Path(values["report"]).is_file()
    assert "epoch 2" in err
    code, out, _ = triscale("eval", place, digits, "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == values["test_accuracy"]
    code, out, _ = triscale("predict", place, digits / "digit-1", "--top", "2", "--json")
    assert code == 0
    predictions = json.loads(out)["predictions"]
    assert len(predictions) == 20
    assert all(len(guess["classes"]) == 2 for guess in predictions)


def test_a_dry_run_shows_the_plan_and_writes_nothing(triscale, digits: Path, tmp_path: Path) -> None:  # noqa: ANN001
    words = ("fit", digits, "--macs", "400k", "--baseline", "resnet18", "--baseline", "mobilenet_v2", "--dry-run")
    place = tmp_path / "run"
    before = sorted(digits.rglob("*"))
    code, out, err = triscale(*words, "--out", place)
    assert code == 0
    for word in ("resnet18", "mobilenet_v2", "taken", "images/s", "epochs", "expected to take"):
        assert word in out
    assert "next: triscale fit" in err
    assert "--dry-run" not in err
    plan = json.loads(triscale(*words, "--json")[1])["plan"]
    assert [row["name"] for row in plan["candidates"]] == ["resnet18", "mobilenet_v2"]
    assert plan["steps"] > 0
    assert not place.exists()
    assert sorted(digits.rglob("*")) == before


def test_the_plan_is_shown_before_training_and_what_was_achieved_after(
    triscale,  # noqa: ANN001
    digits: Path,
    tmp_path: Path,
) -> None:
    code, out, err = triscale(
        "fit", digits, "--macs", "400k", "--latency", "1s", "--epochs", "1", "--out", tmp_path / "run"
    )
    assert code == 0
    assert err.index("taken:") < err.index("epoch 1")
    assert "budget of 400k MACs" in out
    assert "1 epoch of batches of" in err
    assert "budget of 1 s latency" in out
    assert "none of these images is a copy" in out


def test_a_batch_above_the_images_is_shown_as_what_it_comes_to(
    triscale,  # noqa: ANN001
    digits: Path,
    tmp_path: Path,
) -> None:
    much = ("--epochs", 1, "--batch", 100_000, "--out", tmp_path / "run")
    code, _, err = triscale("train", digits, "--architecture", "mobilenet_v2", *much)
    assert code == 0, err
    run = RunDirectory(tmp_path / "run")
    settings = run.settings()
    learned = sum(settings["data"]["counts"]["train"].values())
    assert settings["plan"]["recipe"]["batch"] == 100_000
    assert f"1 epoch of 1 batch of {learned};" in err
    assert f"1 epoch of batches of {learned}," in run.report.read_text("utf-8")
    assert f"1 of 1, of {learned} images each" in run.card.read_text("utf-8")
    _, out, _ = triscale("fit", digits, "--macs", "400k", "--baseline", "resnet18", *much[:4], "--dry-run")
    assert f"1 epoch of batches of {learned}\n" in out


@pytest.mark.parametrize("given", [[], ["--balance"]])
def test_balance_is_advised_only_where_it_was_not_asked_for(
    triscale,  # noqa: ANN001
    tmp_path: Path,
    given: list[str],
) -> None:
    uneven = tmp_path / "images"
    digit_folder(uneven, classes=2)
    for picture in sorted((uneven / "digit-1").iterdir())[5:]:
        picture.unlink()
    plan = ("--macs", "400k", "--baseline", "resnet18", "--epochs", 1, "--dry-run")
    code, _, err = triscale("fit", uneven, *plan, *given)
    assert code == 0, err
    assert "classes are uneven" in err
    assert ("; --balance weighs" in err) is (not given)


def test_a_picture_that_cannot_be_read_makes_predict_fail_after_the_others(
    triscale,  # noqa: ANN001
    fitted: Fitted,
    digits: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    code, out, err = triscale("predict", fitted.run.path, tmp_path / "torn.png", digits / "digit-0" / "000.png")
    assert code == 1
    assert "000.png" in out
    picture = digits / "digit-0" / "000.png"
    torn, counted, following = err.strip().splitlines()
    assert "torn.png" in torn
    assert counted == "1 of 2 pictures could not be read"
    assert following == f"next: triscale explain {fitted.run.path} {picture}", "last, and of a picture that can be read"
    assert triscale("predict", fitted.run.path, tmp_path / "torn.png")[0] == 2


@pytest.mark.parametrize("kind", ["manifest", "torn manifest", "IDX", "folder"])
def test_what_predict_names_next_works(
    triscale,  # noqa: ANN001
    fitted: Fitted,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = [digits / name / "000.png" for name in ("digit-0", "digit-1", "digit-2")]
    place, verb = tmp_path / "seen", "explain" if kind == "folder" else "eval"
    if kind == "folder":
        place = digits / "digit-0"
    elif kind == "IDX":
        place.mkdir()
        pixels = np.stack([np.asarray(Image.open(picture)) for picture in pictures])
        header = struct.pack(">HBB3I", 0, 8, 3, *pixels.shape)
        (place / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (place / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI3B", 0, 8, 1, 3, 0, 1, 2))
        (place / "classes.txt").write_text("digit-0\ndigit-1\ndigit-2\n")
    else:
        place = tmp_path / "list.csv"
        lines = [f"{picture},{picture.parent.name}" for picture in pictures]
        if kind == "torn manifest":
            (tmp_path / "torn.png").write_bytes(b"no picture")
            lines.append("torn.png,digit-0")
        place.write_text("\n".join(["path,label", *lines, ""]))
    code, _, err = triscale("predict", fitted.run.path, place)
    assert code == (kind == "torn manifest")
    words = shlex.split(err.strip().splitlines()[-1])
    assert words[:5] == ["next:", "triscale", verb, str(fitted.run.path), str(place)]
    assert triscale(*words[2:])[0] == 0


def test_a_command_that_comes_next_takes_places_that_begin_with_a_dash(
    triscale,  # noqa: ANN001
    fitted: Fitted,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-run").symlink_to(fitted.run.path)
    Path("-dash.png").write_bytes((digits / "digit-0" / "000.png").read_bytes())
    code, _, err = triscale("predict", "--", "-run", "-dash.png")
    assert code == 0
    words = shlex.split(err.strip().splitlines()[-1])
    assert words == ["next:", "triscale", "explain", "./-run", "./-dash.png"]
    code, _, err = triscale(*words[2:], "--out=-seen")
    assert code == 0
    words = shlex.split(err.strip().splitlines()[-1])
    assert words[-2:] == ["--out", "./-seen-checked"]
    assert triscale(*words[2:])[0] == 0
    assert way(("triscale", "fit", "--resume", "--out", Path("-run"))).endswith("--resume --out ./-run")


def test_a_dry_run_of_a_place_after_two_dashes_names_a_command_that_takes_it(
    triscale,  # noqa: ANN001
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-digits").symlink_to(digits)
    code, _, err = triscale("fit", "--macs", "400k", "--baseline", "resnet18", "--dry-run", "--", "-digits")
    assert code == 0
    following = "next: triscale fit --macs 400k --baseline resnet18 --out RUN -- -digits"
    assert err.strip().splitlines()[-1] == following


def test_a_table_of_many_classes_keeps_its_columns_and_json_has_them_all(
    triscale,  # noqa: ANN001
    tmp_path: Path,
) -> None:
    network = Architecture(
        (Stage(MBConv(3, 2), 8),), stem=Stem(8), head=Head(200, 16), resolution=(16, 16), name="many"
    )
    look = Preprocess((16, 16), 3, (0.5,) * 3, (0.5,) * 3)
    new(network, tuple(f"class {i:03}" for i in range(200)), look).save(tmp_path / "many.safetensors")
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "china.png")
    words = ("predict", tmp_path / "many.safetensors", tmp_path / "china.png", "--top", "1000")
    code, out, _ = triscale(*words)
    assert code == 0
    assert out.split()[:3] == ["picture", "class", "then"]
    assert str(tmp_path / "china.png") in out
    assert (out.count("class 0") + out.count("class 1"), out.count("%")) == (10, 10)
    assert out.splitlines()[-1] == "… and 190 more; --json has them all"
    assert len(json.loads(triscale(*words, "--json")[1])["predictions"][0]["classes"]) == 200
    assert "more" not in triscale(*words[:-1], "10")[1]


def test_eval_says_that_it_takes_whatever_predict_takes(triscale) -> None:  # noqa: ANN001
    for verb in ("eval", "predict"):
        told = re.sub(r"[\s│]+", " ", triscale(verb, "--help")[1])
        for each in ("run directory", "ublished weights", "a file of weights"):
            assert each in told


def test_each_verb_names_the_next_command(triscale, fitted: Fitted) -> None:  # noqa: ANN001
    for words in (["models"], ["cost", "resnet18"], ["scale", "resnet18", "--factor", "2"], ["eval", fitted.run.path]):
        assert "next: " in triscale(*words)[2]


def test_without_a_word_the_help_is_shown(triscale) -> None:  # noqa: ANN001
    code, out, _ = triscale()
    assert code == 0
    assert "Start with: triscale demo" in " ".join(out.split())


def test_names_that_look_like_markup_are_printed_as_they_are(triscale, fitted: Fitted, tmp_path: Path) -> None:  # noqa: ANN001
    for name in ("my [bold] net", "my [#x] net", "[oops"):
        place = tmp_path / f"{name}.json"
        place.write_text(to_json(fitted.plan.architecture))
        code, _, err = triscale("cost", place)
        assert code == 0
        assert f"'{place}'" in err, "the next command names the path, quoted"


@pytest.mark.parametrize(
    "name", ["my  run", "\u5199\u771f\u3000\u590f", "at 9\u202fPM", "two\nlines", "it's\x1b[1m \\ odd"]
)
def test_names_in_error_lines_and_commands_are_those_of_the_files(triscale, tmp_path: Path, name: str) -> None:  # noqa: ANN001
    code, _, err = triscale("fit", "--resume", "--out", tmp_path / name)
    assert (code, err.count("\n")) == (2, 1)
    if not set(name) & {"\n", "\x1b"}:
        assert f"{tmp_path / name}: no run" in err
    assert eval_word(pasteable(tmp_path / name)) == str(tmp_path / name)


def eval_word(word: str) -> str:
    """What a shell makes of it."""
    return subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout.decode()


def test_an_internal_fault_is_one_json_object_too(triscale, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr("triscale.cli.cost.cost", fault)
    code, out, err = triscale("cost", "resnet18", "--json")
    assert code == 1
    assert "ZeroDivisionError" in json.loads(out)["error"]
    assert "Traceback" in err


@pytest.mark.slow
def test_a_demo_overwrites_nothing_and_can_be_run_twice(
    triscale,  # noqa: ANN001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triscale.cli.demo.EPOCHS", 1)
    (tmp_path / "digits" / "0").mkdir(parents=True)
    (tmp_path / "digits" / "0" / "0000.png").write_text("mine")
    runs = [json.loads(triscale("demo", "--out", tmp_path, "--json")[1])["run"] for _ in range(2)]
    assert [Path(run).name for run in runs] == ["demo-2", "demo-3"]
    assert (tmp_path / "digits" / "0" / "0000.png").read_text() == "mine"
    assert json.loads(triscale("eval", runs[0], "--json")[1])["evaluated"] == "held out"


@pytest.mark.parametrize(
    ("kind", "said"), [(HopelessError, "^no way$"), (TriscaleError, "^no way; go on with: triscale fit")]
)
def test_only_what_could_end_otherwise_is_told_to_go_on(kind: type[TriscaleError], said: str) -> None:
    def end() -> None:
        with stopping_gently(going_on("fit", Path("RUN"))) as signalled:
            signalled.begun = True
            raise kind("no way")

    with pytest.raises(TriscaleError, match=said):
        end()
