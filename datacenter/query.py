"""Readings of one identifier or of several, in one order, page by page; plain functions of a snapshot.

The order is (time, stream, sequence, tag, arrival): total, the same in every format, and not changed by settling.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agent.model import ValueType
from datacenter import tables
from datacenter.identity import lookup, starts
from datacenter.kinds import KIND_OF, kinds_of
from datacenter.store import Row, Snapshot

MAX_KEYS = 10_000
"""Tags of one question."""
MAX_GAPS = 10_000
"""That one answer lists."""
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
_AS_THEY_ARE = {"boolean", "integer", "unsigned", "text"}
"""The kinds whose values JSON has as they are."""


class TooMany(ValueError):
    """A prefix that more tags begin with than one question may have."""


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
    """The tags that ever carried an identifier; spelling, type and unit are those of the newest.

    `level` is the highest of its tags; None where one of them has none.
    """

    identifier: str
    keys: tuple[int, ...]
    types: tuple[str, ...]
    type: str
    unit: str
    agents: tuple[str, ...]
    level: int | None = None
    lookup: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Readings by time, (time, value, quality), of several identifiers also the id; `next` is None at the end."""

    readings: list[tuple[Any, ...]]
    next: Cursor | None


def named(view: Snapshot, identifier: str) -> Named | None:
    """Who carries this identifier, in whatever spelling; None where nobody ever did."""
    return next(iter(_named(view, "lookup = ?", [lookup(identifier)])), None)


def begun(view: Snapshot, prefix: str) -> list[Named]:
    """Everyone whose identifier begins with `prefix`, by identifier. Raises TooMany."""
    where = "starts_with(identifier, ?) OR (? != '' AND starts_with(lookup, ?))"
    return _named(view, where, [prefix, starts(prefix), starts(prefix)])


def _named(view: Snapshot, where: str, values: list[Any]) -> list[Named]:
    rows = view.rows(
        "SELECT lookup, identifier, key, type, unit, agent, level FROM tags"  # noqa: S608 - a condition of our own
        f" WHERE {where} ORDER BY lookup, key LIMIT ?",
        [*values, MAX_KEYS + 1],
    )
    if len(rows) > MAX_KEYS:
        raise TooMany(f"more than {MAX_KEYS} tags begin so; write a longer prefix")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[0], []).append(row)
    found = []
    for found_lookup, group in groups.items():
        _, names, keys, types, units, agents, levels = zip(*group, strict=True)
        found.append(
            Named(
                identifier=names[-1],
                keys=keys,
                types=tuple(dict.fromkeys(types)),
                type=types[-1],
                unit=units[-1],
                agents=tuple(dict.fromkeys(agents)),
                level=None if None in levels else max(levels),
                lookup=found_lookup,
            )
        )
    return found


def readings(view: Snapshot, who: Named | Sequence[Named], span: Span) -> Page:
    """One page as JSON has it: NaN and the infinities are texts (OPC 10000-6, 5.4.2.4), bytes are base64."""
    whom = [who] if isinstance(who, Named) else list(who)
    kinds = kinds_in(whom)
    rows = _ordered(view, whom, span, f"time, quality, stream, sequence, key, {', '.join(map(quoted, kinds))}")
    more = len(rows) > span.limit
    del rows[span.limit :]
    page: list[tuple[Any, ...]]
    if len(kinds) == 1:
        page = [(row[0], row[5], row[1]) for row in rows]
    else:
        page = [(row[0], next((value for value in row[5:] if value is not None), None), row[1]) for row in rows]
    if not _AS_THEY_ARE.issuperset(kinds):
        page = [(time_ns, spelled(value), quality) for time_ns, value, quality in page]
    if not isinstance(who, Named):
        name = {key: each.identifier for each in whom for key in each.keys}
        page = [(*reading, name[row[4]]) for reading, row in zip(page, rows, strict=True)]
    return Page(page, _cursor(rows, span) if more else None)


def table(view: Snapshot, who: Named | Sequence[Named], span: Span) -> tuple[pa.Table, Cursor | None]:
    """One page as an Arrow table: time_ns, time, value, quality, of several identifiers also id. Values are in the
    tag's own type; where types differ they are text."""
    whom = [who] if isinstance(who, Named) else list(who)
    types = {type_ for each in whom for type_ in each.types}
    if len(types) == 1:
        [type_] = types
        value = f"CAST({quoted(KIND_OF[ValueType(type_)])} AS {_SQL_TYPE[ValueType(type_)]})"
    else:
        value = f"coalesce({', '.join(map(_text, kinds_in(whom)))})"
    columns = f"time AS time_ns, {value} AS value, quality"
    # Of one identifier the rest is only needed to go on behind a page, and each column is read from the disk by itself.
    found, cursor = _in_order(view, whom, span, columns if isinstance(who, Named) else f"{columns}, key"), None
    if found is None:
        found = view.arrow(_page(whom, span, f"{columns}, stream, sequence, key"))
        more = found.num_rows > span.limit
        found = found.slice(0, span.limit)
        if more:
            places = [found.column(name).to_pylist() for name in ("time_ns", "stream", "sequence")]
            cursor = _cursor([(at, 0, stream, place) for at, stream, place in zip(*places, strict=True)], span)
    times = found.column("time_ns").cast(pa.timestamp("ns", "UTC"))
    chosen = found.select(["time_ns", "value", "quality"]).add_column(1, "time", times)
    if not isinstance(who, Named):
        keys = pa.array([key for each in whom for key in each.keys], pa.int32())
        names = pa.array([each.identifier for each in whom for _ in each.keys], pa.string())
        chosen = chosen.append_column("id", pc.take(names, pc.index_in(found.column("key"), keys)))
    return chosen, cursor


