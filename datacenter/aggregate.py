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
from datacenter.kinds import KIND_OF
from datacenter.query import Cursor, Named, Span, quoted, readings_of, spelled, where
from datacenter.store import Snapshot

KINDS = ("count", "good", "min", "max", "mean")
_OF_VALUES = {"min": "min", "max": "max", "mean": "avg"}


class NoNumbers(ValueError):
    """These readings have no minimum, maximum or mean: they are no numbers."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What is asked: `kinds` of KINDS, per `length_ns`. A window with fewer than `least` good readings has no min, max
    and mean: for whoever may not see single readings."""

    kinds: tuple[str, ...]
    length_ns: int
    least: int = 0


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
    good = f"(quality < 2147483648 AND {value} IS NOT NULL AND NOT isnan(CAST({value} AS DOUBLE)))"
    made_of = {"count": "count(*)", "good": f"count(*) FILTER ({good})"}
    for kind, function in _OF_VALUES.items():
        made_of[kind] = f"CASE WHEN {made_of['good']} >= {windows.least:d} THEN {function}({value}) FILTER ({good}) END"
    begin = f"time - ((time % {windows.length_ns:d}) + {windows.length_ns:d}) % {windows.length_ns:d}"
    places = ", ".join(f"({key:d}, {at:d})" for at, each in enumerate(whom) for key in each.keys)
    after = span.after
    behind = f"HAVING (begin, who.place) > ({after.time_ns:d}, {after.stream:d})" if after else ""
    rows = view.rows(
        f"SELECT {begin} AS begin, who.place, {', '.join(made_of[kind] for kind in windows.kinds)}"  # noqa: S608 - own
        f" FROM {readings_of(whom)} JOIN (VALUES {places}) who(key, place) USING (key)"
        f" WHERE {where(whom, span.from_ns, span.to_ns)} GROUP BY begin, who.place {behind}"
        f" ORDER BY begin, who.place LIMIT {span.limit + 1:d}"
    )
    following = None
    if len(rows) > span.limit:
        del rows[span.limit :]
        following = Cursor(rows[-1][0], rows[-1][1], 0, 0)
    columns = ("time_ns", *windows.kinds)
    if isinstance(who, Named):
        return Made(columns, [(row[0], *row[2:]) for row in rows], following, number)
    named = [(row[0], *row[2:], whom[row[1]].identifier) for row in rows]
    return Made((*columns, "id"), named, following, number)


def _value(types: set[ValueType]) -> tuple[str, pa.DataType]:
    """The number of a reading in SQL, and its type. Whole ones stay whole where all are of one kind."""
    columns = {KIND_OF[type_] for type_ in types if type_.is_number or type_ is ValueType.BOOL}
    whole = {"integer": pa.int64(), "unsigned": pa.uint64()}
    if len(columns) == 1 and columns & whole.keys():
        [column] = columns
        return quoted(column), whole[column]
    numbers = [f"CAST({quoted(column)} AS DOUBLE)" for column in sorted(columns)]
    return (f"coalesce({', '.join(numbers)}, NULL)" if numbers else "CAST(NULL AS DOUBLE)"), pa.float64()
