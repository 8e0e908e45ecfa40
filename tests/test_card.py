import json
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pictures import digit_folder

from triscale.errors import UserError
from triscale.evaluating import measure, read_table
from triscale.evaluating.table import Table
from triscale.fitting import Fitted, How, Listener, fit, resume, train
from triscale.reporting import write_card
from triscale.reporting.card import FEW_CLASSES, WORST, card
from triscale.reporting.markdown import Markdown, escape, shown
from triscale.runs import RunDirectory

HEADINGS = [
    "Model",
    "Intended use",
    "Data",
    "Splits and leaks",
    "Recipe",
    "Accuracy",
    "Calibration",
    "Cost",
    "Weights it started from",
    "How to use it",
]
PUBLISHED = {
    "name": "timm/mobilenet_v2",
    "project": "timm",
    "file": "weights.pth",
    "sha256": "ab" * 32,
    "source": "https://example.com/weights.pth",
    "licence": "Apache-2.0",
    "trained_on": "ImageNet-1k",
    "published_top1": 0.7295,
    "published_by": "its authors",
    "read_as": None,
}
HOSTILE = "|\\`*_<>&#-+=!$[](){}~:;.'\" \n\r\t1a\u202e\u3000\xa0\u200d\x7f\x85\u2028"
TEXTS = st.text(
    st.one_of(st.sampled_from(HOSTILE), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    min_size=1,
    max_size=10,
)


def read_markdown(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def words(token: Token) -> str:
    """The text of a piece that is nothing but text."""
    assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.content
    return "".join(child.content for child in token.children or ())


def body(text: str) -> str:
    """What follows the YAML."""
    assert text.startswith("---\n")
    return text[4:].split("\n---\n", 1)[1]


def head(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text[4:].split("\n---\n", 1)[0])
    assert isinstance(found, dict)
    return found


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a card: rows of cells, as a reader sees them."""
    found: list[list[list[str]]] = []
    for token in read_markdown(body(text)):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and token.level > 3:
            found[-1][-1].append("".join(child.content for child in token.children or ()))
    return found


def rows(text: str, *columns: str) -> list[list[str]]:
    """The rows of the table with these columns."""
    (found,) = [table[1:] for table in tables(text) if table[0] == list(columns)]
    return found


def facts(text: str) -> dict[str, str]:
    """Those of the tables that have no head."""
    return {row[0]: row[1] for table in tables(text) if table[0] == ["", ""] for row in table[1:]}


def sections(text: str) -> list[str]:
    """The headings, that of the whole left out."""
    tokens = read_markdown(body(text))
    return [words(token) for before, token in pairwise(tokens) if before.tag == "h2" and token.type == "inline"]


def beside(fitted: Fitted, place: Path, **plan: object) -> RunDirectory:
    """A copy of a run, with other values in its plan."""
    shutil.copytree(fitted.run.path, place)
    run = RunDirectory(place)
    values = run.settings()
    run.write_settings(values | {"plan": values["plan"] | plan})
    return run


def renamed(fitted: Fitted, place: Path, classes: Sequence[str], path: str, table: Table) -> RunDirectory:
    """The same run as if its data had been another folder with these classes; of the model only what it says of
    itself."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    run, values = RunDirectory(place), fitted.run.settings()
    counts = {split: dict.fromkeys(classes, 3) for split in ("train", "val", "test")}
    run.write_settings(values | {"data": values["data"] | {"path": path, "counts": counts}})
    run.predictions.write_text(table.to_csv(), encoding="utf-8", newline="")
    content = fitted.run.model.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    header = json.dumps({"__metadata__": metadata | {"classes": json.dumps(list(classes))}}).encode()
    run.model.write_bytes(len(header).to_bytes(8, "little") + header)
    return run


def answers(classes: Sequence[str], right: Sequence[int], each: int = 4) -> Table:
    """Of each class `each` images, of which so many are named right and the others are called the next class."""
    k = len(classes)
    labels = np.repeat(np.arange(k), each)
    hit = np.concatenate([np.arange(each) < n for n in right])
    sure = np.full(k * each, 0.5, np.float32)
    rank = np.where(hit, 1, 2)
    predicted = np.where(hit, labels, (labels + 1) % k)
    names = tuple(f"{i}.png" for i in range(k * each))
    return Table(names, labels, predicted, sure, rank, np.where(hit, sure, sure / 2), (), tuple(classes))


def test_a_finished_fit_has_a_card_with_what_was_measured(fitted: Fitted) -> None:
    text, result = fitted.run.card.read_text(encoding="utf-8"), fitted.run.settings()["result"]
    assert sections(text) == HEADINGS
    measures = measure(read_table(fitted.run.predictions))
    low, high = result["test_accuracy_interval_95"]
    found = {row[0]: row[1:] for row in rows(text, "measure", "value", "95 % interval")}
    assert found["accuracy"] == [f"{100 * result['test_accuracy']:.2f} %", f"{100 * low:.2f} % to {100 * high:.2f} %"]
    assert found["balanced accuracy (mean of the recalls)"][0] == f"{100 * measures.balanced.value:.2f} %"
    assert f"{fitted.plan.scaled.cost.macs:,}" in text
    assert f"{fitted.plan.scaled.cost.params:,}" in text
    assert f"n = {result['latency']['n']}" in text
    assert fitted.run.settings()["data"]["fingerprint"] in text
    assert [row[0] for row in rows(text, "budget", "asked", "realised", "used")] == ["MACs"]
    assert "it learned from random weights" in text
    scaled = fitted.plan.scaled
    assert facts(text)["scaled from"].startswith(f"{scaled.baseline.name} by the rule {scaled.rule}: depth ×")
    assert facts(text)["scaled from"].endswith(f"realised ×{scaled.realised:.4g}")


def test_its_head_is_yaml_with_nothing_but_what_is_known(fitted: Fitted) -> None:
    assert head(fitted.run.card.read_text(encoding="utf-8")) == {
        "library_name": "triscale",
        "pipeline_tag": "image-classification",
        "tags": ["triscale"],
        "metrics": ["accuracy"],
    }


def test_it_says_nothing_of_where_somebodys_files_lie(fitted: Fitted, digits: Path, tmp_path: Path) -> None:
    text = fitted.run.card.read_text(encoding="utf-8")
    assert str(digits.parent) not in text
    assert str(fitted.run.path.parent) not in text
    classes = ["a", "b", "c"]
    run = renamed(fitted, tmp_path / "run", classes, r"C:\Users\somebody\birds", answers(classes, [1, 2, 3]))
    assert "somebody" not in card(run)
    assert "birds" in card(run)


def test_it_is_written_again_to_the_same_bytes_without_the_images(fitted: Fitted, tmp_path: Path) -> None:
    run = beside(fitted, tmp_path / "copy")
    run.card.unlink()
    write_card(run)
    assert run.card.read_bytes() == fitted.run.card.read_bytes()


@settings(max_examples=400)
@given(TEXTS)
@example("a|b")
@example("- x")
@example("1. x")
@example("\\|")
@example("<!-- x")
@example(" \u3000x\xa0")
@example("www.example.com")
def test_a_text_is_read_as_what_it_is_wherever_it_stands(text: str) -> None:
    written = escape(text)
    assert "\n" not in written
    for before, after in (("# x ", ""), ("x ", ""), ("", "x"), ("- ", "x"), ("# ", " x")):
        (found,) = [t for t in read_markdown(f"{before}{written}{after}\n") if t.type == "inline"]
        assert words(found) == before.lstrip("#- ") + shown(text) + after
    table = [t for t in read_markdown(f"| a | b |\n| --- | --- |\n| {written} | {written} |\n") if t.type == "inline"]
    assert [words(token) for token in table] == ["a", "b", shown(text), shown(text)]


def test_what_has_no_sign_is_shown_and_words_of_any_language_stay() -> None:
    assert shown("a\nb\u202e\udc80") == r"a\nb\u202e\udc80"
    for text in ("Käse", "犬 と 猫", "نمی\u200cدانم", "👨\u200d👩"):
        assert shown(text) == text
    assert escape(Markdown("**x**")) == "**x**"


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=3, max_size=3, unique_by=shown), TEXTS.filter(lambda text: "/" not in text))
@example(["a|b", "---", "# x"], "```\n<b>")
@example(["<script>alert(1)</script>", "- x", "[x](y)"], "![x](y) | `z`")
def test_no_name_of_a_class_or_a_folder_changes_what_the_card_says(
    fitted: Fitted, tmp_path_factory: pytest.TempPathFactory, classes: list[str], folder: str
) -> None:
    place = tmp_path_factory.getbasetemp() / "hostile"
    text = card(renamed(fitted, place, classes, f"/data/{folder}", answers(classes, [1, 2, 3])))
    tokens = read_markdown(body(text))
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_block", "blockquote_open", "hr"}
    assert sections(text) == HEADINGS
    assert words(tokens[1]).endswith(f'on "{shown(Path(f"/data/{folder}").name)}"')
    assert head(text)["library_name"] == "triscale"
    assert [row[0] for row in rows(text, "class", "train", "val", "test")] == list(map(shown, classes))
    recalls = rows(text, "class", "test images", "recall", "95 % interval")
    assert [row[:3] for row in recalls] == [
        [shown(name), "4", share] for name, share in zip(classes, ("25.0 %", "50.0 %", "75.0 %"), strict=True)
    ]


