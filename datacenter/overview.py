"""What is known of tags, streams and agents, and totals; plain functions of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from datacenter.identity import starts
from datacenter.places import Places
from datacenter.store import Row, Snapshot


def catalog(view: Snapshot, prefix: str) -> Iterator[dict[str, Any]]:
    """Every tag that was ever known, by identifier."""
    names = ("identifier", "agent", "device", "name", "type", "unit", "low", "high", "domain", "level", "description")
    rows = view.rows(
        f"SELECT {', '.join(names)}, source FROM tags WHERE starts_with(identifier, ?)"  # noqa: S608 - names of our own
        " OR (? != '' AND starts_with(lookup, ?)) ORDER BY identifier, key",
        [prefix, starts(prefix), starts(prefix)],
    )
    return ({**dict(zip(names, row[:-1], strict=True)), "source": orjson.loads(row[-1])} for row in rows)


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
    # Whoever it says that it is: it is the agent of the topic that it came on.
    return [{**orjson.loads(state), "agent": agent, "received_ns": received_ns} for agent, state, received_ns in rows]


def summary(view: Snapshot, blocks: int) -> dict[str, Any]:
    """Totals, and how old readings were when they were committed, over the newest `blocks` blocks, in ms."""
    [totals] = view.rows("SELECT sum(readings)::BIGINT, sum(blocks)::BIGINT, sum(bytes)::BIGINT FROM streams")
    [missing] = view.rows("SELECT count(*), coalesce(sum(readings), 0)::BIGINT FROM gaps")
    [tags] = view.rows("SELECT count(*) FROM tags")
    [latency] = view.rows(
        "WITH newest AS (SELECT stream, sequence, stored_ns FROM blocks ORDER BY stored_ns DESC LIMIT ?)"
        " SELECT quantile_cont((n.stored_ns::DOUBLE - r.time) / 1e6, [0.5, 0.99])"
        " FROM every r JOIN newest n ON r.stream = n.stream AND r.sequence = n.sequence",
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
