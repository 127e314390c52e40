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
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_MADE_A_DATE = re.compile(
    rf"[0-9]{{1,2}}-{_MONTH}(?:-[0-9]{{2}}(?:[0-9]{{2}})?)?|{_MONTH}-[0-9]{{2}}|(?:[0-9]{{4}}年)?[0-9]{{1,2}}月[0-9]{{1,2}}日",
    re.IGNORECASE,
)
"""What only a spreadsheet calls a tag; people do write 3-1 themselves."""
_FAILED = re.compile(r"#(?:REF!|N/A|NAME\?|DIV/0!|VALUE!|NUM!|NULL!|SPILL!|#+)", re.IGNORECASE)
_MARKS = ("'", "‘", "’", "`", "＇")
"""A spreadsheet's sign that a cell is text, which it does not show."""
_APART = re.compile(r"([A-Za-z]{2})[\s:.]*([0-9]{1,5})")
_SPAN = re.compile(r"\s*[-~][0-9]{5,6}$")
"""The last register of a value, which its type says."""
_FOUR_X = re.compile(r"([0134])[xX:]([0-9]{4,5})")


def narrow(text: str) -> str:
    """The text with plain characters in the place of full-width ones."""
    return unicodedata.normalize("NFKC", text.translate(_BY_HAND))


def cause(column: str, text: str) -> str:
    """What seems to have happened to it, as the end of a message; empty where nothing does."""
    wide = text != narrow(text) and not text.isascii()
    long = column in ("name", "address", "identifier") and _ROUNDED.fullmatch(text)
    causes = (
        (text.startswith(_MARKS), "an apostrophe in front, which tells a spreadsheet that a cell is text"),
        (_FAILED.fullmatch(text), "a spreadsheet's formula that failed"),
        (text.startswith("="), "a spreadsheet's formula: save its values"),
        (wide, "it has full-width characters"),
        (long, "a spreadsheet shortens long numbers so: make the column's format text"),
        (_DATE.fullmatch(text), "a spreadsheet makes dates of what looks like one: make the column's format text"),
    )
    return next((f" ({words})" for happened, words in causes if happened), "")


def made_a_date(name: str) -> bool:
    """Whether a spreadsheet probably made a date of the name, which is a name all the same."""
    return _MADE_A_DATE.fullmatch(name) is not None


def meant(column: str, text: str) -> Iterator[str]:
    """What may have been meant, the likeliest first: for whoever knows which of it can be."""
    plain = narrow(text)
    yield plain
    if text.startswith(_MARKS):
        plain = plain[1:]
        yield plain
    if column == "name":
        return
    yield "".join(plain.split())
    if column == "address":
        if apart := _APART.fullmatch(plain):
            yield f"{apart[1].lower()}:{apart[2]}"
        if manual := _FOUR_X.fullmatch(plain):
            yield "".join(manual.groups())
        yield _SPAN.sub("", plain)
