"""ARCHITECTURE.md names the rooms in the order that `make lint` holds, and every module in its room's row."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "triscale"


def rows() -> dict[str, str]:
    """Room → its row of the table; the single modules of the ground share one."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("| room |")[1].split("\n\n")[0].splitlines()[2:]
    return {room.rstrip("/"): row for row in table for room in re.findall(r"`([^`]+)`", row.split("|")[1])}


def layers() -> list[str]:
    """The rooms as `.importlinter` has them, from the ground up."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    listed = contracts["importlinter:contract:direction"]["layers"].split()
    return [layer.strip("()").removeprefix("triscale.") for layer in reversed(listed)]


def test_the_rows_stand_in_the_order_in_which_rooms_may_import() -> None:
    assert list(rows()) == layers()


def test_every_room_has_a_row() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert packages | modules == rows().keys()


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_every_module_stands_in_its_rooms_row(room: str) -> None:
    named = {name.strip("/") for name in re.findall(r"`([^`]+)`", rows()[room].split("|", 3)[3])}
    modules = {path.stem for path in (PACKAGE / room).rglob("*.py") if path.stem != "__init__"}
    missing = sorted(modules - named)
    assert not missing, f"ARCHITECTURE.md does not say in the row of {room}/ what lives in: {', '.join(missing)}"