def kinds_in(whom: Sequence[Named]) -> list[str]:
    """The kinds of their values, which are columns of `readings_of`."""
    return kinds_of(type_ for each in whom for type_ in each.types)


def quoted(kind: str) -> str:
    """A kind as a column in SQL, where some are words of the language."""
    return f'"{kind}"'


def readings_of(whom: Sequence[Named]) -> str:
    """Where the readings of some identifiers are, for a FROM."""
    return tables.of(kinds_in(whom))


def where(whom: Sequence[Named], from_ns: int, to_ns: int) -> str:
    """The condition for the readings of some identifiers in a span. Only numbers: nothing in it came from outside."""
    keys = sorted({key for each in whom for key in each.keys})
    chosen = f"key = {keys[0]:d}" if len(keys) == 1 else f"key IN ({', '.join(f'{key:d}' for key in keys)})"
    return f"{chosen} AND time >= {from_ns:d} AND time < {to_ns:d}"


def _question(whom: Sequence[Named], span: Span, columns: str) -> str:
    after = span.after
    condition = where(whom, span.from_ns if after is None else max(span.from_ns, after.time_ns), span.to_ns)
    if after is not None:
        condition += f" AND (time, stream, sequence) >= ({after.time_ns:d}, {after.stream:d}, {after.sequence:d})"
    return f"SELECT {columns} FROM {readings_of(whom)} WHERE {condition}"  # noqa: S608 - names and numbers of our own


def _page(whom: Sequence[Named], span: Span, columns: str) -> str:
    given = span.after.given if span.after else 0
    order = "ORDER BY time, stream, sequence, key, half, place"
    return f"{_question(whom, span, columns)} {order} LIMIT {span.limit + 1:d} OFFSET {given:d}"


def _ordered(view: Snapshot, whom: Sequence[Named], span: Span, columns: str) -> list[Row]:
    return view.rows(_page(whom, span, columns))


def _in_order(view: Snapshot, whom: Sequence[Named], span: Span, columns: str) -> pa.Table | None:
    """All that is asked for, where it is one page and lies in order already, as nearly always; to look is much cheaper
    than to sort."""
    if span.after is not None:
        return None
    found = view.arrow(f"{_question(whom, span, columns)} LIMIT {span.limit + 1:d}")
    if found.num_rows > span.limit:
        return None
    times = found.column("time_ns").combine_chunks()
    return found if pc.all(pc.less(times[:-1], times[1:])).as_py() is not False else None


def _cursor(rows: list[Row], span: Span) -> Cursor:
    """The cursor behind the last of these (time, _, stream, sequence, ...) rows."""
    time_ns, _, stream, sequence, *_rest = rows[-1]
    given = 0
    for row in reversed(rows):
        if (row[0], row[2], row[3]) != (time_ns, stream, sequence):
            break
        given += 1
    after = span.after
    here = (time_ns, stream, sequence)
    if after is not None and given == len(rows) and (after.time_ns, after.stream, after.sequence) == here:
        given += after.given
    return Cursor(time_ns, stream, sequence, given)


def _text(kind: str) -> str:
    match kind:
        case "bytes":
            return 'base64("bytes")'
        case "bytes_array":
            return 'CAST(list_transform("bytes_array", each -> base64(each)) AS VARCHAR)'
        case _:
            return f"CAST({quoted(kind)} AS VARCHAR)"


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


def gaps(view: Snapshot, whom: Sequence[Named], span: Span) -> dict[str, Any]:
    """What is known to be missing of the streams that carry the identifiers, overlapping the span: `gaps`, the first of
    them, and `more_gaps`, how many there are beside them."""
    agents = sorted({agent for each in whom for agent in each.agents})
    rows = view.rows(
        "SELECT g.from_ns, g.to_ns, g.reason, count(*) OVER () FROM gaps g JOIN streams s ON s.id = g.stream"
        " WHERE list_contains(?, s.agent) AND g.from_ns < ? AND g.to_ns >= ? ORDER BY ALL LIMIT ?",
        [agents, span.to_ns, span.from_ns, MAX_GAPS],
    )
    found = [{"from_ns": from_ns, "to_ns": to_ns, "reason": reason} for from_ns, to_ns, reason, _ in rows]
    more = rows[0][3] - len(rows) if rows else 0
    return {"gaps": found} | ({"more_gaps": more} if more else {})


def pieces(readings: list[Any], size: int = 20_000) -> Iterator[bytes]:
    """The rows of a page as the inside of a JSON array, in pieces: a million at once would hold the others up."""
    for at in range(0, len(readings), size):
        if at:
            yield b","
        yield orjson.dumps(readings[at : at + size])[1:-1]
