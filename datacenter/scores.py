"""Quality scores from the store: readings, their way here, and what the streams account for, window by window."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from agent.model import ValueType
from datacenter import completeness, moment
from datacenter.kinds import KIND_OF
from datacenter.quality import Point, Rules, scores
from datacenter.query import Named, Span, readings_of, where
from datacenter.store import Snapshot

MOST_READINGS = 1_000_000
MOST_WINDOWS = 10_000
MOST_GAPS = 1_000_000


class TooMuch(ValueError):
    """More readings or windows than one answer may be made from; the message says what to write."""


def of(
    view: Snapshot, who: Named, span: Span, window_ns: int | None, rules: Rules, *, base_ns: int = 1
) -> dict[str, Any]:
    """The scores of every window of a span; without a window, of the whole. Raises TooMuch.

    Open ends stand for the first and the last reading. The span is made of whole windows of `base_ns` that are over,
    which are the shortest that whoever asks may see. `complete` and `readings_lost` are from the account of the
    streams (/v1/completeness): a gap that touches a window makes it incomplete, whatever the spacing tells.
    """
    if base_ns > 1:
        over_ns = time.time_ns() // base_ns * base_ns
        begin = max(moment.LOWEST, span.from_ns // base_ns * base_ns)
        span = replace(span, from_ns=begin, to_ns=max(begin, min(-(-span.to_ns // base_ns) * base_ns, over_ns)))
    points = _points(view, who, span)
    first = points[0].time_ns if points else 0
    last = points[-1].time_ns if points else 0
    begin = first // base_ns * base_ns if span.from_ns == moment.LOWEST else span.from_ns
    end = last + 1 if span.to_ns == moment.HIGHEST else span.to_ns
    if rules.low is None and rules.high is None:
        [(low, high)] = view.rows("SELECT low, high FROM tags WHERE key = ?", [who.keys[-1]])
        rules = replace(rules, low=low, high=high)
    length = window_ns or max(1, end - begin)
    aligned = begin if window_ns is None else begin // length * length
    if (count := -(-(end - aligned) // length)) > MOST_WINDOWS:
        raise TooMuch(f"{count} windows; write a longer window, a later from or an earlier to")
    starts = range(aligned, end, length) or [begin]
    spans = [(max(begin, start), max(begin, min(end, start + length))) for start in starts]
    accounts = _accounts(completeness.account(view, begin, end, who, MOST_GAPS), spans)
    numeric = all(each.is_number or each is ValueType.BOOL for each in map(ValueType, who.types))
    found, at = [], 0
    for (lower, upper), account in zip(spans, accounts, strict=True):
        until = at
        while until < len(points) and points[until].time_ns < upper:
            until += 1
        scored = scores(points[at:until], upper - lower, rules)
        if not numeric:
            scored["validity"] = scored["gbt36344"]["plausibility"] = None
        found.append({"from_ns": lower, "to_ns": upper, **scored, **account})
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


def _accounts(account: dict[str, Any], spans: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """What the account of the streams says of each window; windows are in order and next to each other."""
    streams = account["streams"]
    gaps = [(gap, gap["readings"]) for stream in streams for gap in stream["gaps"]]
    holes = [(hole, 1) for stream in streams for hole in stream["holes"]]
    known_ns = min((stream["known_until_ns"] for stream in streams if not stream["closed"]), default=moment.HIGHEST)
    lost, told = _touching(gaps, spans), _touching([(gap, 1) for gap, _ in gaps], spans)
    for (_, upper), readings, gapped, holed in zip(spans, lost, told, _touching(holes, spans), strict=True):
        complete = bool(streams) and known_ns >= upper - 1 and not gapped and not holed
        yield {"complete": complete, "readings_lost": readings, "gaps": gapped, "holes": holed}


def _touching(of: Sequence[tuple[dict[str, int], int]], spans: Sequence[tuple[int, int]]) -> Iterator[int]:
    """The sum, over what overlaps a window, of the numbers beside it: for each window."""
    lowers, uppers = [lower for lower, _ in spans], [upper for _, upper in spans]
    steps = [0] * (len(spans) + 1)
    for interval, amount in of:
        begin, end = bisect_right(uppers, interval["from_ns"]), bisect_right(lowers, interval["to_ns"])
        if begin < end:
            steps[begin] += amount
            steps[end] -= amount
    return accumulate(steps[:-1])
