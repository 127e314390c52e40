from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from agent import _native, disk, outbox_file, quota
from agent.entry import Totals
from agent.errors import OutboxFull
from agent.model import Tag, ValueType
from agent.outbox import MIN_BYTES, Entry, Outbox, OutboxRefused, WhenFull

MEBIBYTE = 1 << 20
TAG = Tag(0, "press1", "temp", "hr:0", ValueType.FLOAT64, "88.118.8/press1.temp")


NOISE = [(0, 1_000_000 + n, random.Random(n).random(), 0) for n in range(20_000)]


def block(outbox: Outbox, readings: int = 10, *, sequence: int | None = None, epoch: int = 7) -> _native.Block:
    """A block of `readings` float64 that don't compress, about 8 bytes each, that fits next."""
    buffer = _native.Buffer([TAG])
    buffer.push(NOISE[:readings])
    sealed = buffer.seal(stream=outbox.stream.bytes, sequence=sequence or outbox.next_sequence, epoch=epoch)
    assert sealed is not None
    return sealed


@asynccontextmanager
async def opened(
    path: Path, *, max_bytes: int = 64 * MEBIBYTE, when_full: WhenFull = "drop_oldest"
) -> AsyncIterator[Outbox]:
    outbox = await Outbox.open(path, max_bytes=max_bytes, when_full=when_full)
    try:
        yield outbox
    finally:
        await outbox.close()


async def everything(outbox: Outbox, after: int = 0) -> list[Entry]:
    return await outbox.peek(after, 1_000_000, 1 << 40)


async def fill(outbox: Outbox) -> None:
    while True:
        await outbox.append(block(outbox, 1000), 1)


def files(directory: Path) -> list[tuple[str, os.stat_result]]:
    return [(file.name, file.stat()) for file in directory.iterdir()]


def on_disk(directory: Path) -> int:
    return sum(found.st_size for _, found in files(directory))


