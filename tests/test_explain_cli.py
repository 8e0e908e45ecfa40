"""`triscale explain` as a person or a script meets it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from triscale.arch import Architecture, Head, MBConv, Stage, Stem
from triscale.data import Preprocess
from triscale.models.model import new

Answer = tuple[int, str, str]
Triscale = Callable[..., Answer]

TINY = Architecture((Stage(MBConv(3, 2), 8, 2, 2),), stem=Stem(8), head=Head(3, 16), resolution=(48, 64), name="tiny")
LOOK = Preprocess((48, 64), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), crop=0.9)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two models, two photographs and a file that is no picture."""
    for seed, name in enumerate(("one", "other")):
        model = new(TINY, ("cat", "tabby cat", "[bold] dog"), LOOK, seed=seed)
        model.save(tmp_path / f"{name}.safetensors")
    (tmp_path / "photos").mkdir()
    for name in ("china", "flower"):
        picture = Image.fromarray(load_sample_image(f"{name}.jpg")).resize((160, 107))
        picture.save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_answer_has_the_promised_keys_and_the_map_adds_up(triscale: Triscale, here: Path) -> None:
    code, out, err = triscale("explain", "one.safetensors", "photos", "--beside", "other.safetensors", "--json")
    values = json.loads(out)
    assert (code, err) == (0, "")
    assert [picture["path"] for picture in values["pictures"]] == ["photos/china.png", "photos/flower.png"]
    assert (values["sheets"], values["left"]) == (["explained/sheet.png"], 0)
    assert "sanity" not in values
    overlays = []
    for picture in values["pictures"]:
        assert [each["network"] for each in picture["networks"]] == ["one", "other"]
        for each in picture["networks"]:
            assert each["class"] in ("cat", "tabby cat", "[bold] dog")
            assert 0 < each["probability"] <= 1
            assert each["sum"] == pytest.approx(each["logit"] - each["bias"], abs=1e-5)
            assert (each["method"], each["map"]) == ("cam", [12, 16])
            overlays.append(each["overlay"])
    assert len(set(overlays)) == 4
    assert {Path(place).name for place in (*overlays, "sheet.png")} == {p.name for p in (here / "explained").iterdir()}


def test_a_person_reads_classes_figures_and_where_to_look(triscale: Triscale, here: Path) -> None:
    code, out, err = triscale("explain", "one.safetensors", "photos", "--class", "[bold] dog", "--out", "seen")
    assert code == 0
    assert out.count("[bold] dog") == 2
    assert "of the map" in out
    assert "seen/sheet.png" in out
    assert "next: triscale explain one.safetensors photos --class '[bold] dog' --sanity --out seen-checked" in err
    words = err[err.index("next: ") :].split()[2:]
    assert triscale(*[word.strip("'") for word in words if word not in ("'[bold]", "dog'", "--class")])[0] == 0


def test_the_sanity_check_is_a_figure_and_a_sentence(triscale: Triscale, here: Path) -> None:
    code, out, _ = triscale("explain", "one.safetensors", "photos", "--sanity", "--json")
    assert code == 0
    check = json.loads(out)["sanity"]["one"]
    assert 0 <= check["range"][0] <= check["rank_correlation"] <= check["range"][1] <= 1
    assert (check["seeds"], check["pictures"], check["flat"]) == (5, 2, 0)
    assert check["explains_network"] == ("depend on what the network has learned" in check["verdict"])
    code, out, err = triscale("explain", "one.safetensors", "photos", "--sanity", "--out", "again")
    assert code == 0
    assert check["verdict"] in out
    assert f"{check['rank_correlation']:.2f}" in out
    assert "next: triscale eval one.safetensors" in err


def test_without_a_directory_the_first_free_one_is_taken_and_nothing_overwritten(
    triscale: Triscale, here: Path
) -> None:
    (here / "explained-2").write_text("mine")
    words = ("explain", "one.safetensors", "photos/china.png")
    for place in ("explained", "explained-3", "explained-4"):
        code, out, err = triscale(*words)
        assert code == 0
        assert f"to look at: {place}/sheet.png" in out
    assert err.strip() == "next: triscale explain one.safetensors photos/china.png --sanity", "it finds its own too"
    assert (here / "explained-2").read_text() == "mine"
    code, _, err = triscale(*words, "--out", "explained")
    assert code == 2
    assert "--out explained: something lies there" in err


