"""Commands of the README and the guides in docs/ run, with small budgets."""

import re
import shutil
from pathlib import Path

import guides
import pytest
from pages import Terminal


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRISCALE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("page", guides.GUIDES, ids=lambda page: page.name)
def test_commands_of_a_guide_are_run_or_named_with_the_reason(page: Path) -> None:
    for command in guides.commands(page):
        assert command.startswith("triscale ") or guides.reason(command), command


@pytest.mark.slow
@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("page", [page for page in guides.GUIDES if guides.commands(page)], ids=lambda page: page.name)
def test_commands_of_a_guide_run_with_a_small_budget(page: Path, tmp_path: Path) -> None:
    place = tmp_path / "here"
    guides.furnish_guide(place)
    terminal = Terminal(place)
    for name in ("mine", "other"):
        terminal.type(
            f"triscale train IMAGES --architecture my-network.json --epochs 1 --deterministic --out runs/{name}"
        )
        assert terminal.rc == 0
    for command in guides.commands(page):
        if guides.reason(command) is None:
            made = re.search(r" --out (runs/\w+)", command)
            if made and "--resume" not in command:  # a guide may take the same name for another example
                shutil.rmtree(place / made[1], ignore_errors=True)
            printed = terminal.type(guides.smaller(command))
            assert terminal.rc == 0, f"{guides.smaller(command)}\n{printed}"
