"""Reads what is left of a damaged outbox, page by page and without SQLite: no tree has to be whole for that.

Every leaf page of a table is looked at, in the file and in its write-ahead log, also those that are no longer used.
What a row holds is believed only as far as a checksum goes: blocks, catalogs and the meta row each have one. So a row
that was deleted may come back; sent again it is a duplicate, and harms nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PAGE = 4096
_LEAF = 0x0D
_MOST_LOCAL = PAGE - 35
_LEAST_LOCAL = (PAGE - 12) * 32 // 255 - 23
_MOST_BODY = 1 << 29
_MOST_COLUMNS = 64
_FRAME = 24
_WIDTHS = (0, 1, 2, 3, 4, 6, 8)


def rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """(row id, values) of every row that can be read, in no order, unverified and perhaps more than once.

    A value is an int, bytes or None; texts and reals, which an outbox does not have, are None. Raises nothing.
    """
    pages = _Pages(path)
    try:
        for page in pages:
            with suppress(IndexError):
                yield from _leaf(pages, page)
    finally:
        pages.close()


class _Pages:
    """The pages of a file and of its log; where one can't be read it is empty."""

    def __init__(self, path: Path) -> None:
        self._file = self._open(path)
        self._log = self._open(path.with_name(f"{path.name}-wal"))
        self._newest: dict[int, int] = {}  # page number -> place in the log
        self._places: list[int] = []
        self._read_log()

    def __iter__(self) -> Iterator[bytes]:
        for place in self._places:
            yield _read(self._log, place)
        for number in range(self._count()):
            if page := _read(self._file, number * PAGE):
                yield page

    def page(self, number: int, *, logged: bool) -> bytes:
        """A page by its number from 1: as the log has it last, or as the file has it."""
        if logged and number in self._newest:
            return _read(self._log, self._newest[number])
        return _read(self._file, (number - 1) * PAGE)

    def close(self) -> None:
        for each in (self._file, self._log):
            if each >= 0:
                os.close(each)

    @staticmethod
    def _open(path: Path) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _count(self) -> int:
        return os.fstat(self._file).st_size // PAGE if self._file >= 0 else 0

    def _read_log(self) -> None:
        size = os.fstat(self._log).st_size if self._log >= 0 else 0
        salts = _read(self._log, 16, 8)
        for place in range(32, size - _FRAME - PAGE + 1, _FRAME + PAGE):
            head = _read(self._log, place, _FRAME)
            if len(head) == _FRAME:
                self._places.append(place + _FRAME)
                if head[8:16] == salts:  # else it is left from before the log began anew
                    self._newest[int.from_bytes(head[:4])] = place + _FRAME


def _read(file: int, place: int, size: int = PAGE) -> bytes:
    try:
        return os.pread(file, size, place) if file >= 0 and place >= 0 else b""
    except OSError:
        return b""


def _leaf(pages: _Pages, page: bytes) -> Iterator[tuple[int, list[Any]]]:
    start = 100 if page.startswith(b"SQLite format 3\0") else 0
    if len(page) < PAGE or page[start] != _LEAF:
        return
    for index in range(min(int.from_bytes(page[start + 3 : start + 5]), PAGE // 4)):
        pointer = start + 8 + 2 * index
        cell = int.from_bytes(page[pointer : pointer + 2])
        if not 8 <= cell < PAGE:
            continue
        with suppress(IndexError, ValueError):
            size, at = _varint(page, cell)
            row, at = _varint(page, at)
            if not 0 < size <= _MOST_BODY:
                continue
            seen: set[bytes] = set()
            for logged in (True, False):
                payload = _payload(pages, page, at, size, logged=logged)
                if payload not in seen:
                    seen.add(payload)
                    yield row, _record(payload)


def _payload(pages: _Pages, page: bytes, at: int, size: int, *, logged: bool) -> bytes:
    if size <= _MOST_LOCAL:
        return page[at : at + size]
    local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE - 4)
    if local > _MOST_LOCAL:
        local = _LEAST_LOCAL
    found = bytearray(page[at : at + local])
    number = int.from_bytes(page[at + local : at + local + 4])
    while len(found) < size:
        more = pages.page(number, logged=logged)
        if number == 0 or len(more) < PAGE:
            raise ValueError("the chain of pages breaks off")
        found += more[4 : 4 + size - len(found)]
        number = int.from_bytes(more[:4])
    return bytes(found)


def _record(payload: bytes) -> list[Any]:
    end, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < min(end, _MOST_COLUMNS):
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        width = _WIDTHS[kind] if kind <= 6 else 8 if kind == 7 else 0 if kind < 12 else (kind - 12) // 2
        raw = payload[at : at + width]
        if len(raw) < width:
            raise ValueError("cut short")
        at += width
        if kind in (8, 9):
            values.append(kind - 8)
        elif 1 <= kind <= 6:
            values.append(int.from_bytes(raw, signed=True))
        else:
            values.append(raw if kind >= 12 and kind % 2 == 0 else None)
    return values


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """SQLite's: big-endian, seven bits a byte, eight in the ninth. Negative numbers are not asked for."""
    value = 0
    for count in range(9):
        byte = raw[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("not reached")
