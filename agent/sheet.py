"""The cells of a CSV as spreadsheets and people write it: what of it is text, which line ends, which cells part.

A line that is no CSV, or that is no UTF-8, is a problem of its own; those after it are read all the same.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias

UNREAD = "\ufffd"
"""Stands in a cell for bytes that are not UTF-8."""
MAX_FAILED = 100
"""Rows that are no CSV: each may cost reading 128 KiB again, which is the longest cell."""
_AS_TEXT = "write it as 'CSV UTF-8' from the spreadsheet"
_AS_UTF_8 = f"{_AS_TEXT}, or with the encoding UTF-8 from an editor such as Notepad"
_SEPARATOR = re.compile(r"\s*\"?sep=([,;\t])\"?[\s,;]*")
"""A line that Excel takes for the delimiter, and hides."""
Wrong: TypeAlias = Callable[[int | None, str, str], None]
"""Notes a problem: line, column, "what is wrong; write what to write instead"."""
Row: TypeAlias = tuple[int, list[str]]
"""The line that it begins in, and its cells without the blanks around them."""


def rows(content: bytes, wrong: Wrong) -> Iterator[Row]:
    """Every row that is not blank; what is no row is noted. The delimiter is the one that the first has most of."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        wrong(None, "(file)", f"a spreadsheet's own file and not CSV; {_AS_TEXT}")
        return
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in content[:2]:
        wrong(1, "(file)", f"UTF-16 and not UTF-8 text; {_AS_UTF_8}")
        content = _from_utf_16(content).encode()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        wrong(line, "(file)", f"{_encoding(content)}; {_AS_UTF_8}")
    yield from _parted(_Lines(content), wrong)


def _from_utf_16(content: bytes) -> str:
    """Its text, for what else is wrong in it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-16-be" if content[:1] == b"\x00" else "utf-16-le", errors="replace")


def _encoding(content: bytes) -> str:
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return "not UTF-8 text (GBK, or another one of the system's language)"


def _parted(lines: _Lines, wrong: Wrong) -> Iterator[Row]:
    header = next((line for line in islice(lines, 1000) if line.strip()), "")
    named = _SEPARATOR.fullmatch(header)
    delimiter = named[1] if named else max(",;\t", key=header.count)
    if not named:
        lines.give_back()
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    failed = 0
    while failed <= MAX_FAILED:
        line = lines.next_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as reason:
            text = f'{reason}; write a cell that has quotes as "a ""quoted"" word", and close every quote'
            wrong(line, "(row)", text)
            lines.give_back(all_but=1)  # a quote that nobody closed has swallowed them
            failed += 1
            continue
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield line, stripped
    wrong(line, "(file)", f"more than {MAX_FAILED} rows like these; write those above anew, then check again")


class _Lines(Iterator[str]):
    """The lines of a text, which remembers those since `next_row`. Decodes as it is read: the whole text at once takes
    four bytes a character."""

    def __init__(self, content: bytes) -> None:
        self._text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="replace", newline="")
        self._given: list[str] = []
        self._back: deque[str] = deque()
        self._line = 1

    def __next__(self) -> str:
        found = self._back.popleft() if self._back else next(self._text)
        self._given.append(found)
        return found

    def next_row(self) -> int:
        """The line in which the row begins that is read now."""
        self._line += len(self._given)
        self._given.clear()
        return self._line

    def give_back(self, *, all_but: int = 0) -> None:
        """Reads the row's lines again, without its first `all_but`."""
        self._back.extendleft(reversed(self._given[all_but:]))
        del self._given[all_but:]