def test_an_earlier_stage_is_looked_at_by_grad_cam(triscale: Triscale, here: Path) -> None:
    code, out, _ = triscale("explain", "one.safetensors", "photos/china.png", "--stage", "0", "--json")
    [each] = json.loads(out)["pictures"][0]["networks"]
    assert code == 0
    assert (each["method"], each["stage"]) == ("grad-cam", 0)


def test_a_map_of_one_position_is_said_to_show_nothing(triscale: Triscale, here: Path) -> None:
    blind = Architecture((Stage(MBConv(3, 2), 8),), stem=Stem(8), head=Head(3, 16), resolution=(2, 2), name="blind")
    look = Preprocess((2, 2), 3, (0.5,) * 3, (0.5,) * 3)
    new(blind, ("a", "b", "c"), look).save(here / "blind.safetensors")
    code, _, err = triscale("explain", "blind.safetensors", "photos", "--sanity")
    assert code == 0
    assert "blind: its map has one position" in err


def test_a_picture_that_cannot_be_read_makes_it_fail_after_the_others(triscale: Triscale, here: Path) -> None:
    code, out, err = triscale("explain", "one.safetensors", "torn.png", "photos", "--json", "--sanity")
    assert code == 1
    pictures = json.loads(out)["pictures"]
    assert "torn.png" in pictures[0]["error"]
    assert all(Path(each["overlay"]).is_file() for picture in pictures[1:] for each in picture["networks"])
    assert err.count("torn.png") == 1
    assert "1 of 3 pictures could not be read" in err
    code, _, err = triscale("explain", "one.safetensors", "torn.png", "photos")
    assert code == 1
    assert err.strip().splitlines()[-1].startswith("next: "), "what to do comes last"


def test_links_that_lead_nowhere_are_counted_and_do_not_hide_the_others(triscale: Triscale, here: Path) -> None:
    (here / "photos" / "dead.png").symlink_to("nowhere.png")
    (here / "photos" / "self.png").symlink_to("self.png")
    code, out, err = triscale("explain", "one.safetensors", "photos", "--json")
    assert code == 1
    told = {Path(picture["path"]).name: picture.get("error", "") for picture in json.loads(out)["pictures"]}
    assert "no such file" in told.pop("dead.png")
    assert "symbolic links" in told.pop("self.png")
    assert told == {"china.png": "", "flower.png": ""}
    assert "2 of 4 pictures could not be read" in err


def test_what_is_beyond_the_most_pictures_is_said_to_be_left(
    triscale: Triscale, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.cli.explain.MOST", 1)
    code, out, err = triscale("explain", "one.safetensors", "photos", "--json")
    assert code == 0
    assert json.loads(out)["left"] == 1
    assert "1 of 2 pictures" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["missing-run", "photos"], ["missing-run"]),
        (["resnet18", "photos"], ["resnet18", "random weights"]),
        (["one.safetensors", "photos", "--beside", "resnet18"], ["resnet18", "random weights"]),
        (["one.safetensors", "missing.png"], ["missing.png"]),
        (["one.safetensors", "torn.png"], ["torn.png"]),
        (["one.safetensors", "photos", "--class", "tabby"], ["tabby", "tabby cat", "one"]),
        (["one.safetensors", "photos", "--stage", "1"], ["--stage 1", "one"]),
        (["one.safetensors", "photos", "--stage", "last"], ["--stage", "last"]),
        (["one.safetensors", "photos", "--out", "photos"], ["--out photos", "new or empty"]),
        (["one.safetensors", "photos", "--out", "torn.png"], ["--out torn.png", "new or empty"]),
        (["one.safetensors", "photos", "--out", "torn.png/x"], ["torn.png/x"]),
        (["one.safetensors"], ["pictures", "--help"]),
    ],
    ids=lambda value: " ".join(value),
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_mistake_is_one_line_that_names_it_and_leaves_nothing(
    triscale: Triscale, here: Path, words: list[str], named: list[str], as_json: bool
) -> None:
    before = sorted(here.rglob("*"))
    code, out, err = triscale("explain", *words, *(["--json"] if as_json else []))
    assert code == 2
    message = json.loads(out)["error"] if as_json else err.strip()
    assert "\n" not in message
    assert "Traceback" not in err
    for part in named:
        assert part.casefold() in message.casefold()
    assert sorted(here.rglob("*")) == before


def test_the_help_shows_an_example(triscale: Triscale) -> None:
    code, out, _ = triscale("explain", "--help")
    assert code == 0
    assert "Example: triscale explain" in " ".join(out.split())
    for option in ("--beside", "--class", "--stage", "--sanity", "--out", "--json"):
        assert option in out
