"""Disks that lose their power while an outbox is written, and disks that are full."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from agent.errors import OutboxFull
from tests.outbox_rig import Ledger, block, judge, opened, rest
from tests.outbox_writer import Writer

SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = (2).to_bytes(4, "little")


class Disk:
    """A file system in a file of its own, whose power can be cut (FS_IOC_SHUTDOWN: what was not synced is gone)."""

    def __init__(self, home: Path, kind: str) -> None:
        self.place = home / kind
        self._image = home / f"{kind}.img"
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate((320 if kind == "xfs" else 48) << 20)
        _run(f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", str(self._image))

    def __enter__(self) -> Disk:
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", self.place], check=False, capture_output=True)

    def cut(self) -> None:
        opened_ = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(opened_, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(opened_)

    def write_back(self) -> None:
        """What the kernel does by itself when pages have been dirty for some seconds."""
        opened_ = os.open(self.place, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(opened_)
        finally:
            os.close(opened_)

    def again(self, options: str = "") -> None:
        """The power is back. Every file must be closed."""
        _run("umount", str(self.place))
        self._mount(options)

    def _mount(self, options: str = "") -> None:
        _run("mount", "-o", f"loop,{options}" if options else "loop", str(self._image), str(self.place))


def _run(*command: str) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    except FileNotFoundError:
        raise AssertionError(f"{command[0]} is not installed: the power cuts need it (make peers)") from None
    assert done.returncode == 0, f"{' '.join(command)} failed (are you root, may this machine mount?): {done.stderr}"


async def power_cuts(home: Path, kind: str, count: int, chance: random.Random) -> Counter[str]:
    """Power cuts while a process appends, or opens; after each the outbox must open with all that was acknowledged.

    Returns how the writers ended. One whose outbox was on that disk may say that it takes no writes, or be killed by
    SIGBUS: its log's index is a file of the disk that SQLite has mapped, and xfs gives back no page that it can't keep.
    """
    ends: Counter[str] = Counter()
    with Disk(home, kind) as place:
        path, ledger = place.place / "outbox.db", Ledger()
        for number in range(1, count + 1):
            writer = Writer(path, chance.randrange(1 << 30), ledger)
            if chance.random() < 0.9:
                await asyncio.to_thread(writer.begun)
            await asyncio.sleep(chance.uniform(0, 0.15))  # random on purpose: the moment is what is tried
            if chance.random() < 0.3:
                await asyncio.to_thread(place.write_back)
            # A sync that is under way when the ioctl comes may still report success: only what was acknowledged before
            # it was promised to anybody.
            writer.heard()
            promised = set(ledger.stored)
            await asyncio.to_thread(place.cut)
            code = await asyncio.to_thread(writer.ended)
            assert code in (0, -signal.SIGBUS), f"the writer ended with {code}"
            ends["SIGBUS" if code else "no more writes"] += 1
            if number % 100 == 0:
                print(f"{number} cuts: {dict(ends)}", flush=True)
            for key in set(ledger.stored) - promised:
                del ledger.stored[key], ledger.checksums[key]
            await asyncio.to_thread(place.again)
            outbox = await opened(path)
            await judge(outbox, ledger)
            assert len({stream for stream, _ in ledger.stored}) <= 1
            await outbox.close()
            ledger = rest(ledger, outbox)
    return ends


async def full_disks(place: Path, count: int, chance: random.Random) -> None:
    """`place` is a small file system: it is filled by others and by the outbox itself, and emptied again."""
    ballast, path = place / "ballast", place / "outbox.db"
    ledger, total, delivered, when_full = Ledger(), 0, 0, "drop_oldest"
    for cycle in range(count):
        when_full = ("drop_oldest", "stop_collecting")[cycle % 2]
        outbox = await opened(path, when_full=when_full)  # type: ignore[arg-type]
        if chance.random() < 0.7:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        refused = 0
        for _ in range(chance.randrange(20, 120)):
            one = block(outbox, chance.choice([20, 200, 1500]))
            try:
                await outbox.append(one, 7)
            except OutboxFull:
                refused += 1
                if refused > 2:
                    break
            else:
                ledger.take(one)
                total += one.readings
            if chance.random() < 0.1:
                await outbox.keep_catalog(7, b"seven")
                through = max(0, outbox.last - chance.randrange(60))
                ledger.confirmed = max(ledger.confirmed, through)
                delivered += await outbox.confirm(through)
                await outbox.flush()  # bookkeeping goes on, however full the disk is
        await judge(outbox, ledger, gaps=True)
        facts = outbox.facts()
        assert total == facts["readings"] + facts["dropped_readings"] + delivered, "drops are not counted exactly"
        ballast.unlink(missing_ok=True)
        if when_full == "stop_collecting":
            ledger.confirmed = outbox.last
            delivered += await outbox.confirm(outbox.last)
        began = time.monotonic()
        one = block(outbox, 200)
        await outbox.append(one, 7)
        assert time.monotonic() - began < 5
        ledger.take(one)
        total += one.readings
        await judge(outbox, ledger, gaps=True)
        await outbox.close()
        ledger = rest(ledger, outbox)
