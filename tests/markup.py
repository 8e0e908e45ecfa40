"""Pages as a browser reads them: what they fetch, their text, their tables."""

import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """What a browser would fetch, and the page's text; checks that every element is closed in order."""

    VOID = frozenset(("meta", "img", "br", "path", "use", "rect", "line", "circle"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class Tables(HTMLParser):
    """The cells of a page, [table][row][cell], and what its heads say of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.captions = 0
        self.heads: list[dict[str, str | None]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self.found[-1][-1].append("")
            self._open = True
            if tag == "th":
                self.heads.append(dict(attrs))
        self.captions += tag == "caption"

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1][-1][-1] += data

    def of(self, title: str) -> list[list[str]]:
        """The first table whose head has that column."""
        return next(table for table in self.found if title in table[0])


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def text_of(page: str) -> str:
    """All that it says, spaces and ends of lines as single spaces."""
    return squeezed(Outline(page).text)


def check_self_contained(page: str) -> None:
    """It fetches nothing and runs nothing."""
    outline = Outline(page)
    assert all(address.startswith(("#", "data:image/")) for address in outline.addresses)
    assert "script" not in outline.tags
    assert not re.search(r"https?:|@import|url\((?!#)|\son[a-z]+=", page)
