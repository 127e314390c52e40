"""What a cell of a tag list was probably meant to be, after an input method, a spreadsheet or a hand slipped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_BY_HAND = str.maketrans({"。": ".", "、": ",", "“": '"', "”": '"', "‘": "'", "’": "'"})
_ROUNDED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+?[0-9]+")
_DATE = re.compile(
    r"[0-9]{1,4}[-/][0-9]{1,2}(?:[-/][0-9]{1,4})?|[0-9]{1,2}-[A-Za-z]{3}|[A-Za-z]{3}-[0-9]{2}|.*[0-9]月.*"
)
_APART = re.compile(r"([A-Za-z]{2})[\s:.]*([0-9]{1,5})")
_FOUR_X = re.compile(r"([0134])[xX:]([0-9]{4,5})")


def narrow(text: str) -> str:
    """The text with plain characters in the place of full-width ones."""
    return unicodedata.normalize("NFKC", text.translate(_BY_HAND))


def cause(column: str, text: str) -> str:
    """What seems to have happened to it, as the end of a message; empty where nothing does."""
    if text != narrow(text) and not text.isascii():
        return " (it has full-width characters)"
    if column in ("name", "address", "identifier") and _ROUNDED.fullmatch(text):
        return " (a spreadsheet shortens long numbers so: make the column's format text)"
    if _DATE.fullmatch(text):
        return " (a spreadsheet makes dates of what looks like one: make the column's format text)"
    return ""


def meant(column: str, text: str) -> Iterator[str]:
    """What may have been meant, the likeliest first: for whoever knows which of it can be."""
    plain = narrow(text)
    yield plain
    if column == "name":
        return
    yield "".join(plain.split())
    if column == "address":
        if apart := _APART.fullmatch(plain):
            yield f"{apart[1].lower()}:{apart[2]}"
        if manual := _FOUR_X.fullmatch(plain):
            yield "".join(manual.groups())
