"""Queries: what is asked of the store, as plain functions of a snapshot. Reading never waits for writing."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from agent.model import ValueType
from datacenter.names import COLUMN_OF
from datacenter.places import Places
from datacenter.store import Row, Snapshot

_COLUMN = {type_: f'"{column}"' for type_, column in COLUMN_OF.items()}
_SQL_TYPE_OF = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "bytes": "BLOB",
}
_SQL_TYPE = {type_: _SQL_TYPE_OF[type_.element] + "[]" * type_.is_array for type_ in ValueType}
_AS_THEY_ARE = {'"boolean"', '"integer"', '"unsigned"', '"text"'}
"""The columns whose values JSON has as they are."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: its last reading's place, and how many readings of that place and time it gave."""

    time_ns: int
    stream: int
    sequence: int
    given: int


@dataclass(frozen=True, slots=True)
class Span:
    """Which readings: `from_ns` <= time < `to_ns`, after a cursor, at most `limit`."""

    from_ns: int
    to_ns: int
    limit: int
    after: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """The tags that ever carried an identifier; type and unit are those of the newest."""

    identifier: str
    keys: tuple[int, ...]
    types: tuple[str, ...]
    type: str
    unit: str
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Readings of one identifier, by time; `next` is None at the end."""

    readings: list[tuple[int, Any, int]]
    next: Cursor | None


def named(view: Snapshot, identifier: str) -> Named | None:
    """Who carries this identifier; None where nobody ever did."""
    tags = view.rows("SELECT key, type, unit, agent FROM tags WHERE identifier = ? ORDER BY key", [identifier])
    if not tags:
        return None
    keys, types, units, agents = zip(*tags, strict=True)
    return Named(identifier, keys, tuple(dict.fromkeys(types)), types[-1], units[-1], tuple(dict.fromkeys(agents)))


def readings(view: Snapshot, who: Named, span: Span) -> Page:
    """One page as JSON has it: NaN and the infinities are texts (OPC 10000-6, 5.4.2.4), bytes are base64."""
    columns = list(dict.fromkeys(_COLUMN[ValueType(type_)] for type_ in who.types))
    query, values = _select(who, span, f"time, quality, stream, sequence, {', '.join(columns)}")
    rows = view.rows(query, values)
    more = len(rows) > span.limit
    del rows[span.limit :]
    if len(columns) == 1:
        page = [(row[0], row[4], row[1]) for row in rows]
    else:
        page = [(row[0], next((value for value in row[4:] if value is not None), None), row[1]) for row in rows]
    if not all(column in _AS_THEY_ARE for column in columns):
        page = [(time_ns, spelled(value), quality) for time_ns, value, quality in page]
    return Page(page, _cursor(rows, span) if more else None)


def table(view: Snapshot, who: Named, span: Span) -> tuple[pa.Table, Cursor | None]:
    """One page as an Arrow table: time_ns, time, value in the tag's own type (text where the type changed), quality."""
    if len(who.types) == 1:
        value = f"CAST({_COLUMN[ValueType(who.type)]} AS {_SQL_TYPE[ValueType(who.type)]})"
    else:
        texts = (_text(column) for column in dict.fromkeys(_COLUMN[ValueType(type_)] for type_ in who.types))
        value = f"coalesce({', '.join(texts)})"
    query, values = _select(
        who, span, f"time AS time_ns, make_timestamp_ns(time) AS time, {value} AS value, quality, stream, sequence"
    )
    found = view.arrow(query, values)
    more = found.num_rows > span.limit
    found = found.slice(0, span.limit)
    places = [found.column(name).to_pylist() for name in ("time_ns", "stream", "sequence")] if more else [[], [], []]
    cursor = (
        _cursor([(at, 0, stream, place) for at, stream, place in zip(*places, strict=True)], span) if more else None
    )
    found = found.select(["time_ns", "time", "value", "quality"])
    return found.set_column(1, "time", found.column("time").cast(pa.timestamp("ns", "UTC"))), cursor


def _select(who: Named, span: Span, columns: str) -> tuple[str, list[Any]]:
    where = ["list_contains(?, key)", "time >= ?", "time < ?"]
    values: list[Any] = [list(who.keys), span.from_ns, span.to_ns]
    if len(who.keys) == 1:
        where[0], values[0] = "key = ?", who.keys[0]
    after = span.after
    if after is not None:
        where += ["time >= ?", "(time, stream, sequence) >= (?, ?, ?)"]
        values += [after.time_ns, after.time_ns, after.stream, after.sequence]
    # rowid: readings of one place and time stay in the order in which the block has them.
    query = (
        f"SELECT {columns} FROM readings WHERE {' AND '.join(where)}"  # noqa: S608 - names of our own, values bound
        " ORDER BY time, stream, sequence, rowid LIMIT ? OFFSET ?"
    )
    return query, [*values, span.limit + 1, after.given if after else 0]


def _cursor(rows: list[Row], span: Span) -> Cursor:
    """The cursor behind the last of these (time, _, stream, sequence, ...) rows."""
    time_ns, _, stream, sequence, *_rest = rows[-1]
    given = 0
    for row in reversed(rows):
        if (row[0], row[2], row[3]) != (time_ns, stream, sequence):
            break
        given += 1
    after = span.after
    if (
        after is not None
        and given == len(rows)
        and (after.time_ns, after.stream, after.sequence)
        == (
            time_ns,
            stream,
            sequence,
        )
    ):
        given += after.given
    return Cursor(time_ns, stream, sequence, given)


