"""Aggregates: what the readings of a window were, as count, good, min, max and mean.

`count` is of all readings, `good` of those that the others are made from: not Bad (bit 31 of the StatusCode), with a
value that is a number. Windows are multiples of their length since 1970; one without readings is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from agent.model import ValueType
from datacenter import moment
from datacenter.kinds import KIND_OF
from datacenter.query import Cursor, Named, Span, quoted, readings_of, spelled, where
from datacenter.store import Snapshot

KINDS = ("count", "good", "min", "max", "mean")
_OF_VALUES = {"min": "min", "max": "max", "mean": "avg"}
_GOOD = "quality < 2147483648 AND value IS NOT NULL AND NOT isnan(CAST(value AS DOUBLE))"


class NoNumbers(ValueError):
    """These readings have no minimum, maximum or mean: they are no numbers."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What is asked: `kinds` of KINDS, per `length_ns`.

    For whoever may not see single readings, a window has min, max and mean only where each of the windows of `base_ns`
    in it has `least` good readings or none: two windows that differ by one of those would tell what is in it.
    """

    kinds: tuple[str, ...]
    length_ns: int
    least: int = 0
    base_ns: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """(window's begin in ns, the kinds in their order, of several identifiers also the id), by time and id."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    next: Cursor | None
    number: pa.DataType
    """Of min and max."""

    def table(self) -> pa.Table:
        kinds = {
            "id": pa.string(),
            "time_ns": pa.int64(),
            "count": pa.int64(),
            "good": pa.int64(),
            "mean": pa.float64(),
        }
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.columns)
        of = {
            name: pa.array(column, kinds.get(name, self.number))
            for name, column in zip(self.columns, columns, strict=True)
        }
        return pa.table(of)

    def json(self) -> bytes:
        return orjson.dumps([[*map(spelled, row)] for row in self.rows])


def made(view: Snapshot, who: Named | Sequence[Named], span: Span, windows: Windows) -> Made:
    """One page of windows. Raises NoNumbers."""
    whom = [who] if isinstance(who, Named) else list(who)
    types = {ValueType(type_) for each in whom for type_ in each.types}
    for type_ in types:
        if not (type_.is_number or type_ is ValueType.BOOL) and set(windows.kinds) & _OF_VALUES.keys():
            raise NoNumbers(f"readings of type {type_} have no {', '.join(_OF_VALUES)}; write aggregate=count")
    value, number = _value(types)
    places = ", ".join(f"({key:d}, {at:d})" for at, each in enumerate(whom) for key in each.keys)
    found = (
        f"SELECT time, quality, who.place, {value} AS value FROM {readings_of(whom)}"  # noqa: S608 - names of our own
        f" JOIN (VALUES {places}) who(key, place) USING (key) WHERE {where(whom, span.from_ns, span.to_ns)}"
    )
    after = span.after
    behind = f"HAVING (begin, place) > ({after.time_ns:d}, {after.stream:d})" if after else ""
    question = _guarded(found, windows) if windows.least else _plain(found, windows)
    rows = view.rows(f"{question} GROUP BY begin, place {behind} ORDER BY begin, place LIMIT {span.limit + 1:d}")
    following = None
    if len(rows) > span.limit:
        del rows[span.limit :]
        following = Cursor(rows[-1][0], rows[-1][1], 0, 0)
    columns = ("time_ns", *windows.kinds)
    if isinstance(who, Named):
        return Made(columns, [(row[0], *row[2:]) for row in rows], following, number)
    named = [(row[0], *row[2:], whom[row[1]].identifier) for row in rows]
    return Made((*columns, "id"), named, following, number)


def _plain(found: str, windows: Windows) -> str:
    good = f"FILTER ({_GOOD})"
    made_of = {"count": "count(*)", "good": f"count(*) {good}"}
    made_of |= {kind: f"{function}(value) {good}" for kind, function in _OF_VALUES.items()}
    columns = ", ".join(made_of[kind] for kind in windows.kinds)
    return f"SELECT {_begin('time', windows.length_ns)} AS begin, place, {columns} FROM ({found})"  # noqa: S608


def _guarded(found: str, windows: Windows) -> str:
    good = f"FILTER ({_GOOD})"
    small = (
        f"SELECT {_begin('time', windows.base_ns)} AS base, place, count(*) AS count, count(*) {good} AS good,"  # noqa: S608
        f" min(value) {good} AS low, max(value) {good} AS high, sum(value) {good} AS total FROM ({found})"
        " GROUP BY base, place"
    )
    enough = f"coalesce(min(good) FILTER (good > 0), 0) >= {windows.least:d}"
    made_of = {"count": "sum(count)::BIGINT", "good": "sum(good)::BIGINT"}
    for kind, value in (("min", "min(low)"), ("max", "max(high)"), ("mean", "sum(total) / sum(good)")):
        made_of[kind] = f"CASE WHEN {enough} THEN {value} END"
    columns = ", ".join(made_of[kind] for kind in windows.kinds)
    return f"SELECT {_begin('base', windows.length_ns)} AS begin, place, {columns} FROM ({small})"  # noqa: S608


def _begin(time: str, length_ns: int) -> str:
    """Where the window of a time begins; the first one of all is cut, where the numbers begin."""
    begin = f"{time} - (({time} % {length_ns:d}) + {length_ns:d}) % {length_ns:d}"
    cut = f"CAST({moment.LOWEST:d} AS BIGINT)"
    return f"CASE WHEN {time} < {moment.LOWEST + length_ns:d} THEN {cut} ELSE {begin} END"


def _value(types: set[ValueType]) -> tuple[str, pa.DataType]:
    """The number of a reading in SQL, and its type. Whole ones stay whole where all are of one kind."""
    columns = {KIND_OF[type_] for type_ in types if type_.is_number or type_ is ValueType.BOOL}
    whole = {"integer": pa.int64(), "unsigned": pa.uint64()}
    if len(columns) == 1 and columns & whole.keys():
        [column] = columns
        return quoted(column), whole[column]
    numbers = [f"CAST({quoted(column)} AS DOUBLE)" for column in sorted(columns)]
    return (f"coalesce({', '.join(numbers)}, NULL)" if numbers else "CAST(NULL AS DOUBLE)"), pa.float64()
