"""Columns of recorded files, played again: CSV, text with white space between its columns, or Parquet."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from agent.errors import spoken
from agent.simulation import MOST, Signal

MOST_ROWS = 2_000_000
FINEST_NS = 10_000_000
"""Rows closer than this, after `speed`, can't be shown one by one."""
SECOND = 1_000_000_000
Cell = bool | int | float | str | None


class Unreadable(ValueError):
    """What is wrong with a recording, and "; write " what to write instead."""


class Recording:
    """One column over time. `step_ns` divides every distance between two rows, so that each is shown at its own time.

    Rows whose time is not after the one before (a clock that was set back) are shown the usual interval later, and what
    follows keeps its distance from them: no row is left out. An empty cell, NaN, and a number
    beyond any device hold the value before them.
    """

    def __init__(self, signal: Signal, *, numbers: bool = False) -> None:
        """`numbers`: text is refused, as it would show 0. Raises Unreadable."""
        if signal.file is None or signal.column is None:
            raise Unreadable("a replay without a file; write file and column")
        values = _column(signal.file, signal.column)
        if numbers and (odd := next(((n, each) for n, each in enumerate(values, 1) if isinstance(each, str)), None)):
            raise Unreadable(
                f"row {odd[0]} of {signal.file.name} has {odd[1][:40]!r} in column {signal.column}, which is no "
                "number; write 1.5 with a point, and nothing where there is no value"
            )
        times = None if signal.time is None else _column(signal.file, signal.time)
        interval = int((signal.interval or 0) * SECOND)
        offsets, usual = _offsets(times, len(values), interval)
        speed = Fraction(signal.speed)
        scaled = [_rounded(each / speed) for each in offsets]
        self._span = max(FINEST_NS, _rounded((offsets[-1] + usual) / speed))
        if any(later - sooner < FINEST_NS for sooner, later in pairwise(scaled)):
            raise Unreadable(f"rows come closer than 10 ms at speed {signal.speed:g}; write a lower speed")
        self.step_ns = math.gcd(self._span, *scaled)
        self._scaled = scaled
        self._values = _held(values)
        self._loop = signal.loop
        self._start = signal.start - signal.start % self.step_ns

    def at(self, time_ns: int) -> bool | int | float | str:
        """The value of the row that is shown."""
        place = time_ns - self._start
        if self._loop:
            place %= self._span
        return self._values[max(0, bisect_right(self._scaled, place) - 1)]


def _rounded(exact: Fraction) -> int:
    """To whole 10 ms."""
    return round(exact / FINEST_NS) * FINEST_NS


def _held(values: list[Cell]) -> list[bool | int | float | str]:
    first = next((each for each in values if each is not None), None)
    if first is None:
        raise Unreadable("the column has no value at all; write the name of another one")
    held, found = first, []
    for each in values:
        held = held if each is None else each
        found.append(held)
    return found


def _offsets(times: list[Cell] | None, rows: int, interval: int) -> tuple[list[int], int]:
    """(ns since the first row, the usual distance of two rows)."""
    if times is None:
        return [each * interval for each in range(rows)], interval
    read = [_moment(each) for each in times]
    distances = [later - sooner for sooner, later in pairwise(read)]
    usual = int(median(each for each in distances if each > 0)) if any(each > 0 for each in distances) else SECOND
    offsets = [0]
    for each in distances:
        offsets.append(offsets[-1] + (each if each > 0 else usual))
    return offsets, usual


def _moment(cell: Cell) -> int:
    """ns of a time: RFC 3339 and its like, or seconds. Only distances count, so no zone is asked for."""
    if isinstance(cell, int | float):
        return int(Fraction(cell) * SECOND)
    try:
        found = datetime.fromisoformat(str(cell))
    except ValueError:
        what = "an empty cell" if cell is None else repr(cell)
        raise Unreadable(
            f"{what} is not a time; write interval instead of time, or the times as RFC 3339 or seconds"
        ) from None
    since = found.replace(tzinfo=found.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * SECOND + since.microseconds * 1000


@lru_cache(maxsize=64)
def _table(path: Path, named: bool) -> tuple[list[str], list[list[Any]]]:
    """(names, columns). Columns of a text file are text; without names, they have their numbers."""
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(islice(_rows(file), MOST_ROWS + 2))
    except UnicodeDecodeError:
        raise Unreadable(f"{path} is not text in UTF-8; write it as CSV UTF-8") from None
    except (OSError, csv.Error) as reason:
        raise Unreadable(f"{path} can't be read: {spoken(reason)}; write the path of a CSV or Parquet file") from None
    names = [each.strip() for each in rows.pop(0)] if named and rows else []
    if not rows:
        raise Unreadable(f"{path} has no rows; write the path of a file that has")
    if len(rows) > MOST_ROWS:
        raise Unreadable(f"{path} has more than {MOST_ROWS} rows; write a part of them to a file of its own")
    width = max(len(names), *(len(row) for row in rows))
    return names or [str(each) for each in range(width)], [
        [row[each] if each < len(row) else "" for row in rows] for each in range(width)
    ]


def _rows(file: Any) -> Iterator[list[str]]:
    first = file.readline()
    file.seek(0)
    mark = next((each for each in ",;\t" if each in first), None)
    if mark is None:
        yield from (line.split() for line in file if line.strip())
    else:
        yield from (row for row in csv.reader(file, delimiter=mark) if row)


def _parquet(path: Path) -> tuple[list[str], list[list[Any]]]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  (only who replays Parquet needs it)
    except ImportError:
        raise Unreadable(
            "Parquet is read by pyarrow, which is not here; write CSV, or install headrace[datacenter]"
        ) from None
    try:
        if not 0 < (count := parquet.ParquetFile(path).metadata.num_rows) <= MOST_ROWS:
            what = f"more than {MOST_ROWS} rows" if count else "no rows"
            raise Unreadable(f"{path} has {what}; write a part of them to a file of its own")
        table = parquet.read_table(path)
    except ArrowException as reason:
        raise Unreadable(f"{path} can't be read as Parquet: {reason}; write the path of a whole file") from None
    return table.column_names, [column.to_pylist() for column in table.columns]


def _column(path: Path, wanted: str | int) -> list[Cell]:
    names, columns = _table(path, isinstance(wanted, str))
    at = wanted if isinstance(wanted, int) else names.index(wanted) if wanted in names else -1
    if not 0 <= at < len(columns):
        near = get_close_matches(str(wanted), names, n=1)
        shown = near[0] if near else f"one of {', '.join(names[:12])}"
        raise Unreadable(f"{path.name} has no column {wanted!r}; write {shown}")
    return [_cell(each) for each in columns[at]]


def _cell(raw: Any) -> Cell:
    if isinstance(raw, datetime | date):
        return raw.isoformat()
    found = _read(raw.strip()) if isinstance(raw, str) else float(raw) if isinstance(raw, Decimal) else raw
    if isinstance(found, int | float):
        return found if abs(found) <= MOST else None
    if found is None or isinstance(found, str):
        return found or None
    raise Unreadable(f"the column has values of type {type(raw).__name__}; write one of numbers or text")


def _read(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
