"""The documentation is true: the commands of its pages run and print what the pages show."""

import ast
import contextlib
import doctest
import inspect
import re
from pathlib import Path

import guides
import pytest
from command_line import GENERATED, accept, made, verbs
from pages import README, ROOT, TEXTS, Block, Terminal, begins_empty, blocks, furnish, shape, shortened

import triscale
from triscale.cli.demo import write_digits
from triscale.fitting import fit

# Trains for longer than a moment: the slow tier.
LONG = {"tour.md"} | {f"verbs/{verb}.md" for verb in ("bench", "compare", "demo", "fit", "search", "study", "train")}
# Everything that is in pages of verbs and not run: the beginning of its title, and why.
NOT_RUN = {
    "they run in what it installs": "index.md",
    "your images, ten minutes": "tour.md",
    "ten minutes, two hours": "verbs/fit.md",
    "an hour": "verbs/study.md, verbs/search.md",
    "needs a network": "verbs/models.md",
    "needs a file of another project": "verbs/models.md",
    "a minute, two processes": "verbs/train.md",
    "listens to other machines": "verbs/serve.md",
    "half a minute": "verbs/export.md",
    "takes minutes": "verbs/bench.md",
}
RUNS = [name for name, text in TEXTS.items() if any(block.runs for block in blocks(text))]
WITH_PYTHON = [name for name, text in TEXTS.items() if "```pycon" in text]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `triscale demo` leaves, with fewer epochs and no other candidate."""
    place = tmp_path_factory.mktemp("demo")
    write_digits(place / "runs" / "digits")
    with contextlib.chdir(place):
        fit("runs/digits", out="runs/demo", macs=3e6, epochs=8, baseline=["resnet18"])
    return place


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRISCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")


class Shapes(doctest.OutputChecker):
    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return shape(want) == shape(got)


def marked(names: list[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in names]


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("name", marked(RUNS))
def test_a_pages_commands_print_what_the_page_shows(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = TEXTS[name]
    start = tmp_path if begins_empty(text) else request.getfixturevalue("demo")
    with furnish(tmp_path / "here", text, start) as terminal:
        for block in blocks(text):
            if block.runs:
                carry_out(block, terminal)
    run_python(text, name, tmp_path / "here")


def carry_out(block: Block, terminal: Terminal) -> None:
    for position, command in enumerate(block.commands):
        printed = terminal.type(command.text)
        if command.text == "echo $?":
            assert printed == command.output
        else:
            assert terminal.rc == 0 or block.may_fail(position), f"{command.text}\n{printed}"
            assert not block.compared or shape(printed) == shape(command.output), command.text


def run_python(text: str, name: str, directory: Path) -> None:
    examples = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(examples, {}, name, name, 0)
    with contextlib.chdir(directory):
        said: list[str] = []
        doctest.DocTestRunner(checker=Shapes(), verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", [name for name in WITH_PYTHON if name not in RUNS])
def test_python_examples_give_what_the_page_shows(name: str, demo: Path) -> None:
    run_python(TEXTS[name], name, demo)


def test_a_difference_in_words_is_seen_and_one_in_figures_is_not() -> None:
    page = "accuracy 97.21% (n = 359)\ntook 1 min 4 s\nepoch 1: loss 2.5\nepoch 2: loss 1.5"
    assert shape(page) == shape("accuracy 100.00% (n = 36)\ntook 812 ms\nepoch 1: loss 2.1")
    for other in ("accuracy 97.21% (n = 359)\ntook", page.replace("loss", "error"), page + "\nreport: runs", ""):
        assert shape(page) != shape(other)


def test_a_long_output_is_shortened_without_a_change_of_shape() -> None:
    output = "begin\n" + "\n".join(f"epoch {epoch}: loss {1 / epoch:.3f}" for epoch in range(1, 51)) + "\nend"
    assert shortened(output).count("\n") == 5
    assert shape(shortened(output)) == shape(output)


def test_every_verb_has_a_page() -> None:
    assert {f"verbs/{verb}.md" for verb in verbs()} | {"verbs/index.md"} == {
        name for name in TEXTS if name.startswith("verbs/")
    }


@pytest.mark.parametrize("verb", verbs())
def test_a_page_of_a_verb_has_its_options_and_its_exit_codes(verb: str) -> None:
    text = TEXTS[f"verbs/{verb}.md"]
    assert f"<!-- options: {verb} -->" in text
    for below in getattr(verbs()[verb], "commands", {}):
        assert f"<!-- options: {verb} {below} -->" in text
    assert re.search(r"^Exit codes: 0\b", text, re.MULTILINE)
    assert any(block.runs for block in blocks(text))


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if GENERATED.search(text)])
def test_generated_tables_are_what_the_program_says_now(name: str) -> None:
    for found in GENERATED.finditer(TEXTS[name]):
        assert found[0] == made(found), "run: python docs/refresh.py --generated"


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    titles = [block.title for text in TEXTS.values() for block in blocks(text) if not block.runs]
    for title in titles:
        assert any(why in title for why in NOT_RUN), title
        assert all((ROOT / "tests" / name).exists() for name in re.findall(r"test_\w+\.py", title)), title
    for why in NOT_RUN:
        assert any(why in title for title in titles), f"nothing is left out any more because: {why}"


def typed() -> set[str]:
    """Every command of the pages, the guides and the README that begins with `triscale`."""
    commands = {command.text for text in TEXTS.values() for block in blocks(text) for command in block.commands}
    commands |= {command for page in guides.GUIDES for command in guides.commands(page)}
    return {command for command in commands if command.startswith("triscale ")}


@pytest.mark.parametrize("command", sorted(typed()))
def test_the_command_line_has_every_command_of_the_documentation(command: str) -> None:
    accept(re.split(r" (?:[|&]|2?>)(?: |$)", command)[0])


@pytest.mark.parametrize("name", ["README.md", *TEXTS])
def test_the_command_line_has_what_sentences_and_tables_name(name: str) -> None:
    for found in guides.INLINE.finditer(TEXTS.get(name, README)):
        command = guides.bare(" ".join(found[1].split()))
        if "VERB" not in command:
            accept(command, whole=False)


@pytest.mark.parametrize("name", ["README.md", *TEXTS])
def test_python_in_the_documentation_calls_what_there_is(name: str) -> None:
    text = TEXTS.get(name, README)
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for call in ast.walk(ast.parse(block)):
            if not isinstance(call, ast.Call) or not re.fullmatch(r"triscale(\.\w+)+", ast.unparse(call.func)):
                continue
            function: object = triscale
            for part in ast.unparse(call.func).split(".")[1:]:
                function = getattr(function, part)
            assert callable(function)
            inspect.signature(function).bind(*call.args, **{word.arg: None for word in call.keywords if word.arg})


def test_readme_shows_what_its_commands_print(tmp_path: Path) -> None:
    shown = {
        guides.bare(block[0]): block[1]
        for block in re.findall(r"^    \$ (.*)\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    }
    assert "triscale cost efficientnet_b7" in shown
    expected = shape(inspect.cleandoc(shown["triscale cost efficientnet_b7"]))
    printed = shape(Terminal(tmp_path).type("triscale cost efficientnet_b7"))
    assert printed[: len(expected)] == expected