def rows(path: Path) -> list[tuple[int, int, int, int, bytes]]:
    """What is in the file, without peeking (which marks entries as sent)."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute("SELECT sequence, last, gap, readings, body FROM entry ORDER BY sequence").fetchall()


async def until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        await asyncio.sleep(0.02)


async def test_gives_back_what_was_appended_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db") as outbox:
        sent = [block(outbox)]
        await outbox.append(sent[0], 7)
        for _ in range(9):
            sent.append(block(outbox))
            await outbox.append(sent[-1], 2**64 - 1)
        found = await everything(outbox)
        assert [entry.sequence for entry in found] == list(range(1, 11))
        assert [entry.body for entry in found] == [one.data for one in sent]
        assert [entry.epoch for entry in found] == [7] + 9 * [2**64 - 1]
        assert {(entry.last - entry.sequence, entry.readings, entry.gap) for entry in found} == {(0, 10, False)}
        assert (found[0].first_ns, found[0].last_ns) == (sent[0].first_ns, sent[0].last_ns)
        assert [entry.sequence for entry in await outbox.peek(4, 3, MEBIBYTE)] == [5, 6, 7]
        two = 2 * len(sent[0].data) + 5
        assert [entry.sequence for entry in await outbox.peek(0, 9, two)] == [1, 2]
        assert [entry.sequence for entry in await outbox.peek(0, 9, 1)] == [1]  # one, however large
        assert await outbox.peek(10, 9, MEBIBYTE) == []


async def test_sequence_and_stream_outlive_reopening(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        stream = outbox.stream
        assert outbox.next_sequence == 1
        for _ in range(5):
            await outbox.append(block(outbox), 1)
        assert await outbox.confirm(5) == 50
    async with opened(path) as outbox:
        assert (outbox.stream, outbox.next_sequence) == (stream, 6)
        assert await everything(outbox) == []
        assert rows(path) == []
        with pytest.raises(ValueError, match="next is 6"):
            await outbox.append(block(outbox, sequence=5), 1)
        await outbox.append(block(outbox), 1)
        assert [entry.sequence for entry in await everything(outbox)] == [6]


async def test_confirmed_entries_are_gone_at_once_and_deleted_later(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        for _ in range(4):
            await outbox.append(block(outbox), 1)
        assert await outbox.confirm(3) == 30
        assert len(rows(path)) == 4  # before anything else has its turn
        assert await outbox.confirm(3) == 0
        assert await outbox.confirm(1) == 0
        assert [entry.sequence for entry in await everything(outbox)] == [4]
        facts = outbox.facts()
        assert (facts["entries"], facts["readings"], facts["confirmed"]) == (1, 10, 3)
        await until(lambda: len(rows(path)) == 1)
        await outbox.confirm(4)
        await outbox.append(block(outbox), 1)
        assert [row[0] for row in rows(path)] == [5]
        with pytest.raises(ValueError, match="can't be confirmed"):
            await outbox.confirm(6)


async def test_drops_the_oldest_into_one_gap_and_stays_within_its_quota(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox" / "outbox.db"
    most = 0
    async with opened(path, max_bytes=MEBIBYTE) as outbox:
        for size in [*range(1, 2000, 20), 20_000]:
            await outbox.append(block(outbox, size), 1)
            most = max(most, on_disk(path.parent))
        total = sum(range(1, 2000, 20)) + 20_000
        gap, *kept = await everything(outbox)
        facts = outbox.facts()
    assert most <= MEBIBYTE
    assert gap.gap
    assert (gap.sequence, gap.last) == (1, kept[0].sequence - 1)
    assert [entry.sequence for entry in kept] == list(range(gap.last + 1, 102))
    assert gap.readings + sum(entry.readings for entry in kept) == total
    assert facts["dropped_readings"] == gap.readings
    assert facts["dropped_entries"] == gap.last
    assert facts["readings"] == sum(entry.readings for entry in kept)
    header = _native.header(gap.body)
    assert (header.kind, header.sequence, header.last_sequence) == ("gap", 1, gap.last)
    assert (header.readings, header.stream) == (gap.readings, outbox.stream.bytes)
    assert (header.first_ns, header.last_ns) == (gap.first_ns, gap.last_ns) == (1_000_000, gap.last_ns)
    losses = [record for record in caplog.records if record.__dict__.get("event") == "readings_lost"]
    assert sum(record.__dict__["lost"] for record in losses) == gap.readings
    assert {record.levelno for record in losses} == {logging.ERROR}
    assert len(losses) <= 2  # not one for every block


async def test_what_may_have_been_sent_keeps_its_range(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path, max_bytes=MIN_BYTES) as outbox:
        for _ in range(3):
            await outbox.append(block(outbox, 1000), 1)
        assert len(await everything(outbox)) == 3
        for _ in range(40):
            await outbox.append(block(outbox, 1000), 1)
        first = [(row[0], row[1], row[2]) for row in rows(path)[:5]]
        assert first[:3] == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]
        assert first[3][2] == 1
        assert first[3][1] + 1 == first[4][0]
        gaps = await everything(outbox)
        assert await outbox.confirm(gaps[3].last) == 0  # readings of a gap are not delivered ones
        assert (await everything(outbox))[0] == gaps[4]


async def test_stop_collecting_stores_nothing_more_until_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path, max_bytes=MIN_BYTES, when_full="stop_collecting") as outbox:
        with pytest.raises(OutboxFull, match="max_bytes"):
            await fill(outbox)
        count = outbox.next_sequence - 1
        assert count > 5
        with pytest.raises(OutboxFull):
            await outbox.append(block(outbox, 1000), 1)
        assert len(await everything(outbox)) == outbox.facts()["entries"] == count
        assert outbox.facts()["dropped_readings"] == 0
        await outbox.confirm(2)
        await outbox.append(block(outbox, 1000), 1)
        assert [entry.sequence for entry in await everything(outbox)] == list(range(3, count + 2))


@pytest.mark.parametrize("when_full", ["drop_oldest", "stop_collecting"])
async def test_block_larger_than_the_quota_drops_nothing(tmp_path: Path, when_full: WhenFull) -> None:
    async with opened(tmp_path / "outbox.db", max_bytes=MIN_BYTES, when_full=when_full) as outbox:
        await outbox.append(block(outbox), 1)
        await outbox.keep_catalog(7, bytes(50_000))
        for size in (15_000, 20_000):  # one that could fit without the catalog, and one that never could
            with pytest.raises(OutboxFull):
                await outbox.append(block(outbox, size), 1)
        assert [(entry.sequence, entry.gap) for entry in await everything(outbox)] == [(1, False)]
        assert outbox.next_sequence == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; mounting it takes root."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    assert done.returncode == 0, f"can't mount a small file system to fill (are you root?): {done.stderr}"
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("filled_by", ["itself", "others"])
async def test_full_disk_loses_nothing_that_was_stored(small_disk: Path, filled_by: str) -> None:
    path = small_disk / "outbox.db"
    ballast = small_disk / "ballast"
    async with opened(path, when_full="stop_collecting") as outbox:
        await outbox.append(block(outbox, 1000), 1)
        if filled_by == "others":
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        with pytest.raises(OutboxFull, match="disk"):
            await fill(outbox)
        count = outbox.next_sequence - 1
        assert [entry.sequence for entry in await everything(outbox)] == list(range(1, count + 1))
        if filled_by == "others":
            ballast.unlink()
        else:
            await outbox.confirm(count)
        await outbox.append(block(outbox, 1000), 1)
    async with opened(path) as outbox:
        assert outbox.next_sequence == count + 2
        assert (await everything(outbox))[-1].sequence == count + 1


async def test_disk_that_fills_up_within_a_transaction(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own "disk is full", where the look at the free space before came too early."""
    monkeypatch.setattr("agent.disk.free", lambda path: 1 << 40)
    path = small_disk / "outbox.db"
    async with opened(path, when_full="stop_collecting") as outbox:
        with pytest.raises(OutboxFull, match="disk"):
            await fill(outbox)
        count = outbox.next_sequence - 1
        assert outbox.facts()["entries"] == count > 0
        assert len(await everything(outbox)) == count
    async with opened(path) as outbox:
        assert len(await everything(outbox)) == count


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.test_outbox import block
from agent.outbox import Outbox