def test_of_many_classes_those_of_lowest_recall_are_listed(fitted: Fitted, tmp_path: Path) -> None:
    classes = [f"class {i:02}" for i in range(FEW_CLASSES + 1)]
    right = [4] * len(classes)
    right[20], right[7] = 0, 1
    text = card(renamed(fitted, tmp_path / "run", classes, "/data/many", answers(classes, right)))
    listed = [row[0] for row in rows(text, "class", "test images", "recall", "95 % interval")]
    assert len(listed) == WORST
    assert listed[:3] == ["class 20", "class 07", "class 00"]
    assert "among the five likeliest" in text


@pytest.mark.parametrize(
    ("licence", "of_the_hub"), [("Apache-2.0", "apache-2.0"), ("a licence of somebody's own", None), (None, None)]
)
def test_the_licence_of_the_weights_is_named_and_told_to_the_hub_where_it_knows_it(
    fitted: Fitted, tmp_path: Path, licence: str | None, of_the_hub: str | None
) -> None:
    text = card(beside(fitted, tmp_path / "run", weights=PUBLISHED | {"licence": licence}))
    assert head(text).get("license") == of_the_hub
    assert head(text)["tags"] == ["triscale", "fine-tuned"]
    found = facts(text)
    assert found["licence"] == (licence or "not known here")
    assert found["source"] == PUBLISHED["source"]
    assert found["accuracy on ImageNet"] == "72.95 % as published by its authors, not measured here"
    assert "whether test images are among it is not known" in text


