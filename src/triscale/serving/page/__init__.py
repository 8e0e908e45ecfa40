"""The page at `/`: one file that asks nobody but its own server."""

import base64
import hashlib
import html
import json
from dataclasses import dataclass
from importlib.resources import files

from triscale.serving.limits import Limits
from triscale.serving.opening import Served


@dataclass(frozen=True, slots=True)
class Page:
    """policy: of what the page may do, which is to run its own script and to ask its own server."""

    content: bytes
    policy: str


def assemble(served: Served, limits: Limits, *, needs_token: bool) -> Page:
    """The page for a model. Where a token is needed, the page says nothing of the model: it is sent to everybody."""
    style, script, text = (_part(f"page.{kind}") for kind in ("css", "js", "html"))
    facts = {
        "model": None if needs_token else served.name,
        "maps": served.maps,
        "pictures": served.sees_pictures,
        "token": needs_token,
        "most": limits.body,
    }
    for mark, part in (("STYLE", style), ("SCRIPT", script), ("FACTS", html.escape(json.dumps(facts)))):
        text = text.replace(f"@{mark}@", part)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(text.encode(), policy)


def _part(name: str) -> str:
    return (files("triscale.serving.page") / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
