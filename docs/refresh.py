"""Runs the commands of the documentation's pages and writes what they print into the pages.

    python docs/refresh.py                    # every page; some minutes
    python docs/refresh.py docs/verbs/cost.md # these alone
    python docs/refresh.py --generated        # only the parts that are made without running anything: tables of options

The tests run the same commands by the same code, tests/pages.py, and compare all but the figures.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from command_line import GENERATED, made
from pages import DOCS, Terminal, blocks, furnish, shortened


def with_outputs(text: str, terminal: Terminal) -> str:
    """The page with what its commands print here."""
    parts, done = [], 0
    for block in blocks(text):
        if not block.runs:
            continue
        lines: list[str] = []
        before = ""
        for position, command in enumerate(block.commands):
            began = time.monotonic()
            output = shortened(terminal.type(command.text))
            print(f"  {time.monotonic() - began:6.1f} s  {terminal.rc}  {command.text}", file=sys.stderr)
            if terminal.rc and not block.may_fail(position):
                raise SystemExit(f"{command.text}\n{output}")
            lines += [""] if lines and "\n" in before + output else []
            lines += [f"$ {command.text}", *output.splitlines()]
            before = output
        parts += [text[done : block.start], "\n".join(lines) + "\n"]
        done = block.end
    return "".join([*parts, text[done:]])


def main() -> None:
    """The pages that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--generated", action="store_true")
    parser.add_argument(
        "--demo", type=Path, help="a directory in which triscale demo was run; made where there is none"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        demo: Path = asked.demo.resolve() if asked.demo else Path(place) / "demo"
        for page in asked.pages or sorted(DOCS.rglob("*.md")):
            text = GENERATED.sub(made, page.read_text())
            if not asked.generated and any(block.runs for block in blocks(text)):
                if not demo.exists():
                    demo.mkdir()
                    Terminal(demo).type("triscale demo")
                print(page, file=sys.stderr)
                with furnish(
                    Path(place) / "pages" / page.resolve().relative_to(DOCS).with_suffix(""), text, demo
                ) as terminal:
                    text = with_outputs(text, terminal)
            page.write_text(text)


if __name__ == "__main__":
    main()
