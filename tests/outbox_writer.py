"""A process that writes an outbox until it is killed or its disk is gone, and says over a pipe what was acknowledged.

It is forked from a server that has imported everything already: a death costs milliseconds, not the start of a Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import random
import sqlite3
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agent.errors import OutboxFull
from agent.outbox import Outbox, OutboxRefused
from tests.outbox_rig import Ledger, block, judge, opened, rest

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])
START_SECONDS = 20.0
END_SECONDS = 20.0


class Writer:
    """One such process. What it says goes into the ledger when it is `heard`."""

    def __init__(self, path: Path, seed: int, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ear, mouth = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_main, args=(path, seed, mouth), daemon=True)
        self._process.start()
        mouth.close()

    def begun(self) -> None:
        """Waits until its outbox is open, or it has ended."""
        assert self._ear.poll(START_SECONDS), "the writer did not open its outbox"

    def heard(self) -> None:
        """Takes note of everything that was said until now."""
        with contextlib.suppress(EOFError):
            while self._ear.poll():
                self._note(self._ear.recv())

    def kill(self) -> None:
        self._process.kill()

    def ended(self) -> int:
        """Waits for its end, and hears its last words. Returns its exit code; a signal's number is negative."""
        with contextlib.suppress(EOFError):
            while self._ear.poll(END_SECONDS):
                self._note(self._ear.recv())
        self._process.join(END_SECONDS)
        code = self._process.exitcode
        assert code is not None, "the writer did not end"
        self._ear.close()
        self._process.close()
        return code

    def _note(self, word: tuple[Any, ...]) -> None:
        match word:
            case ("stored", stream, sequence, readings, checksum):
                key = (stream, sequence)
                assert key not in self._ledger.stored, f"place {sequence} was given out twice"
                self._ledger.stored[key], self._ledger.checksums[key] = readings, checksum
            case ("confirms", through):
                self._ledger.confirmed = max(self._ledger.confirmed, through)


def _main(path: Path, seed: int, mouth: Connection) -> None:
    logging.getLogger("headrace").setLevel(logging.CRITICAL)  # a disk that is gone is not news here
    # Where the disk goes while it is opened, closed or confirmed.
    with contextlib.suppress(OutboxFull, OutboxRefused, OSError, sqlite3.OperationalError):
        asyncio.run(_write(path, random.Random(seed), mouth))


async def _write(path: Path, chance: random.Random, mouth: Connection) -> None:
    """Appends up to four at once, peeks and confirms, until the disk takes no more."""
    outbox = await opened(path)
    try:
        mouth.send(("open",))
        while await _step(outbox, chance, mouth):
            pass
        for after in (0, outbox.last):
            await outbox.peek(after, 5, 1 << 20)  # as an agent does, which goes on sending
    finally:
        await outbox.close()


async def _step(outbox: Outbox, chance: random.Random, mouth: Connection) -> bool:
    blocks = [block(outbox, chance.choice([1, 20, 200, 1500]), ahead) for ahead in range(chance.randrange(1, 5))]
    results = await asyncio.gather(*(outbox.append(each, 7) for each in blocks), return_exceptions=True)
    for one, result in zip(blocks, results, strict=True):
        if result is None:
            mouth.send(("stored", one.data[7:23], one.sequence, one.readings, zlib.crc32(one.data)))
        elif not isinstance(result, OutboxFull):
            raise result
    if any(results):
        return False
    if chance.random() < 0.3:
        await outbox.peek(max(0, outbox.last - 20), 5, 1 << 20)
    if chance.random() < 0.3:
        through = max(0, outbox.last - chance.randrange(30))
        mouth.send(("confirms", through))
        await outbox.confirm(through)
    return True


async def kills(path: Path, count: int, chance: random.Random) -> None:
    """kill -9 of a writer at random moments, its first ones included."""
    ledger = Ledger()
    for _ in range(count):
        writer = Writer(path, chance.randrange(1 << 30), ledger)
        if chance.random() < 0.8:
            await asyncio.to_thread(writer.begun)
        await asyncio.sleep(chance.uniform(0, 0.1))  # random on purpose: the moment is what is tried
        writer.kill()
        await asyncio.to_thread(writer.ended)
        outbox = await opened(path)
        await judge(outbox, ledger)
        assert len({stream for stream, _ in ledger.stored}) <= 1
        await outbox.close()
        ledger = rest(ledger, outbox)
