"""The page of the data center: one file, and a policy under which a browser runs nothing but what is written in it."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from starlette.responses import HTMLResponse

from datacenter.answers import HEADERS

PATH = Path(__file__).with_name("page.html")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def read() -> HTMLResponse:
    """The answer to whoever asks for the page; a look at the disk."""
    text = PATH.read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        f" frame-ancestors 'none'; script-src {_hashes(text, 'script')}; style-src {_hashes(text, 'style')}"
    )
    return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})


def _hashes(text: str, element: str) -> str:
    """Of what is between the tags, as a policy names it (CSP Level 3, 2.3.1)."""
    found = (sha256(inside.encode()).digest() for name, inside in _INLINE.findall(text) if name == element)
    return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in found)
