"""Questions about readings, answered from a snapshot for one caller: what is allowed is decided here, on every path."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from datacenter import aggregate, query
from datacenter.access import Caller
from datacenter.aggregate import NoNumbers, Windows
from datacenter.answers import Problem
from datacenter.asked import opaque
from datacenter.query import Cursor, Named, Span, TooMany
from datacenter.store import Snapshot


@dataclass(frozen=True, slots=True)
class Asked:
    """Which readings, of whom, in which form. Of `ids` and `prefix` one is there."""

    ids: tuple[str, ...]
    prefix: str | None
    span: Span
    windows: Windows | None
    format: str


@dataclass(frozen=True, slots=True)
class Found:
    body: bytes
    readings: int
    next: Cursor | None


def known(view: Snapshot, identifier: str, caller: Caller) -> Named:
    """Raises Problem 404 where nobody carries it, 403 where the caller may not."""
    who = query.named(view, identifier)
    if who is None:
        raise Problem(404, f"no tag has the identifier {identifier!r}; /v1/catalog lists those that are known")
    caller.check(who)
    return who


def readings(view: Snapshot, asked: Asked, caller: Caller) -> Found:
    """One page. Raises Problem."""
    span, windows = caller.aggregates(asked.span, asked.windows)
    who = _whom(view, asked, caller)
    head = _head(who, asked)
    if windows is not None:
        return _aggregates(view, who, span, windows, format_=asked.format, head=head)
    if asked.format != "json":
        table, following = query.table(view, who, span)
        return Found(_as_table(table, asked.format, head), table.num_rows, following)
    page = query.readings(view, who, span)
    rest = _rest(view, who, span, page.next)
    body = b"".join((orjson.dumps(head)[:-1], b',"readings":[', *query.pieces(page.readings), b"],", rest[1:]))
    return Found(body, len(page.readings), page.next)


def _aggregates(
    view: Snapshot, who: Named | Sequence[Named], span: Span, windows: Windows, *, format_: str, head: dict[str, Any]
) -> Found:
    try:
        made = aggregate.made(view, who, span, windows)
    except NoNumbers as reason:
        raise Problem(400, str(reason)) from None
    if format_ != "json":
        return Found(_as_table(made.table(), format_, head), len(made.rows), made.next)
    head |= {"window_ns": windows.length_ns, "columns": list(made.columns)}
    rest = _rest(view, who, span, made.next)
    return Found(
        b"".join((orjson.dumps(head)[:-1], b',"windows":', made.json(), b",", rest[1:])), len(made.rows), made.next
    )


def _whom(view: Snapshot, asked: Asked, caller: Caller) -> Named | list[Named]:
    prefix = asked.prefix
    if prefix is None and len(asked.ids) == 1:
        [identifier] = asked.ids
        # A star at the end is a prefix, unless a tag is really named so.
        if not identifier.endswith("*") or query.named(view, identifier) is not None:
            return known(view, identifier, caller)
        prefix = identifier[:-1]
    if prefix is None:
        each = {who.lookup: who for who in (known(view, identifier, caller) for identifier in asked.ids)}
        return list(each.values())
    try:
        found = query.begun(view, prefix)
    except TooMany as reason:
        raise Problem(400, f"prefix={prefix!r}: {reason}") from None
    if not found:
        raise Problem(404, f"no identifier begins with {prefix!r}; /v1/catalog lists those that are known")
    allowed = caller.allowed(found)
    if not allowed:
        assert caller.grant is not None
        raise Problem(403, f"grant {caller.grant.id} allows no identifier that begins with {prefix!r}")
    return allowed


def _head(who: Named | Sequence[Named], asked: Asked) -> dict[str, Any]:
    if isinstance(who, Named):
        return _facts(who)
    prefix = asked.prefix if asked.prefix is not None else asked.ids[0][:-1] if len(asked.ids) == 1 else None
    return ({} if prefix is None else {"prefix": prefix}) | {"identifiers": [_facts(each) for each in who]}


def _facts(who: Named) -> dict[str, Any]:
    return {"id": who.identifier, "unit": who.unit, "type": who.type}


def _rest(view: Snapshot, who: Named | Sequence[Named], span: Span, following: Cursor | None) -> bytes:
    whom = [who] if isinstance(who, Named) else who
    more = {} if following is None else {"next": opaque(following)}
    return orjson.dumps({**query.gaps(view, whom, span), **more})


def _as_table(table: pa.Table, format_: str, head: dict[str, Any]) -> bytes:
    facts = {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in head.items()}
    table = table.replace_schema_metadata({name: value.encode() for name, value in facts.items()})
    sink = io.BytesIO()
    if format_ == "csv":
        pa.csv.write_csv(query.flat(table) if "value" in table.column_names else table, sink)
    elif format_ == "parquet":
        pa.parquet.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()
