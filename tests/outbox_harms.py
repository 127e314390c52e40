"""Bits that flip in an outbox's files, and files that are cut short: noticed or harmless, and collecting again in 5 s.

Each trial has a seed of its own, so that the one that fails can be run alone: `python -m tests.outbox_soak harms 1
--seed 751791915 --first 2041`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from agent.outbox import Outbox
from tests.outbox_rig import Ledger, block, judge, opened, rest

SECONDS = 5.0
"""Until it collects again."""
TOLD_TRIALS = 1000


@dataclass(slots=True)
class Seen:
    """What the trials came to. `outcomes`: harmless, buried (a gap in its place) or rebuilt (a new stream)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    lost: int = 0
    """Of `blocks`: those that were not saved."""
    slowest: float = 0.0
    """Seconds from the opening to the first block that is committed and judged."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        saved = 100 * (1 - self.lost / max(1, self.blocks))
        return f"{dict(self.outcomes)}, {saved:.1f} % of the blocks saved, slowest {self.slowest:.2f} s"


async def harms(home: Path, seed: int, count: int, first: int = 0) -> Seen:
    """Harms copies of an outbox that was closed, and of one that was killed. Every failure is in `Seen.wrong`."""
    logging.getLogger("headrace.outbox").setLevel(logging.CRITICAL)
    ledger = await _originals(home, random.Random(seed))
    seen = Seen()
    for number in range(first, first + count):
        chance = random.Random(f"{seed}:{number}")
        trial = home / "trial"
        shutil.copytree(home / chance.choice(["whole", "crashed"]), trial)
        what = harm(trial, chance)
        try:
            await _trial(trial, ledger, seen)
        except Exception as reason:
            text = f"trial {number} of seed {seed}, {what}: {type(reason).__name__}: {reason}"
            seen.wrong.append(text)
            print(text, flush=True)
            logging.getLogger("headrace.outbox").debug(text, exc_info=reason)
        shutil.rmtree(trial)
        if (number - first + 1) % TOLD_TRIALS == 0:
            print(f"{number - first + 1} trials: {len(seen.wrong)} failures, {seen}", flush=True)
    return seen


async def _originals(home: Path, chance: random.Random) -> Ledger:
    """Makes an outbox with blocks, a catalog and marks: `whole`, and `crashed` as a kill leaves it, most in the log."""
    ledger = Ledger()
    outbox = await opened(home / "whole" / "outbox.db")
    await outbox.keep_catalog(7, b"seven" * 2000)
    for at in range(60):
        one = block(outbox, chance.choice([1, 20, 200, 700, 1500]))
        await outbox.append(one, 7, {"press1": b"mark %d" % at})
        ledger.take(one)
        if at == 20:
            await outbox.peek(0, 9, 1 << 20)
            await outbox.confirm(7)
            await outbox.flush()
            ledger.confirmed = 7
    shutil.copytree(home / "whole", home / "crashed")
    await outbox.close()
    return rest(ledger, outbox)


async def _trial(trial: Path, ledger: Ledger, seen: Seen) -> None:
    began = time.monotonic()
    outbox = await opened(trial / "outbox.db")
    try:
        one = block(outbox, 20)
        key = (one.data[7:23], one.sequence)
        assert key not in ledger.stored, f"place {one.sequence} is given out a second time"
        await outbox.append(one, 7)
        now = Ledger({**ledger.stored}, {**ledger.checksums}, ledger.confirmed)
        await judge(outbox, now, gaps=True, strict=False)
        took = time.monotonic() - began
        assert took < SECONDS, f"it collects again after {took:.1f} s"
        await _goes_on(outbox)
        kept = await outbox.peek(0, 1_000_000, 1 << 40)
        assert any(entry.body[-8:] == one.data[-8:] or entry.readings == 20 for entry in kept)
        renewed = any(entry.gap and outbox.streams.begins(entry.sequence) for entry in kept)
        found = {zlib.crc32(entry.body) for entry in kept}
        seen.outcomes["rebuilt" if renewed else "buried" if outbox.facts()["dropped_entries"] else "harmless"] += 1
        seen.blocks += len(ledger.stored)
        seen.lost += len(set(ledger.checksums.values()) - found)
        seen.slowest = max(seen.slowest, took)
    finally:
        await outbox.close()


async def _goes_on(outbox: Outbox) -> None:
    """Everything else that an agent asks of its outbox."""
    async with asyncio.timeout(SECONDS):
        await outbox.marks()
        await outbox.catalog(7)
        await outbox.keep_catalog(8, b"eight")
        assert await outbox.catalog(8) == b"eight"
        await outbox.keep_marks({"press1": b"later"})
        assert (await outbox.marks())["press1"] == b"later"
        before = outbox.last
        await outbox.append(block(outbox, 20), 8)
        assert outbox.last > before


def harm(place: Path, chance: random.Random) -> str:
    """Flips one bit of the files in `place`, or cuts one of them short. Returns what it did."""
    files = [place / f"outbox.db{tail}" for tail in ("", "-wal", ".lock")]
    found = [each for each in files if each.exists() and each.stat().st_size]
    path = chance.choices(found, [max(1, each.stat().st_size) for each in found])[0]
    content = bytearray(path.read_bytes())
    if chance.random() < 0.1:
        at = chance.randrange(len(content))
        del content[at:]
        what = f"{path.name} cut short at {at}"
    else:
        at, bit = chance.randrange(len(content)), chance.randrange(8)
        content[at] ^= 1 << bit
        what = f"bit {bit} of byte {at} of {path.name} turned"
    with path.open("r+b") as file:  # in place: the file keeps its inode number
        file.write(content)
        file.truncate(len(content))
    return f"{place.name}: {what}"
