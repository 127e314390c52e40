"""What the outbox does with a single entry beyond those that are confirmed in order: delivered, or set aside.

Its places get a gap, as all places do that have no block any more, so that the stream has no holes. A gap for blocks
that were delivered counts no readings. Should it ever be sent, a data center that has the blocks takes no notice of it,
and one whose store is new learns why it will not get them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent import _native, durable
from agent.entry import COLUMNS, INSERT, Entry, Totals, from_row, to_row
from agent.quota import Rows, gap_for
from agent.streams import Streams

DELIVERED = "delivered before, to a store that this one does not know"
MOST_ASIDE = 100
"""Blocks that are kept as files beside the outbox; of more than that only the gaps remain."""


async def mark(rows: Rows, now: Totals, first: int, last: int, streams: Streams) -> tuple[Totals, int]:
    """Within a transaction, puts one gap for all entries that lie within `first` to `last`, which were delivered.

    Returns the totals, and how many readings the entries held.
    """
    first = max(first, now.confirmed + 1)
    if streams.begins(first):
        first += 1  # the entry there says why the stream begins
    before = await rows(
        "SELECT sequence, last, gap, body FROM entry WHERE sequence < ? ORDER BY sequence DESC LIMIT 1", (first,)
    )
    if (
        before
        and before[0][0] > now.confirmed
        and before[0][1] == first - 1
        and before[0][2]
        and _is_mark(before[0][3])
    ):
        first = before[0][0]
    found = await rows(
        f"SELECT {COLUMNS}, x'' FROM entry WHERE sequence >= ? AND last <= ? ORDER BY sequence",  # noqa: S608
        (first, last),
    )
    entries = [from_row(row) for row in found]
    if not entries or (len(entries) == 1 and entries[0].gap):
        return now, 0
    begin, end = entries[0].sequence, entries[-1].last
    [(count, readings, size)] = await rows(
        "SELECT count(*), sum(iif(gap, 0, readings)), sum(length(body)) FROM entry WHERE sequence BETWEEN ? AND ?",
        (begin, end),
    )
    run = replace(
        entries[0],
        last=end,
        readings=0,
        first_ns=min(entry.first_ns for entry in entries),
        last_ns=max(entry.last_ns for entry in entries),
        gap=True,
    )
    body = gap_for(run, streams, DELIVERED).data
    await rows("DELETE FROM entry WHERE sequence BETWEEN ? AND ?", (begin, end))
    await rows(f"INSERT {INSERT}", to_row(replace(run, body=body)))
    return (
        replace(
            now,
            entries=now.entries - count + 1,
            readings=now.readings - readings,
            bytes=now.bytes - size + len(body),
        ),
        readings,
    )


async def bury(rows: Rows, now: Totals, entry: Entry, reason: str, streams: Streams) -> Totals:
    """Within a transaction, puts a gap in the place of one block that can't be delivered."""
    body = gap_for(entry, streams, reason).data
    await rows("DELETE FROM entry WHERE sequence = ?", (entry.sequence,))
    await rows(f"INSERT {INSERT}", to_row(replace(entry, body=body, gap=True)))
    return replace(
        now,
        readings=now.readings - entry.readings,
        bytes=now.bytes - len(entry.body) + len(body),
        dropped_readings=now.dropped_readings + entry.readings,
        dropped_entries=now.dropped_entries + 1,
    )


def quarantine(outbox: Path) -> Path:
    """Where the blocks are kept that can't be delivered."""
    return outbox.parent / "quarantine"


def keep_aside(outbox: Path, entry: Entry) -> Path | None:
    """Writes a block into the folder `quarantine` beside the outbox, for people. None where there is no room for it."""
    folder = quarantine(outbox)
    try:
        folder.mkdir(exist_ok=True)
        # Places are not used twice in one stream, but an outbox that was made anew begins at 1.
        path = folder / f"block-{entry.body[7:11].hex()}-{entry.sequence}.hdr"
        if not path.exists() and sum(1 for _ in folder.iterdir()) >= MOST_ASIDE:
            return None
        durable.write(path, entry.body)
    except OSError:
        return None
    return path


def _is_mark(body: bytes) -> bool:
    return _native.header(body).reason == DELIVERED
