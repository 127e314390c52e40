"""Rigs that fail the outbox's disk or process, and the oracle that judges what is left. `python -m tests.outbox_rig`
runs them at length: see docs/reliability.md.

The oracle everywhere: what was acknowledged is there, once, in order and byte for byte; places have no holes; or a gap
says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent import _native
from agent.errors import OutboxFull
from agent.model import Tag, ValueType
from agent.outbox import MIN_BYTES, Entry, Outbox, OutboxRefused, WhenFull

TAG = Tag(0, "press1", "temp", "hr:0", ValueType.FLOAT64, "88.118.8/press1.temp")
NOISE = [(0, 1_000_000 + n, random.Random(n).random(), 0) for n in range(4000)]
QUOTA = 8 << 20
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = (2).to_bytes(4, "little")


def block(outbox: Outbox, readings: int, ahead: int = 0) -> _native.Block:
    buffer = _native.Buffer([TAG])
    buffer.push(NOISE[:readings])
    sealed = buffer.seal(stream=outbox.stream.bytes, sequence=outbox.next_sequence + ahead, epoch=7)
    assert sealed is not None
    return sealed


@dataclass
class Ledger:
    """What was acknowledged: (stream, place) -> readings. `confirmed` is the furthest place that was confirmed."""

    stored: dict[tuple[bytes, int], int] = field(default_factory=dict)
    checksums: dict[tuple[bytes, int], int] = field(default_factory=dict)
    confirmed: int = 0

    def take(self, one: _native.Block) -> None:
        key = (one.data[7:23], one.sequence)
        assert key not in self.stored, f"place {one.sequence} was given out twice"
        self.stored[key], self.checksums[key] = one.readings, zlib.crc32(one.data)


async def judge(outbox: Outbox, ledger: Ledger, *, gaps: bool = False, strict: bool = True) -> None:
    """Raises AssertionError where the outbox does not hold what the ledger says. `gaps`: may places be gaps?

    Not `strict`: blocks may be lost as long as the stream that follows begins with a gap that says so.
    """
    found = await outbox.peek(0, 1_000_000, 1 << 40)
    facts = outbox.facts()
    assert facts["confirmed"] <= ledger.confirmed or not strict, (facts, ledger.confirmed)
    place = found[0].sequence - 1 if found else outbox.last
    assert place == facts["confirmed"] or not strict
    held: dict[tuple[bytes, int], Entry] = {}
    claimed: list[Entry] = []
    for entry in found:
        assert entry.sequence == place + 1, f"a hole before {entry.sequence}"
        place = entry.last
        if entry.gap:
            claimed.append(entry)
        else:
            held[entry.body[7:23], entry.sequence] = entry
    assert place == outbox.last
    told = any(outbox.streams.begins(entry.sequence) for entry in claimed if entry.sequence > 1)
    for (stream, sequence), checksum in ledger.checksums.items():
        entry_ = held.get((stream, sequence))
        if entry_ is not None:
            assert zlib.crc32(entry_.body) == checksum, f"other bytes at {sequence}"
        elif sequence > facts["confirmed"] or not strict:
            is_gap = any(gap.sequence <= sequence <= gap.last for gap in claimed)
            gone = sequence <= ledger.confirmed
            assert (gaps and is_gap) or (not strict and (told or gone)), f"block {sequence} is missing"
    assert facts["readings"] == sum(entry.readings for entry in held.values()) or not strict
    assert facts["entries"] == len(found) or not strict


async def write(outbox: Outbox, ledger: Ledger, chance: random.Random, stop: Callable[[], bool]) -> None:
    """Appends up to four at once, peeks and confirms, until told to stop or until the disk fails."""
    while not stop():
        blocks = [block(outbox, chance.choice([1, 20, 200, 1500]), ahead) for ahead in range(chance.randrange(1, 5))]
        results = await asyncio.gather(*(outbox.append(each, 7) for each in blocks), return_exceptions=True)
        for one, result in zip(blocks, results, strict=True):
            if result is None:
                ledger.take(one)
            else:
                assert isinstance(result, OutboxFull), result
        if any(results):
            return
        if chance.random() < 0.3:
            await outbox.peek(max(0, outbox.last - 20), 5, 1 << 20)
        if chance.random() < 0.3:
            through = max(0, outbox.last - chance.randrange(30))
            ledger.confirmed = max(ledger.confirmed, through)
            await outbox.confirm(through)


async def opened(path: Path, *, when_full: WhenFull = "drop_oldest", max_bytes: int = QUOTA) -> Outbox:
    return await Outbox.open(path, max_bytes=max_bytes, when_full=when_full)


async def writer(path: Path, seed: int) -> None:
    """The process that is killed: says each acknowledged block on stdout, and each place before it is confirmed."""
    chance, outbox = random.Random(seed), await opened(path)
    while True:
        blocks = [block(outbox, chance.choice([1, 20, 200, 1500]), ahead) for ahead in range(chance.randrange(1, 5))]
        await asyncio.gather(*(outbox.append(each, 7) for each in blocks))
        for one in blocks:
            os.write(1, f"a {one.sequence} {one.readings} {zlib.crc32(one.data)} {outbox.stream}\n".encode())
        if chance.random() < 0.3:
            through = max(0, outbox.last - chance.randrange(30))
            os.write(1, f"c {through}\n".encode())
            await outbox.confirm(through)


async def kills(path: Path, count: int, chance: random.Random) -> None:
    """kill -9 of a writer at random moments, its first ones included."""
    ledger = Ledger()
    for _ in range(count):
        code = f"import asyncio; from pathlib import Path; from tests import outbox_rig as r; asyncio.run(r.writer(Path({str(path)!r}), {chance.randrange(1 << 30)}))"  # noqa: E501
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)  # noqa: ASYNC220
        assert process.stdout is not None
        first = await asyncio.to_thread(process.stdout.readline)
        await asyncio.sleep(chance.uniform(0, 0.15))  # random on purpose: the moment is what is tried
        process.send_signal(signal.SIGKILL)
        for line in (first + process.stdout.read()).splitlines():
            word, *numbers = line.decode().split()
            if word == "c":
                ledger.confirmed = max(ledger.confirmed, int(numbers[0]))
            else:
                key = (bytes.fromhex(numbers[3].replace("-", "")), int(numbers[0]))
                assert key not in ledger.stored
                ledger.stored[key], ledger.checksums[key] = int(numbers[1]), int(numbers[2])
        process.wait()
        process.stdout.close()
        outbox = await opened(path)
        await judge(outbox, ledger)
        assert len({stream for stream, _ in ledger.stored}) == 1
        await outbox.close()
        ledger = _rest(ledger, outbox)


def _rest(ledger: Ledger, outbox: Outbox) -> Ledger:
    """What can still be asked for: the rest is confirmed and gone."""
    after = outbox.facts()["confirmed"]
    kept = {key for key in ledger.stored if key[1] > after}
    return Ledger(
        {key: ledger.stored[key] for key in kept}, {key: ledger.checksums[key] for key in kept}, ledger.confirmed
    )


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
        _run("mount", "-o", "loop", str(self._image), str(self.place))
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", self.place], check=False, capture_output=True)

    def cut(self) -> None:
        opened_ = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(opened_, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(opened_)

    def again(self) -> None:
        """The power is back. Every file must be closed."""
        _run("umount", str(self.place))
        _run("mount", "-o", "loop", str(self._image), str(self.place))


def _run(*command: str) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    except FileNotFoundError:
        raise AssertionError(f"{command[0]} is not installed: the power cuts need it (make peers)") from None
    assert done.returncode == 0, f"{' '.join(command)} failed (are you root, may this machine mount?): {done.stderr}"


async def power_cuts(home: Path, kind: str, count: int, chance: random.Random) -> None:
    """Power cuts while blocks are appended; after each the outbox must open with all that was acknowledged."""
    logging.getLogger("headrace.outbox").setLevel(logging.CRITICAL)  # a disk that is gone is not news here
    with Disk(home, kind) as place:
        path, ledger = place.place / "outbox.db", Ledger()
        for _ in range(count):
            outbox = await opened(path)
            await judge(outbox, ledger)
            ledger = _rest(ledger, outbox)
            off = asyncio.Event()
            writing = asyncio.create_task(write(outbox, ledger, chance, off.is_set))
            await asyncio.sleep(chance.uniform(0, 0.2))  # random on purpose: the moment is what is tried
            # A sync that is under way when the ioctl comes may still report success: only what was acknowledged before
            # it was promised to anybody.
            promised = set(ledger.stored)
            off.set()
            await asyncio.to_thread(place.cut)
            await writing
            for key in set(ledger.stored) - promised:
                del ledger.stored[key], ledger.checksums[key]
            await outbox.close()
            await asyncio.to_thread(place.again)
        outbox = await opened(path)
        await judge(outbox, ledger)
        assert len({stream for stream, _ in ledger.stored}) <= 1
        await outbox.close()


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
        ledger = _rest(ledger, outbox)


async def harms(home: Path, count: int, chance: random.Random) -> dict[str, int]:
    """Single bits that flip, and files cut short: noticed or harmless, and collecting again within 5 s."""
    logging.getLogger("headrace.outbox").setLevel(logging.CRITICAL)
    whole, crashed = home / "whole", home / "crashed"
    ledger = Ledger()
    path = whole / "outbox.db"
    outbox = await opened(path)
    await outbox.keep_catalog(7, b"seven" * 2000)
    for at in range(60):
        one = block(outbox, chance.choice([1, 20, 200, 700, 1500]))
        await outbox.append(one, 7)
        ledger.take(one)
        if at == 20:
            await outbox.peek(0, 9, 1 << 20)
            await outbox.confirm(7)
            await outbox.flush()
            ledger.confirmed = 7
    shutil.copytree(whole, crashed)  # as a kill leaves it: most of it in the log
    await outbox.close()
    ledger = _rest(ledger, outbox)
    seen = {"harmless": 0, "buried": 0, "rebuilt": 0, "blocks": 0, "lost": 0}
    for number in range(count):
        trial = home / "trial"
        shutil.copytree(chance.choice([whole, crashed]), trial)
        _harm(trial, chance)
        began = time.monotonic()
        outbox = await opened(trial / "outbox.db")
        one = block(outbox, 20)
        if (one.data[7:23], one.sequence) in ledger.stored:
            raise AssertionError(f"trial {number}: place {one.sequence} is given out a second time")
        await outbox.append(one, 7)
        await judge(outbox, ledger, gaps=True, strict=False)
        assert time.monotonic() - began < 5
        kept = await outbox.peek(0, 1_000_000, 1 << 40)
        assert any(entry.body[-8:] == one.data[-8:] or entry.readings == 20 for entry in kept)
        renewed = any(entry.gap and outbox.streams.begins(entry.sequence) for entry in kept)
        bodies = {entry.body for entry in kept}
        seen["blocks"] += len(ledger.stored)
        seen["lost"] += len(set(ledger.checksums.values()) - {zlib.crc32(body) for body in bodies})
        seen["rebuilt" if renewed else "buried" if outbox.facts()["dropped_entries"] else "harmless"] += 1
        await outbox.close()
        shutil.rmtree(trial)
    return seen


def _harm(place: Path, chance: random.Random) -> None:
    files = [place / f"outbox.db{tail}" for tail in ("", "-wal", ".lock")]
    found = [each for each in files if each.exists() and each.stat().st_size]
    path = chance.choices(found, [max(1, each.stat().st_size) for each in found])[0]
    content = bytearray(path.read_bytes())
    if chance.random() < 0.1:
        del content[chance.randrange(len(content)) :]
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    inode = path.stat().st_ino
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))
    assert path.stat().st_ino == inode


def shim(home: Path) -> Path:
    """Builds the library that makes a write fail."""
    made = home / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", made, source, "-ldl"], check=True)
    return made


async def session(path: Path, acknowledged: Path, appends: int) -> None:
    """Everything that an outbox does, with a caller that tries again as the agent does."""
    for _ in range(3):
        with contextlib.suppress(OutboxRefused, OSError):
            outbox = await opened(path, max_bytes=MIN_BYTES)
            break
    with acknowledged.open("a") as told:
        for at in range(appends):
            with contextlib.suppress(OutboxFull):
                await outbox.keep_catalog(at // 10, b"catalog %d" % at)
            for _ in range(4):
                one = block(outbox, 900)
                try:
                    await outbox.append(one, 7)
                except OutboxFull:
                    continue
                key = (outbox.stream, outbox.last)
                [kept] = await outbox.peek(outbox.last - 1, 1, 1 << 30)
                print("a", key[1], one.readings, zlib.crc32(kept.body), key[0], file=told, flush=True)
                break
            else:
                raise AssertionError(f"append {at} failed four times")
            if at in (3, 9):
                print("c", at - 2, file=told, flush=True)
                await outbox.confirm(at - 2)
                with contextlib.suppress(OutboxFull):
                    await outbox.flush()
        await outbox.close()


def fail_each_apart(home: Path, appends: int) -> str:
    """Runs `fail_each` in a process whose writes can be made to fail; returns what it said."""
    code = (
        f"from pathlib import Path; from tests.outbox_rig import fail_each; fail_each(Path({str(home)!r}), {appends})"
    )
    environment = {**os.environ, "LD_PRELOAD": str(shim(home))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail_each(home: Path, appends: int) -> None:
    """To be run under the shim: the n-th call fails, for every n, until a session passes without a fault."""
    disk = ctypes.CDLL(None)
    disk.failing_disk_calls.restype = ctypes.c_long
    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    for number in (errno.EIO, errno.ENOSPC):
        for at in range(1, 100_000):
            place = Path(tempfile.mkdtemp(dir=home))
            child = os.fork()
            if not child:
                try:
                    disk.failing_disk_arm(ctypes.c_long(at), number)
                    asyncio.run(session(place / "outbox.db", place / "acknowledged", appends))
                    os._exit(0 if disk.failing_disk_calls() >= at else 9)
                except BaseException as reason:
                    print(f"call {at}, {errno.errorcode[number]}: {reason!r}", file=sys.stderr, flush=True)
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, 9), f"call {at} failing with {errno.errorcode[number]} ended the session"
            asyncio.run(_after(place))
            shutil.rmtree(place)
            if code == 9:
                print(f"{errno.errorcode[number]}: {at - 1} calls, each failed once", flush=True)
                break


async def _after(place: Path) -> None:
    ledger = Ledger()
    for line in (place / "acknowledged").read_text().splitlines():
        word, *numbers = line.split()
        if word == "c":
            ledger.confirmed = int(numbers[0])
        else:
            key = (bytes.fromhex(numbers[3].replace("-", "")), int(numbers[0]))
            assert key not in ledger.stored, f"place {key[1]} was given out twice"
            ledger.stored[key], ledger.checksums[key] = int(numbers[1]), int(numbers[2])
    outbox = await opened(place / "outbox.db", max_bytes=MIN_BYTES)
    await judge(outbox, ledger, gaps=True)
    await outbox.close()


def main() -> None:
    """The long runs: one line each with what was done, how often, and from which seed."""
    asked = argparse.ArgumentParser(description=main.__doc__)
    asked.add_argument("what", choices=["kills", "ext4", "xfs", "full", "harms", "each"])
    asked.add_argument("count", type=int)
    asked.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = asked.parse_args()
    print(f"{options.what}: seed {options.seed}", file=sys.stderr, flush=True)
    chance, began = random.Random(options.seed), time.monotonic()
    extra: object = ""
    # Where inode numbers do not last, so that a copy is not taken for one that was put back.
    folder = "/dev/shm" if options.what in ("harms", "each") else None
    with tempfile.TemporaryDirectory(prefix="headrace-soak-", dir=folder) as name:
        home = Path(name)
        match options.what:
            case "kills":
                asyncio.run(kills(home / "outbox.db", options.count, chance))
            case "full":
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", home], check=True)
                try:
                    asyncio.run(full_disks(home, options.count, chance))
                finally:
                    subprocess.run(["umount", "-l", home], check=True)
            case "harms":
                extra = asyncio.run(harms(home, options.count, chance))
            case "each":
                print(fail_each_apart(home, options.count), end="")
                return
            case kind:
                asyncio.run(power_cuts(home, kind, options.count, chance))
    bound = 300 / options.count
    print(f"{options.what}: {options.count} times, seed {options.seed}, 0 failures (95 % bound {bound:.2g} %), "
          f"{time.monotonic() - began:.0f} s {extra}")  # fmt: skip


if __name__ == "__main__":
    main()
