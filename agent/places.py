"""On which line of a TOML file each key and table stands: the standard parser keeps no lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import suppress
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""A key's way from the root: `("device", 1, "poll")`."""

DEEPEST = 8
"""Longer paths are not kept: the config is three deep."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!\')|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''',
    re.DOTALL,
)
_BARE = re.compile(r"[^,\]}\r\n#]+")


class Places:
    """The lines of a text that the TOML parser has accepted. What the scan can't follow is left out, never an error."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._counts: dict[Path, int] = {}
        self._lines: dict[Path, int] = {}
        with suppress(_Lost, RecursionError):
            self._document()

    def line(self, path: Path) -> int | None:
        """The line of a key or table, or of the nearest table around it; None where there is none."""
        for length in range(min(len(path), DEEPEST), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None

    def _document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            start = self._at
            if self._next("[["):
                table = self._table(self._key(), repeated=True)
                self._keep(table[:-1], start)
                self._keep(table, start)
                self._expect("]]")
            elif self._next("["):
                table = self._table(self._key(), repeated=False)
                self._keep(table, start)
                self._expect("]")
            else:
                self._pair(table)

    def _table(self, keys: list[str], *, repeated: bool) -> Path:
        path: Path = ()
        for depth, key in enumerate(keys, 1):
            path += (key,)
            if repeated and depth == len(keys):
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path += (self._counts[path],)
        return path

    def _pair(self, table: Path) -> None:
        self._skip(_BLANK)
        start = self._at
        path = table
        for key in self._key():
            path += (key,)
            self._keep(path, start)
        self._expect("=")
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        if self._next("["):
            index = 0
            while not self._closed("]"):
                self._keep((*path, index), self._at)
                self._value((*path, index))
                index += 1
        elif self._next("{"):
            while not self._closed("}"):
                self._pair(path)
        elif self._text.startswith(('"', "'"), self._at):
            self._take(_STRING)
        else:
            self._take(_BARE)

    def _closed(self, bracket: str) -> bool:
        self._skip(_BLANK)
        if self._next(","):
            self._skip(_BLANK)
        return self._next(bracket)

    def _key(self) -> list[str]:
        found = []
        while True:
            self._skip(_SPACE)
            key = self._take(_KEY)
            found.append(key[1:-1] if key[0] in "\"'" else key)
            self._skip(_SPACE)
            if not self._next("."):
                return found

    def _keep(self, path: Path, at: int) -> None:
        if len(path) <= DEEPEST:
            self._lines.setdefault(path, bisect_right(self._breaks, at - 1) + 1)

    def _skip(self, blank: re.Pattern[str]) -> int:
        found = blank.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _next(self, mark: str) -> bool:
        found = self._text.startswith(mark, self._at)
        self._at += len(mark) if found else 0
        return found

    def _expect(self, mark: str) -> None:
        self._skip(_SPACE)
        if not self._next(mark):
            raise _Lost

    def _take(self, token: re.Pattern[str]) -> str:
        found = token.match(self._text, self._at)
        if not found:
            raise _Lost
        self._at = found.end()
        return found[0]


class _Lost(Exception):
    """The scan met something that it does not know; the lines found so far stay."""
