"""Quality scores from the store: readings, their way here, and what the streams account for, window by window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.model import ValueType
from datacenter import completeness, moment
from datacenter.kinds import KIND_OF
from datacenter.quality import Point, Rules, scores
from datacenter.query import Named, Span, readings_of, where
from datacenter.store import Snapshot

MOST_READINGS = 1_000_000
MOST_WINDOWS = 10_000


class TooMuch(ValueError):
    """More readings or windows than one answer may be made from; the message says what to write."""


def of(view: Snapshot, who: Named, span: Span, window_ns: int | None, rules: Rules) -> dict[str, Any]:
    """The scores of every window of a span; without a window, of the whole. Raises TooMuch.

    Open ends stand for the first and the last reading. `complete` and `readings_lost` are from the account of the
    streams (/v1/completeness): a gap that touches a window makes it incomplete, whatever the spacing tells.
    """
    points = _points(view, who, span)
    first = points[0].time_ns if points else 0
    last = points[-1].time_ns if points else 0
    begin = first if span.from_ns == moment.LOWEST else span.from_ns
    end = last + 1 if span.to_ns == moment.HIGHEST else span.to_ns
    if rules.low is None and rules.high is None:
        [(low, high)] = view.rows("SELECT low, high FROM tags WHERE key = ?", [who.keys[-1]])
        rules = replace(rules, low=low, high=high)
    account = completeness.account(view, begin, end, who)
    length = window_ns or max(1, end - begin)
    begins = [begin] if window_ns is None else range(begin // length * length, end, length)
    if len(begins) > MOST_WINDOWS:
        raise TooMuch(f"{len(begins)} windows; write a longer window, a later from or an earlier to")
    numeric = all(each.is_number or each is ValueType.BOOL for each in map(ValueType, who.types))
    found, at = [], 0
    for start in begins:
        lower, upper = max(begin, start), min(end, start + length)
        until = at
        while until < len(points) and points[until].time_ns < upper:
            until += 1
        scored = scores(points[at:until], upper - lower, rules)
        if not numeric:
            scored["validity"] = scored["gbt36344"]["plausibility"] = None
        found.append({"from_ns": lower, "to_ns": upper, **scored, **_accounted(account, lower, upper)})
        at = until
    return {"id": who.identifier, "unit": who.unit, "type": who.type, "windows": found}


def _points(view: Snapshot, who: Named, span: Span) -> list[Point]:
    columns = [KIND_OF[each] for each in map(ValueType, who.types) if each.is_number or each is ValueType.BOOL]
    numbers = ", ".join(f'CAST("{column}" AS DOUBLE)' for column in dict.fromkeys(columns))
    # What is no number has a value or not: 0 stands for having one.
    others = [KIND_OF[each] for each in map(ValueType, who.types) if not (each.is_number or each is ValueType.BOOL)]
    there = [f'CASE WHEN "{column}" IS NOT NULL THEN 0.0 END' for column in dict.fromkeys(others)]
    value = f"coalesce({', '.join([*([numbers] if numbers else []), *there])}, NULL)"
    chosen = where([who], span.from_ns, span.to_ns)
    rows = view.rows(
        f"SELECT r.time, r.value, r.quality, coalesce(b.received_ns, b.stored_ns) FROM"  # noqa: S608 - own names
        f" (SELECT time, {value} AS value, quality, stream, sequence FROM {readings_of([who])} WHERE {chosen}) r"
        " JOIN blocks b ON b.stream = r.stream AND b.sequence = r.sequence ORDER BY r.time LIMIT ?",
        [MOST_READINGS + 1],
    )
    if len(rows) > MOST_READINGS:
        raise TooMuch(f"more than {MOST_READINGS} readings; write a later from or an earlier to")
    return [Point(*row) for row in rows]


def _accounted(account: dict[str, Any], from_ns: int, to_ns: int) -> dict[str, Any]:
    gaps = [
        gap
        for stream in account["streams"]
        for gap in stream["gaps"]
        if gap["from_ns"] < to_ns and gap["to_ns"] >= from_ns
    ]
    holes = [
        hole for stream in account["streams"] for hole in stream["holes"]
        if hole["from_ns"] < to_ns and hole["to_ns"] >= from_ns
    ]  # fmt: skip
    known = all(stream["closed"] or stream["known_until_ns"] >= to_ns - 1 for stream in account["streams"])
    return {
        "complete": bool(account["streams"]) and known and not gaps and not holes,
        "readings_lost": sum(gap["readings"] for gap in gaps),
        "gaps": len(gaps),
        "holes": len(holes),
    }
