"""Completeness: whether the data center has everything that agents accepted in an interval, or what is missing.

Three things can be missing of a stream. A **gap** is known to be lost, with its reason. A **hole** is a place whose
block has not come yet, and may still come. And what an agent accepted after the newest block that came is not known of
at all: a stream is accounted for until its `known_until_ns`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agent.wire import State
from datacenter import corrections, overview
from datacenter.query import Named
from datacenter.store import Snapshot

MAX_GAPS = 10_000
"""Of one stream in one answer."""


@dataclass(frozen=True, slots=True)
class _Stream:
    id: int
    stream: UUID
    agent: str
    begins_ns: int
    sealed_ns: int
    """When its newest block without a hole before it was sealed."""


def account(
    view: Snapshot, from_ns: int, to_ns: int | None, who: Named | None = None, most: int = MAX_GAPS
) -> dict[str, Any]:
    """The account of every stream, or of those that carry an identifier, over [from_ns, to_ns].

    Without an end it goes as far as each stream is known; with one, a stream that is not closed has to be known until
    then to be complete. Of each stream the first `most` gaps and holes are listed; `more_gaps` and `more_holes` say how
    many there are beside them.
    """
    current = _current(view)
    holes = {UUID(found["stream"]): found["holes"] for found in overview.streams(view)}
    answers = []
    for each in _streams(view, who):
        newest, quiet_since_ns = current.get(each.agent, (each.stream, 0))
        closed = each.stream != newest
        known_ns = each.sealed_ns
        if not closed and not holes.get(each.stream):
            known_ns = max(known_ns, quiet_since_ns)
        end_ns = known_ns if to_ns is None else to_ns
        if each.begins_ns > end_ns or (closed and each.sealed_ns < from_ns):
            continue
        gaps, told, lost = _gaps(view, each.id, from_ns, end_ns, most)
        open_ = [
            hole
            for hole in _holes(view, each, holes.get(each.stream, []))
            if hole["from_ns"] <= end_ns and hole["to_ns"] >= from_ns
        ]
        more = {"more_gaps": told - len(gaps), "more_holes": len(open_) - most}
        answers.append(
            {
                "agent": each.agent,
                "stream": str(each.stream),
                "closed": closed,
                "begins_ns": each.begins_ns,
                "known_until_ns": known_ns,
                "complete": not gaps and not open_ and (closed or known_ns >= end_ns),
                "readings_lost": lost,
                "gaps": gaps,
                "holes": open_[:most],
                **{name: count for name, count in more.items() if count > 0},
                "corrections": corrections.of(view, each.stream),
                "readings_in_doubt": corrections.in_doubt(view, each.id, each.stream, from_ns, end_ns),
            }
        )
    complete = bool(answers) and all(answer["complete"] for answer in answers)
    return {"from_ns": from_ns, "to_ns": to_ns, "complete": complete, "streams": answers}


def _streams(view: Snapshot, who: Named | None) -> list[_Stream]:
    rows = view.rows(
        "SELECT s.id, s.stream, s.agent, coalesce(b.begins, g.begins),"
        " greatest(coalesce(b.sealed, g.ends), coalesce(g.ends, b.sealed)) FROM streams s"
        " LEFT JOIN (SELECT b.stream, min(b.first_ns) AS begins, max(b.sealed_ns) FILTER (b.sequence <= s.committed)"
        "   AS sealed FROM blocks b JOIN streams s ON s.id = b.stream GROUP BY ALL) b ON b.stream = s.id"
        " LEFT JOIN (SELECT g.stream, min(g.from_ns) AS begins, max(g.to_ns) FILTER (g.last <= s.committed)"
        "   AS ends FROM gaps g JOIN streams s ON s.id = g.stream GROUP BY ALL) g ON g.stream = s.id"
        " ORDER BY s.agent, s.id"
    )
    return [
        _Stream(id_, stream, agent, begins, sealed if sealed is not None else begins)
        for id_, stream, agent, begins, sealed in rows
        if begins is not None and (who is None or agent in who.agents)
    ]


def _current(view: Snapshot) -> dict[str, tuple[UUID, int]]:
    """The stream that each agent writes now, and until when (ns UTC) it had nothing that is not here; 0: not known.

    The stream that stored last, where the agent's own state is not known.
    """
    rows = view.rows("SELECT agent, arg_max(stream, stored_ns) FROM streams GROUP BY agent")
    found: dict[str, tuple[UUID, int]] = {agent: (stream, 0) for agent, stream in rows}
    for agent, text, received_ns in view.rows("SELECT agent, state, received_ns FROM agents"):
        state = State.decode(text.encode())
        if state.stream is None:
            continue
        outbox = state.facts.get("outbox")
        empty = isinstance(outbox, dict) and outbox.get("entries") == 0
        idle = empty and state.facts.get("pending_readings") == 0
        found[agent] = (state.stream, received_ns if idle else 0)
    return found


def _gaps(view: Snapshot, stream: int, from_ns: int, to_ns: int, most: int) -> tuple[list[dict[str, Any]], int, int]:
    """The first gaps; how many there are, and how many readings they lost."""
    names = ("from_ns", "to_ns", "readings", "reason", "first", "last")
    where = "FROM gaps WHERE stream = ? AND from_ns <= ? AND to_ns >= ?"
    values = [stream, to_ns, from_ns]
    [(count, lost)] = view.rows(f"SELECT count(*), coalesce(sum(readings), 0)::BIGINT {where}", values)
    rows = view.rows(f"SELECT {', '.join(names)} {where} ORDER BY first LIMIT ?", [*values, most])
    return [dict(zip(names, row, strict=True)) for row in rows], count, lost


def _holes(view: Snapshot, of: _Stream, holes: list[list[int]]) -> list[dict[str, int]]:
    """A hole is bounded by when its neighbours were sealed: what is in it was accepted in between."""
    if not holes:
        return []
    blocks = "(SELECT sequence, sealed_ns FROM blocks WHERE stream = ?)"
    rows = view.rows(
        "SELECT h.first, h.last, before.sealed_ns, after.sealed_ns"  # noqa: S608 - names of our own
        " FROM (SELECT unnest(?::BIGINT[]) AS first, unnest(?::BIGINT[]) AS last) h"
        f" ASOF LEFT JOIN {blocks} before ON h.first > before.sequence"
        f" ASOF LEFT JOIN {blocks} after ON h.last < after.sequence ORDER BY h.first",
        [*map(list, zip(*holes, strict=True)), of.id, of.id],
    )
    found = []
    for first, last, before, after in rows:
        from_ns = of.begins_ns if before is None else before
        found.append({"from_ns": from_ns, "to_ns": from_ns if after is None else after, "first": first, "last": last})
    return found