def test_copies_of_what_the_weights_had_learned_from_are_counted_apart(fitted: Fitted, tmp_path: Path) -> None:
    images = digit_folder(tmp_path / "more", first=10)
    tuned = fit(images, out=tmp_path / "tuned", weights=fitted.run.path, epochs=1, seed=1)
    text = tuned.run.card.read_text(encoding="utf-8")
    before = {digest for split, digest in fitted.run.splits().values() if split != "test"}
    copies = sum(digest in before for split, digest in tuned.run.splits().values() if split == "test")
    assert copies == tuned.leaks > 0
    assert f"**{copies} of {len(tuned.test.labels)}** test images are exact copies" in text
    assert f"0 of them lie in this run's training or validation images, {copies} in those of the run" in text
    assert "From scratch the same network names" in text
    assert facts(text)["file"] == "run, from triscale"


def test_a_training_has_a_card_too(digits: Path, tmp_path: Path) -> None:
    trained = train(digits, out=tmp_path / "run", architecture="mobilenet_v2", epochs=1, deterministic=True)
    assert trained is not None
    text = trained.run.card.read_text(encoding="utf-8")
    assert "No budget was asked for." in text
    assert "scaled from" not in text
    assert "repeatable to the byte" in text


def test_it_says_in_which_instruction_sets_the_kernels_trained(fitted: Fitted, tmp_path: Path) -> None:
    machine = fitted.run.settings()["plan"]["machine"]
    run = beside(fitted, tmp_path / "run", machine=machine | {"kernels": ["stem.conv.norm"]})
    values = run.settings()
    run.write_settings(values | {"versions": values["versions"] | {"kernels": "avx512bf16, then avx2"}})
    assert facts(card(run))["system"] == f"{values['versions']['platform']}; own kernels: avx512bf16, then avx2"
    run.write_settings(values | {"plan": values["plan"] | {"machine": machine | {"kernels": []}}})
    assert facts(card(run))["system"] == values["versions"]["platform"], "where no layer trained by one"


