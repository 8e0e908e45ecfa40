"""The page at `/`, in a headless Chromium: a picture dropped on it is named, and shown with its map."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab, browsing
from served import bright, gray, known, serving

from triscale.fitting import Fitted
from triscale.models import learned
from triscale.serving import Limits, opened
from triscale.serving.tokens import Token

TOKEN = Token("0123456789abcdef0123")
SETTLED = "['answered', 'failed'].includes(document.body.dataset.state)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browsing(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture(scope="module")
def address(fitted: Fitted) -> Iterator[str]:
    with opened(fitted.run.path) as served, serving(served) as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "gray.png"
    file.write_bytes(gray(160))
    return file


def text(tab: Tab, selector: str) -> str:
    return str(tab.run(f"document.querySelector('{selector}').textContent.replace(/\\s+/g, ' ').trim()"))


def is_shown(tab: Tab, selector: str) -> bool:
    return bool(tab.run(f"document.querySelector('{selector}').checkVisibility()"))


def drop(tab: Tab, content: bytes, name: str = "dropped.png") -> None:
    """As if a person had let go of a file over the page."""
    tab.run(
        f"""(() => {{
            const bytes = Uint8Array.from(atob("{base64.b64encode(content).decode()}"), (c) => c.charCodeAt(0));
            const dragged = new DataTransfer();
            dragged.items.add(new File([bytes], "{name}", {{type: "image/png"}}));
            const how = {{dataTransfer: dragged, bubbles: true, cancelable: true}};
            document.getElementById("drop").dispatchEvent(new DragEvent("dragover", how));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", how));
        }})()"""
    )


def test_a_dropped_picture_is_named_with_probabilities_and_shown_with_its_map(
    tab: Tab, address: str, fitted: Fitted, digits: Path
) -> None:
    digit = sorted(digits.rglob("*.png"))[3]
    tab.open(address)
    assert (text(tab, "#about"), is_shown(tab, "#answer")) == ("Answered by run.", False)
    drop(tab, digit.read_bytes())
    tab.until(SETTLED)
    expected = learned(fitted.run.path).predict(digit)
    rows = tab.run("Array.from(document.querySelectorAll('#classes li'), (row) => row.innerText.split(/\\n+/))")
    assert [[part for part in row if part] for row in rows] == [
        [name, f"{100 * share:.1f} %"] for name, share in expected
    ]
    widths = tab.run(
        "Array.from(document.querySelectorAll('.bar'), (bar) => bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx([share for _, share in expected], abs=0.01)
    tab.until(
        "document.getElementById('map').naturalWidth >= 320 && document.getElementById('picture').naturalWidth === 8"
    )
    assert text(tab, "#seen") == expected[0][0]
    assert is_shown(tab, "#map")
    assert tab.errors == []


def test_a_chosen_file_is_answered_too_and_a_wrong_one_is_refused_in_words(
    tab: Tab, address: str, picture: Path
) -> None:
    tab.open(address)
    tab.choose("#file", picture)
    tab.until(SETTLED)
    assert is_shown(tab, "#answer")
    drop(tab, b"no picture")
    tab.until("document.body.dataset.state === 'failed'")
    assert "cannot be read" in text(tab, "#status")
    assert not is_shown(tab, "#answer")
    tab.choose("#file", picture)
    tab.until("document.body.dataset.state === 'answered'")
    assert tab.errors == []


def test_the_page_is_used_by_keyboard_alone(tab: Tab, address: str) -> None:
    tab.open(address)
    tab.press("Tab")
    assert tab.run("document.activeElement.id") == "file"
    assert tab.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    assert tab.run("document.getElementById('status').getAttribute('role')") == "status"


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_narrow_screen_and_follows_the_colours_that_are_wished(
    tab: Tab, address: str, dark: bool, picture: Path
) -> None:
    tab.size(320, 700, dark=dark)
    try:
        tab.open(address)
        tab.choose("#file", picture)
        tab.until(SETTLED)
        assert tab.run("document.documentElement.scrollWidth") <= 320
        shade = tab.run(
            "(() => { const one = document.createElement('div'); one.style.color = 'CanvasText'; "
            "document.body.append(one); const is = getComputedStyle(one).color; one.remove(); return is; })()"
        )
        assert shade == ("rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)")
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")


def test_no_map_is_shown_where_the_model_has_none(tab: Tab, picture: Path) -> None:
    with serving(known()) as (_, port):
        tab.open(f"http://127.0.0.1:{port}/")
        tab.choose("#file", picture)
        tab.until(SETTLED)
        assert text(tab, "#status").startswith(f"bright, {100 * bright(160):.1f} %")
        assert (is_shown(tab, "#given"), is_shown(tab, "#shown")) == (True, False)


def test_the_page_asks_for_the_token_and_sends_it(tab: Tab, picture: Path) -> None:
    with serving(known(), token=TOKEN) as (_, port):
        tab.open(f"http://127.0.0.1:{port}/")
        assert (is_shown(tab, "#token"), text(tab, "#about")) == (True, "")
        tab.choose("#file", picture)
        tab.until(SETTLED)
        assert "token" in text(tab, "#status")
        assert tab.run("document.activeElement.id") == "token"
        tab.call("Input.insertText", text=TOKEN.text)
        tab.choose("#file", picture)
        tab.until("document.body.dataset.state === 'answered'")


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(b"x" * 20_000)
    with serving(known(), Limits(body=10_000)) as (_, port):
        tab.open(f"http://127.0.0.1:{port}/")
        tab.requested.clear()
        tab.choose("#file", file)
        tab.until("document.body.dataset.state === 'failed'")
        assert "large.png has 0.0200 MB" in text(tab, "#status")
        assert tab.requested == []


def test_the_page_asks_nobody_but_its_own_server(tab: Tab, address: str, picture: Path) -> None:
    tab.requested.clear()
    tab.open(address)
    tab.choose("#file", picture)
    tab.until(SETTLED)
    asked = [where for where in tab.requested if not where.startswith(("data:", "blob:"))]
    assert set(asked) == {address, f"{address}predict?map=true"}


def test_no_script_but_the_pages_own_runs_on_it(tab: Tab, address: str) -> None:
    tab.open(address)
    tab.errors.clear()
    tab.run(
        "(() => { const one = document.createElement('script'); one.textContent = 'window.foreign = 1';"
        " document.body.append(one); })()"
    )
    assert tab.run("window.foreign === undefined")
    blocked = "fetch('https://elsewhere.example/').then(() => 'sent', () => 'kept')"
    assert tab.run(blocked) == "kept"
    assert any("Content Security Policy" in error for error in tab.errors)
