"""The documentation as a site: built without a network, complete, with links that lead somewhere."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import DOCS, ROOT, TEXTS

import triscale

API = "\n".join(text for name, text in TEXTS.items() if name.startswith("api/"))
FIGURE = re.compile(r"\([+-]?\d[\d.]* to [+-]?\d[\d.]*\)|\(\d[\d.]*-\d[\d.]*\)|95 % interval [+-]?\d")


def test_every_public_name_is_in_the_api_under_its_own_name() -> None:
    shown = {}
    for path, name in re.findall(r"^::: ([\w.]+)\n    options:\n      heading: ([\w.]+)$", API, re.MULTILINE):
        module, _, last = path.rpartition(".")
        shown[name] = getattr(importlib.import_module(module), last)
    for name in triscale.__all__:
        assert shown[f"triscale.{name}"] is getattr(triscale, name)


def sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, what stands under it), of the deepest headings."""
    parts = re.split(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE
    )
    yield from zip(parts[1::2], parts[2::2], strict=True)


def anchor(heading: str) -> str:
    words = re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


def test_every_section_with_a_measured_figure_is_in_the_list_of_measurements() -> None:
    listed = set(re.findall(r"\]\(([\w/.]+\.md#[\w-]+)\)", TEXTS["measured.md"]))
    measured = {
        f"{name}#{anchor(heading)}"
        for name, text in TEXTS.items()
        if name != "measured.md" and "/" not in name and name != "tour.md"
        for heading, under in sections(text)
        if FIGURE.search(under)
    }
    assert measured
    assert measured <= listed, "add these to docs/measured.md, with their commands"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, where no network answers."""
    place = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", place)
    shutil.copytree(DOCS, place / "docs")
    (place / "src").symlink_to(ROOT / "src")
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
    }
    zensical = Path(sys.executable).parent / "zensical"
    done = subprocess.run(
        [zensical, "build", "--strict"], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "site"


def hrefs(html: str) -> Iterator[str]:
    yield from re.findall(r'<(?:a|img|link|script)\b[^>]*?\s(?:href|src)="([^"]*)"', html)


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(TEXTS)
    for page in pages:
        for asset in re.findall(
            r'<(?:img|link|script|iframe|source)\b[^>]*?\s(?:href|src)="([^"]*)"', page.read_text()
        ):
            assert not asset.startswith(("http:", "https:", "//")), f"{page.name}: {asset}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text()), sheet.name


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    texts = {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}
    names = {page: set(re.findall(r'\sid="([^"]*)"', text)) for page, text in texts.items()}
    for page, text in texts.items():
        for link in hrefs(text):
            target, _, fragment = link.partition("#")
            if re.match(r"[a-z]+:|$", target) and target:
                continue
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), f"{page.relative_to(site)}: {link}"
            if fragment and there in names and not fragment.startswith("__"):
                assert fragment in names[there], f"{page.relative_to(site)}: {link}"


def test_every_page_is_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text()
    for name in TEXTS:
        assert re.search(rf'<a href="(?:\./)?{name.removesuffix(".md")}\.html" class="md-nav__link', front), name


def test_every_name_of_the_api_is_on_the_site_with_its_docstring(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    paths = re.findall(r"^::: ([\w.]+)$", API, re.MULTILINE)
    assert len(paths) >= len(triscale.__all__)
    for path in paths:
        assert re.search(rf'class="doc doc-object doc-(?:function|class)">\s*<h2 id="{path}"', text), path


def test_links_of_the_pages_outside_the_site_lead_somewhere() -> None:
    for page in (ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")):
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            target, _, fragment = link.partition("#")
            assert re.match(r"https?:", target) or (ROOT / target).exists(), f"{page.name}: {link}"
            if fragment:
                headings = {anchor(heading) for heading, _ in sections((ROOT / target).read_text())}
                assert fragment in headings, f"{page.name}: {link}"


SCRIPT = re.compile(r"\b((?:benchmarks|examples)/\w+\.py)\b([^`\n]*(?:\n[^`\n]*)?)`")


def test_the_scripts_that_measured_something_are_there_and_take_what_is_said_to_them() -> None:
    """Of commands within a line of text, which may go on in the next."""
    named = [(name, found) for name, text in TEXTS.items() for found in SCRIPT.finditer(text)]
    assert len(named) > 20
    for name, found in named:
        script = ROOT / found[1]
        assert script.is_file(), f"{name}: {found[1]}"
        source = script.read_text()
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", found[2]):
            assert f'"{option}"' in source, f"{name}: {found[1]} takes no {option}"