def _unfinished(run: RunDirectory) -> None:
    run.write_settings({key: value for key, value in run.settings().items() if key != "result"})


def _older(run: RunDirectory) -> None:
    run.write_settings(run.settings() | {"plan": {}})


def _emptied(run: RunDirectory) -> None:
    run.write_settings(run.settings() | {"result": {"leaks": []}, "data": None})


def _counted_otherwise(run: RunDirectory) -> None:
    run.write_settings(run.settings() | {"result": run.settings()["result"] | {"steps": 5}})


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_unfinished, "is not finished"),
        (_older, "not what this version can describe"),
        (_emptied, "not what this version can describe"),
        (_counted_otherwise, "not what this version can describe"),
        (lambda run: run.model.unlink(), r"model\.safetensors: No such file"),
        (lambda run: run.predictions.unlink(), r"predictions\.csv: cannot be read"),
        (lambda run: (run.path / "splits.csv").write_bytes(b"\xff"), r"splits\.csv: not readable"),
    ],
)
def test_a_run_that_cannot_be_described_is_named_and_keeps_its_card(
    fitted: Fitted, tmp_path: Path, harm: Callable[[RunDirectory], object], says: str
) -> None:
    run = beside(fitted, tmp_path / "run")
    before = run.card.read_bytes()
    harm(run)
    with pytest.raises(UserError, match=says):
        write_card(run)
    assert run.card.read_bytes() == before


def test_it_names_the_engine_and_the_precision_of_the_latency(fitted: Fitted, tmp_path: Path) -> None:
    more = {"engine": "openvino", "precision": "bf16"}
    run = beside(fitted, tmp_path / "run")
    result = run.settings()["result"]
    run.write_settings(run.settings() | {"result": result | {"latency": result["latency"] | more}})
    assert "by the engine openvino, on cpu" in card(run)
    assert f"in bf16, threads: {result['latency']['threads']}" in card(run)


def test_a_run_without_a_list_of_its_images_says_how_many_copies_there_were(fitted: Fitted, tmp_path: Path) -> None:
    run = beside(fitted, tmp_path / "run")
    (run.path / "splits.csv").unlink()
    run.write_settings(run.settings() | {"result": run.settings()["result"] | {"leaks": 2}})
    assert "**2 of 12** test images are exact copies" in card(run)


def test_a_run_that_was_killed_just_before_its_card_gets_it_when_it_goes_on(fitted: Fitted, tmp_path: Path) -> None:
    run = beside(fitted, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    run.card.unlink()
    run.report.unlink()
    resume(run.path, How(Listener()))
    assert "<html" in run.report.read_text(encoding="utf-8")
    after = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert after | {"report.html": before["report.html"]} == before