async def main():
    outbox = await Outbox.open(Path(sys.argv[1]), max_bytes=1 << 26, when_full="drop_oldest")
    while True:
        sequence = outbox.next_sequence
        await outbox.append(block(outbox, 200), 1)
        print(sequence, flush=True)
        if sequence % 10 == 0:
            await outbox.confirm(sequence - 20 if sequence > 20 else 0)

asyncio.run(main())
"""


def write_and_kill(path: Path, appends: int) -> int:
    """The last sequence whose append a writer had acknowledged when it was killed."""
    acknowledged = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(appends):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            acknowledged = int(line) if line.endswith("\n") else acknowledged
    return acknowledged


async def test_every_acknowledged_append_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(4):
        acknowledged = await asyncio.to_thread(write_and_kill, path, chance.randrange(1, 60))
        async with opened(path) as outbox:
            found = [entry.sequence for entry in await everything(outbox)]
            assert found == list(range(outbox.facts()["confirmed"] + 1, outbox.next_sequence))
            assert outbox.next_sequence - 1 in (acknowledged, acknowledged + 1)
            assert outbox.facts()["confirmed"] <= max(0, acknowledged - 20)
            for entry in await everything(outbox):
                assert _native.header(entry.body).sequence == entry.sequence


async def test_second_opener_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    script = (
        "import asyncio, sys; from pathlib import Path; from agent.outbox import Outbox\n"
        "asyncio.run(Outbox.open(Path(sys.argv[1]), max_bytes=1 << 20, when_full='drop_oldest'))"
    )
    async with opened(path) as outbox:
        with pytest.raises(OutboxRefused, match="in use by process"):
            await Outbox.open(path, max_bytes=MEBIBYTE, when_full="drop_oldest")
        done = await asyncio.to_thread(
            lambda: subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
        )
        assert "in use by process" in done.stderr
        await outbox.append(block(outbox), 1)
    async with opened(path) as outbox:
        assert outbox.next_sequence == 2


@pytest.mark.parametrize("harm", ["not a database", "torn page", "cut short", "other schema", "empty meta"])
async def test_damaged_file_is_set_aside(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        stream = outbox.stream
        for _ in range(20):
            await outbox.append(block(outbox, 500), 1)
    content = bytearray(path.read_bytes())
    if harm == "not a database":
        content[:16] = b"something else.."
    elif harm == "torn page":
        content[len(content) // 2 // 4096 * 4096 - 8192 :][:4096] = b"\xff" * 4096
        for page in range(4, len(content) // 4096):
            content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    elif harm == "cut short":
        del content[len(content) // 2 :]
    path.write_bytes(content)
    if harm in ("other schema", "empty meta"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript("PRAGMA user_version = 0" if harm == "other schema" else "DELETE FROM meta")
    caplog.clear()
    async with opened(path) as outbox:
        assert outbox.stream != stream
        assert outbox.next_sequence == 22  # the damaged stream's places, and the gap that says so
        await outbox.append(block(outbox), 1)
        found = await everything(outbox)
        assert [entry.sequence for entry in found] == sorted({entry.sequence for entry in found})
        saved = sum(entry.readings for entry in found[:-1] if not entry.gap)
        assert saved % 500 == 0
    [record] = [record for record in caplog.records if record.__dict__.get("event") == "outbox_damaged"]
    assert record.levelno == logging.ERROR
    assert record.__dict__["saved"] == saved
    assert record.__dict__["lost"] in (-1, 10_000 - saved)
    assert saved >= {"not a database": 9_500, "torn page": 0, "cut short": 3_000}.get(harm, 10_000)
    aside = Path(record.__dict__["set_aside"])
    assert str(aside) in record.getMessage()
    if harm in ("not a database", "torn page", "cut short"):
        assert await asyncio.to_thread(aside.read_bytes) == content


async def test_later_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    with pytest.raises(OutboxRefused, match="later version"):
        await Outbox.open(path, max_bytes=MEBIBYTE, when_full="drop_oldest")
    assert path.read_bytes() == before
    assert {name for name, _ in files(tmp_path)} == {"outbox.db", "outbox.db.lock", "outbox.db.reserve"}


def tiny_gap(stream: UUID, at: int) -> bytes:
    found = _native.gap(
        stream=stream.bytes, first=at, last=at, epoch=1, from_ns=5, to_ns=5, readings=0, reason="", sealed_ns=5
    )
    return found.data


def bytes_read() -> int:
    """What this process has read from files so far, cached or not."""
    [found] = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar")]
    return int(found.split()[1])


@pytest.mark.parametrize("count", [400_000, 1_000_000])
async def test_opening_takes_no_longer_and_reads_no_more_the_more_waits(tmp_path: Path, count: int) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        stream = outbox.stream
    with contextlib.closing(sqlite3.connect(path)) as db:
        numbers = range(1, count + 1)
        db.executemany(
            "INSERT INTO entry VALUES (?, ?, 1, 0, 5, 5, 1, ?)",
            ((at, at, tiny_gap(stream, at)) for at in numbers),
        )
        outbox_file.save(db, stream, Totals(next_sequence=count + 1, entries=count, readings=10 * count))
        db.commit()
    before, start = bytes_read(), time.process_time()
    async with opened(path, max_bytes=1 << 30) as outbox:
        await outbox.append(block(outbox), 1)
        assert [entry.sequence for entry in await outbox.peek(0, 2, MEBIBYTE)] == [1, 2]
        assert outbox.facts()["readings"] == 10 * count + 10
        assert outbox.stream == stream
    assert time.process_time() - start < 1.0
    assert bytes_read() - before < MEBIBYTE


async def test_catalogs_are_kept_while_they_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        assert outbox.newest_epoch is None
        for epoch in range(2**64 - 12, 2**64):
            await outbox.keep_catalog(epoch, b"catalog %d" % epoch)
            await outbox.append(block(outbox), epoch)
        assert await outbox.catalog(2**64 - 12) == b"catalog %d" % (2**64 - 12)
        assert await outbox.catalog(5) is None
        await outbox.confirm(2)
        await outbox.keep_catalog(5, b"five")
        assert await outbox.catalog(2**64 - 11) is None  # all its blocks are delivered, and it is an old one
        assert await outbox.catalog(2**64 - 10) is not None
        await outbox.keep_catalog(2**64 - 1, b"catalog %d" % (2**64 - 1))
    async with opened(path) as outbox:
        assert outbox.newest_epoch == 2**64 - 1
        assert await outbox.catalog(5) == b"five"


async def test_file_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        await outbox.append(block(outbox), 1)
        assert {stat.S_IMODE(found.st_mode) for _, found in files(tmp_path)} == {0o600}
        assert await outbox._contents.rows("PRAGMA synchronous") == [(2,)]
        assert await outbox._contents.rows("PRAGMA journal_mode") == [("wal",)]
        assert await outbox._contents.rows("PRAGMA secure_delete") == [(0,)]
        assert await outbox._contents.rows("PRAGMA page_size") == [(4096,)]


async def test_cancelled_append_leaves_no_half_transaction(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db") as outbox:
        for delay in range(20):
            task = asyncio.create_task(outbox.append(block(outbox), 1))
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await outbox.flush()
            await outbox.peek(0, 1, 1)  # its turn comes after the append's
        assert [entry.sequence for entry in await everything(outbox)] == list(range(1, outbox.next_sequence))
        await outbox.append(block(outbox), 1)


async def test_a_disk_that_is_nearly_full_does_not_take_the_outbox_past_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reserve still lies beside the file then: it counts until the disk wants it given up.
    async with opened(tmp_path / "outbox.db", max_bytes=MIN_BYTES, when_full="stop_collecting") as outbox:
        monkeypatch.setattr(disk, "free", lambda path: 100_000)
        with pytest.raises(OutboxFull):
            await fill(outbox)
        assert outbox.facts()["entries"] > 10
        assert on_disk(tmp_path) <= MIN_BYTES


FREE = disk.free


class SteppedClock:
    """The clocks, with the wall clock so many seconds ahead."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def time_ns(self) -> int:
        return time.time_ns() + self.seconds * 10**9


