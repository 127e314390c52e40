"""A plant of 50 REALs, read 20 times a second: 1,000 readings/s in source time, sealed a second at a time, as fast as
the core takes them. It remembers sums of all that it made, so that a store of hundreds of millions can be judged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from agent import _native
from agent.model import Tag, ValueType

if TYPE_CHECKING:
    from agent.outbox import Outbox

TAGS = [Tag(at, "press", f"t{at}", f"hr:{2 * at}", ValueType.FLOAT32, f"88.1/press.t{at}") for at in range(50)]
SCANS = 20
"""Of every tag in a second."""
RATE = SCANS * len(TAGS)
BEGIN = 1_750_000_000_000_000_000
STEP_NS = 10**9 // SCANS
GROUP = 64
"""Seconds that share a commit."""
CYCLE = 1009
"""A prime: sums weighted by a scan's number modulo this tell readings that trade places."""

Sums = dict[str, tuple[int, int, int]]
"""Tag name -> readings, the sum of their hundredths, and that sum weighted."""


class Plant:
    """Random walks of 0.05 a scan, in hundredths, as a PLC rounds them; every value is in the REAL's own precision."""

    def __init__(self, outbox: Outbox, epoch: int, seed: int = 7) -> None:
        self._outbox, self._epoch = outbox, epoch
        self._buffer = _native.Buffer(TAGS)
        self._plan = self._buffer.modbus_plan(
            [
                {"tag": tag.index, "at": 2 * tag.index, "type": "float32", "order": "ABCD", "bit": None, "length": 0}
                for tag in TAGS
            ]
        )
        self._chance = np.random.default_rng(seed)
        self._hundredths = np.full(len(TAGS), 2000, dtype=np.int64)
        self._sums = np.zeros((2, len(TAGS)), dtype=np.int64)
        self._scan = 0

    @property
    def seconds(self) -> int:
        """Stored so far."""
        return self._scan // SCANS

    def sums(self) -> Sums:
        plain, weighted = self._sums.tolist()
        return {tag.name: (self._scan, plain[tag.index], weighted[tag.index]) for tag in TAGS}

    async def store(self, seconds: int) -> None:
        """Stores so many seconds, a commit for every 64; returns when they are durable."""
        while seconds:
            group = min(GROUP, seconds)
            blocks = self._blocks(group)
            await asyncio.gather(*(self._outbox.append(block, self._epoch) for block in blocks))
            seconds -= group

    def _blocks(self, seconds: int) -> list[_native.Block]:
        steps = np.rint(self._chance.normal(0, 5, (seconds * SCANS, len(TAGS)))).astype(np.int64)
        hundredths = self._hundredths + np.cumsum(steps, axis=0)
        self._hundredths = hundredths[-1]
        weights = (np.arange(self._scan, self._scan + len(hundredths)) % CYCLE)[:, None]
        self._sums += np.stack([hundredths.sum(axis=0), (hundredths * weights).sum(axis=0)])
        answers = (hundredths / 100).astype(">f4")
        first, stream = self._outbox.next_sequence, self._outbox.stream.bytes
        blocks = []
        for at, answer in enumerate(answers):
            self._buffer.push_registers(self._plan, answer.tobytes(), BEGIN + self._scan * STEP_NS)
            self._scan += 1
            if self._scan % SCANS == 0:
                sealed = self._buffer.seal(stream=stream, sequence=first + at // SCANS, epoch=self._epoch)
                assert sealed is not None
                blocks.append(sealed)
        return blocks


def sums(store: Path) -> tuple[Sums, int]:
    """What a store that nobody has open holds of this plant: Good readings by tag, and how many it holds in all.

    Blocking: seconds for hundreds of millions of readings.
    """
    with duckdb.connect(str(store / "headrace.duckdb"), read_only=True, config={"memory_limit": "2GB"}) as db:
        rows = db.execute(
            "SELECT t.name, count(*), sum(round(real * 100)::BIGINT),"
            " sum(round(real * 100)::BIGINT * ((time - ?) // ? % ?)) FROM every JOIN tags t USING (key)"
            " WHERE quality = 0 AND (time - ?) % ? = 0 GROUP BY ALL",
            [BEGIN, STEP_NS, CYCLE, BEGIN, STEP_NS],
        ).fetchall()
        [(held,)] = db.execute("SELECT count(*) FROM every").fetchall()
    return {name: (count, int(plain), int(weighted)) for name, count, plain, weighted in rows}, held


def uneven(store: Path) -> int:
    """Blocks of a store that nobody has open that do not have their 1,000 readings, each once."""
    with duckdb.connect(str(store / "headrace.duckdb"), read_only=True, config={"memory_limit": "2GB"}) as db:
        [(found,)] = db.execute(
            "SELECT count(*) FROM (SELECT sequence FROM blocks) FULL JOIN"
            " (SELECT sequence, count(*) AS readings FROM every GROUP BY sequence) USING (sequence)"
            " WHERE readings IS DISTINCT FROM ?",
            [RATE],
        ).fetchall()
    return int(found)
