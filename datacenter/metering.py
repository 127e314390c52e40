"""Metering: what each grantee asked for and got, counted from the ledger of queries, so that the two always agree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from agent import audit
from datacenter.grants import Grants


def count(folder: Path, grants: Grants) -> None:
    """Adds the records that came since the last time. Any thread; each record counts once, crashes included."""
    with grants.changing() as base:
        row = base.execute("SELECT upto FROM metered").fetchone()
        upto: int = row[0] if row else 0
        sums: dict[tuple[str, str], list[int]] = {}
        last = upto
        for record in _since(folder, upto):
            last = max(last, record.n)
            if record.kind != "query":
                continue
            facts = record.facts
            month = time.strftime("%Y-%m", time.gmtime(record.time_ns // 10**9))
            sum_ = sums.setdefault((str(facts.get("who") or ""), month), [0, 0, 0, 0])
            sum_[0] += 1
            sum_[1] += facts.get("status") != 200
            sum_[2] += int(facts.get("readings") or 0)
            sum_[3] += int(facts.get("bytes") or 0)
        for (who, month), sum_ in sums.items():
            base.execute(
                "INSERT INTO metering VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET queries = queries +"
                " excluded.queries, refused = refused + excluded.refused, readings = readings + excluded.readings,"
                " bytes = bytes + excluded.bytes",
                [who, month, *sum_],
            )
        if last > upto:
            base.execute("DELETE FROM metered")
            base.execute("INSERT INTO metered VALUES (?)", [last])


def _since(folder: Path, upto: int) -> Iterator[audit.Record]:
    found = audit.files(folder, "queries")
    while len(found) > 1 and found[1][0] <= upto + 1:
        del found[0]
    for _, path in found:
        with path.open("rb") as file:
            for line in file:
                # Below the mark only the number is looked at: a file is read from its begin again and again.
                if line.endswith(b"\n") and not _counted(line, upto):
                    try:
                        yield audit.Record.parse(line[:-1])
                    except ValueError:
                        continue


def _counted(line: bytes, upto: int) -> bool:
    number = line[5:25].partition(b",")[0]
    return number.isdigit() and int(number) <= upto