class OutboxMachine(RuleBasedStateMachine):
    """The outbox against a list of everything that was ever appended, through crashes, full disks and clock steps.

    It lies where inode numbers do not last, so that what a crash leaves is not taken for an old copy put back.
    """

    places: Bundle[object] = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.appended: list[tuple[int, bytes]] = []
        self.confirmed = self.delivered = 0
        self.ranges: dict[int, int] = {}
        self.full = False

    @initialize(target=places, when_full=st.sampled_from(["drop_oldest", "stop_collecting"]))
    def begin(self, when_full: WhenFull) -> int:
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.path = Path(self.directory.name) / "0" / "outbox.db"
        self.when_full = when_full
        self.outbox = self.runner.run(Outbox.open(self.path, max_bytes=MIN_BYTES, when_full=when_full))
        return 0

    @rule(target=places, readings=st.sampled_from([1, 5, 300, 1500, 3000]), count=st.integers(1, 6))
    def append(self, readings: int, count: int) -> MultipleResults[object]:
        given: list[object] = []
        for _ in range(count):
            one = block(self.outbox, readings)
            try:
                self.runner.run(self.outbox.append(one, 7))
            except OutboxFull:
                assert self.when_full == "stop_collecting" or self.full
            else:
                self.appended.append((readings, one.data))
                given.append(one.sequence)
        return multiple(*given)

    @rule(after=places, limit=st.integers(1, 10), max_bytes=st.sampled_from([1, 10_000, MEBIBYTE]))
    def peek(self, after: int, limit: int, max_bytes: int) -> None:
        found = self.runner.run(self.outbox.peek(after, limit, max_bytes))
        wanted = [row for row in self.waiting() if row[0] > after][:limit]
        assert [(entry.sequence, entry.body) for entry in found] == [(row[0], row[4]) for row in wanted[: len(found)]]
        assert len(found) == len(wanted) or sum(len(row[4]) for row in wanted[: len(found) + 1]) > max_bytes
        assert bool(found) == bool(wanted)
        for entry in found:
            assert self.ranges.setdefault(entry.sequence, entry.last) == entry.last

    @rule(through=places)
    def confirm(self, through: int) -> None:
        gone = [row for row in self.waiting() if row[1] <= through]
        assert self.runner.run(self.outbox.confirm(through)) == sum(row[3] for row in gone if not row[2])
        self.delivered += sum(row[3] for row in gone if not row[2])
        if gone:
            self.confirmed = gone[-1][1]

    @rule()
    def crash(self) -> None:
        """What is on the disk now is all that is left; what was confirmed since the last commit is asked for again."""
        left = self.path.parent.with_name(str(int(self.path.parent.name) + 1))
        shutil.copytree(self.path.parent, left)
        self.runner.run(self.outbox.close())
        self.path = left / "outbox.db"
        self.outbox = self.runner.run(Outbox.open(self.path, max_bytes=MIN_BYTES, when_full=self.when_full))
        before, self.confirmed = self.confirmed, self.outbox.facts()["confirmed"]
        assert self.confirmed <= before
        self.delivered -= sum(row[3] for row in self.waiting() if row[1] <= before and not row[2])

    @rule(full=st.booleans())
    def disk_fills_up(self, full: bool) -> None:
        disk.free = (lambda path: 0) if full else FREE
        self.full = full

    @rule(seconds=st.sampled_from([-(10**9), -3600, 0, 3600, 10**8]))
    def clock_steps(self, seconds: int) -> None:
        vars(quota)["time"] = SteppedClock(seconds)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.outbox.close())
        self.outbox = self.runner.run(Outbox.open(self.path, max_bytes=MIN_BYTES, when_full=self.when_full))

    @invariant()
    def nothing_is_missing(self) -> None:
        if not hasattr(self, "outbox"):
            return
        place = self.confirmed
        held = lost = 0
        for sequence, last, gap, readings, body in self.waiting():
            assert sequence == place + 1
            if gap:
                assert readings == sum(count for count, _ in self.appended[sequence - 1 : last])
                assert _native.header(body).readings == readings
                lost += readings
            else:
                assert (readings, body) == self.appended[sequence - 1]
                assert last == sequence
                held += readings
            assert self.ranges.get(sequence, last) == last
            place = last
        facts = self.outbox.facts()
        assert place + 1 == facts["next_sequence"] == len(self.appended) + 1
        assert facts["readings"] == held
        assert facts["entries"] == len(self.waiting())
        assert facts["bytes"] == sum(len(row[4]) for row in self.waiting())
        assert sum(count for count, _ in self.appended) == held + self.delivered + facts["dropped_readings"]
        assert facts["dropped_readings"] >= lost
        assert on_disk(self.path.parent) <= MIN_BYTES

    def waiting(self) -> list[tuple[int, int, int, int, bytes]]:
        return [row for row in rows(self.path) if row[0] > self.confirmed]

    def teardown(self) -> None:
        disk.free = FREE
        vars(quota)["time"] = time
        if hasattr(self, "outbox"):
            self.runner.run(self.outbox.close())
            self.directory.cleanup()
        self.runner.close()


OutboxMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("HEADRACE_SEEDS", "15")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TestOutboxMachine = OutboxMachine.TestCase