def _text(column: str) -> str:
    match column:
        case '"bytes"':
            return f"base64({column})"
        case '"bytes_array"':
            return f"CAST(list_transform({column}, each -> base64(each)) AS VARCHAR)"
        case _:
            return f"CAST({column} AS VARCHAR)"


def spelled(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [spelled(each) for each in value]
        case _:
            return value


def flat(found: pa.Table) -> pa.Table:
    """The same page for CSV, which has neither bytes nor arrays: bytes are base64, and arrays the text of JSON's."""
    place = found.column_names.index("value")
    kind = found.column("value").type
    if not (pa.types.is_list(kind) or pa.types.is_binary(kind)):
        return found
    texts = [
        each if each is None or isinstance(each, str) else orjson.dumps(each).decode()
        for each in map(spelled, found.column("value").to_pylist())
    ]
    return found.set_column(place, "value", pa.array(texts, pa.string()))


def gaps(view: Snapshot, who: Named, span: Span) -> list[dict[str, Any]]:
    """What is known to be missing of the streams that carry the identifier, overlapping the span."""
    rows = view.rows(
        "SELECT g.from_ns, g.to_ns, g.reason FROM gaps g JOIN streams s ON s.id = g.stream"
        " WHERE list_contains(?, s.agent) AND g.from_ns < ? AND g.to_ns >= ? ORDER BY ALL LIMIT 10000",
        [list(who.agents), span.to_ns, span.from_ns],
    )
    return [{"from_ns": from_ns, "to_ns": to_ns, "reason": reason} for from_ns, to_ns, reason in rows]


def catalog(view: Snapshot, prefix: str, limit: int) -> list[dict[str, Any]]:
    """Every tag that was ever known, by identifier."""
    names = ("identifier", "agent", "device", "name", "type", "unit", "low", "high", "domain", "level", "description")
    rows = view.rows(
        f"SELECT {', '.join(names)}, source FROM tags WHERE starts_with(identifier, ?)"  # noqa: S608 - names of our own
        " ORDER BY identifier, key LIMIT ?",
        [prefix, limit],
    )
    return [{**dict(zip(names, row[:-1], strict=True)), "source": orjson.loads(row[-1])} for row in rows]


def streams(view: Snapshot) -> list[dict[str, Any]]:
    """Every stream's account. `first` and `last` are sequences, `holes` closed intervals that are still to come."""
    above: dict[int, list[tuple[int, int]]] = {}
    for id_, first, last in view.rows(
        "SELECT p.stream, p.first, p.last FROM"
        " (SELECT stream, sequence AS first, sequence AS last FROM blocks"
        " UNION ALL SELECT stream, first, last FROM gaps) p"
        " JOIN streams s ON s.id = p.stream WHERE p.last > s.committed ORDER BY ALL"
    ):
        above.setdefault(id_, []).append((first, last))
    return [
        _account(row, above.get(row[0], []))
        for row in view.rows("SELECT id, agent, stream, committed, readings, blocks, bytes FROM streams ORDER BY id")
    ]


def _account(row: Row, above: list[tuple[int, int]]) -> dict[str, Any]:
    _id, agent, stream, committed, count, blocks, size = row
    places = Places(committed, above)
    return {
        "agent": agent,
        "stream": str(stream),
        "first": 1 if committed else places.islands[0][0] if places.islands else 0,
        "last": places.last,
        "holes": [list(hole) for hole in places.holes],
        "readings": count,
        "committed": places.committed,
        "blocks": blocks,
        "bytes": size,
    }


def agents(view: Snapshot) -> list[dict[str, Any]]:
    """The last state of every agent, and when it came."""
    rows = view.rows("SELECT agent, state, received_ns FROM agents ORDER BY agent")
    return [{"agent": agent, **orjson.loads(state), "received_ns": received_ns} for agent, state, received_ns in rows]


def summary(view: Snapshot, blocks: int) -> dict[str, Any]:
    """Totals, and how old readings were when they were committed, over the newest `blocks` blocks, in ms."""
    [totals] = view.rows("SELECT sum(readings)::BIGINT, sum(blocks)::BIGINT, sum(bytes)::BIGINT FROM streams")
    [missing] = view.rows("SELECT count(*), coalesce(sum(readings), 0)::BIGINT FROM gaps")
    [tags] = view.rows("SELECT count(*) FROM tags")
    [latency] = view.rows(
        "WITH newest AS (SELECT stream, sequence, stored_ns FROM blocks ORDER BY stored_ns DESC LIMIT ?)"
        " SELECT quantile_cont((n.stored_ns - r.time) / 1e6, [0.5, 0.99])"
        " FROM readings r JOIN newest n ON r.stream = n.stream AND r.sequence = n.sequence",
        [blocks],
    )
    p50, p99 = latency[0] or (None, None)
    return {
        "readings": totals[0] or 0,
        "blocks": totals[1] or 0,
        "bytes": totals[2] or 0,
        "tags": tags[0],
        "gaps": missing[0],
        "readings_lost": missing[1],
        "latency_ms_p50": p50,
        "latency_ms_p99": p99,
    }


def pieces(page: Page, size: int = 20_000) -> Iterator[bytes]:
    """The readings of a page as the inside of a JSON array, in pieces: a million at once would hold the others up."""
    for at in range(0, len(page.readings), size):
        if at:
            yield b","
        yield orjson.dumps(page.readings[at : at + size])[1:-1]
