"""What the disk and the machine do to an outbox. The same rigs run at length with `make soak`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import OutboxFull
from agent.outbox import Outbox
from agent.outbox_file import connect, load, save
from tests import outbox_rig
from tests.outbox_disks import Disk, full_disks, power_cuts
from tests.outbox_failing import fail_each_apart
from tests.outbox_harms import harms
from tests.outbox_writer import kills
from tests.test_outbox import block, everything, opened

pytestmark = pytest.mark.timeout(180)  # on a busy machine, or where a sync takes long


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _loud() -> Iterator[None]:
    """The rigs keep quiet about a disk that they took away themselves."""
    yield
    logging.getLogger("headrace.outbox").setLevel(logging.NOTSET)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, f"can't mount a small file system to fill (are you root?): {done.stderr}"
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: inode numbers do not last there, so that a copy may stand for its original."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


async def test_kill_at_any_moment(tmp_path: Path, chance: random.Random) -> None:
    await kills(tmp_path / "outbox.db", 30, chance)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
async def test_power_cut_at_any_moment(tmp_path: Path, chance: random.Random, kind: str) -> None:
    await power_cuts(tmp_path, kind, 30, chance)


async def test_full_disk_again_and_again(small: Path, chance: random.Random) -> None:
    await full_disks(small, 30, chance)


async def test_flipped_bits_and_cut_files(memory: Path, chance: random.Random) -> None:
    seen = await harms(memory, chance.randrange(1 << 32), 200)
    assert not seen.wrong
    assert min(seen.outcomes[each] for each in ("harmless", "buried", "rebuilt")) > 0
    assert seen.lost < 0.25 * seen.blocks, "too little was saved"


def test_each_write_and_sync_fails_once(memory: Path) -> None:
    said = fail_each_apart(memory, 5)
    counts = {line.split(":")[0]: int(line.split()[1]) for line in said.splitlines()}
    assert set(counts) == {"EIO", "ENOSPC"}
    assert min(counts.values()) > 50


async def test_a_copy_that_is_put_back_begins_a_new_stream(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        for _ in range(3):
            await outbox.append(block(outbox), 1)
        stream = outbox.stream
    old = path.read_bytes()
    async with opened(path) as outbox:
        assert outbox.stream == stream
        await outbox.append(block(outbox), 1)
    path.unlink()
    path.write_bytes(old)
    async with opened(path) as outbox:
        assert outbox.stream != stream
        found = await everything(outbox)
        assert [entry.body[7:23] for entry in found[:3]] == [stream.bytes] * 3
        assert [entry.gap for entry in found] == [False] * 3 + [True] * (len(found) - 3)
        assert outbox.next_sequence == 6  # place 4 was given out before, and 5 says that a new stream begins
        await outbox.append(block(outbox), 1)


async def test_what_was_given_out_twice_moves_to_the_new_stream(memory: Path) -> None:
    path = memory / "outbox.db"
    async with opened(path) as outbox:
        for _ in range(3):
            await outbox.append(block(outbox), 1)
        stream = outbox.stream
    async with opened(path) as outbox:
        for _ in range(2):
            await outbox.append(block(outbox, 20), 1)
        in_hand = block(outbox, 30)
        await outbox.renew("the data center had 9 blocks of it")
        await outbox.append(in_hand, 1)  # sealed for the old stream, stored under the new one
        found = await everything(outbox)
        assert [(entry.sequence, entry.readings) for entry in found if not entry.gap] == [
            (1, 10), (2, 10), (3, 10), (7, 20), (8, 20), (9, 30)
        ]  # fmt: skip
        assert [entry.body[7:23] == stream.bytes for entry in found] == [True] * 3 + [False] * 4
        assert outbox.streams.spans(0, outbox.last) == [(stream, 5), (outbox.stream, 9)]
        assert await outbox.confirm(9) == 100
    async with opened(path) as outbox:
        assert outbox.next_sequence == 10


async def test_damage_while_it_is_open(memory: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = memory / "outbox.db"
    async with opened(path) as outbox:
        stream = outbox.stream
        for _ in range(40):
            await outbox.append(block(outbox, 1500), 1)
        await outbox._contents.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        await outbox._contents.rows("PRAGMA cache_size = 0")
        with path.open("r+b") as file:
            for page in range(1, path.stat().st_size // 4096, 3):
                file.seek(page * 4096)
                file.write(b"\xff" * 8)
        one = block(outbox)
        await outbox.append(one, 1)
        found = await everything(outbox)
        assert found[-1].sequence >= 41
        assert outbox.stream != stream
        assert sum(entry.readings for entry in found if not entry.gap) == outbox.facts()["readings"]
    [record] = [each for each in caplog.records if each.__dict__.get("event") == "outbox_damaged"]
    assert (record.levelname, record.__dict__["lost"] > 0) == ("ERROR", True)


@pytest.mark.parametrize("word", [b"PRIMARY KEY, kept", b"CHECK (id = 1)", b"until INTEGER"])
async def test_a_letter_of_the_schema_that_turned_is_noticed(memory: Path, word: bytes) -> None:
    # Seed 2241372874: a key that was none any more gave None, and the agent could not open its outbox.
    path = memory / "outbox.db"
    async with opened(path) as outbox:
        await outbox.keep_catalog(7, b"seven")
        await outbox.append(block(outbox), 7)
        stream = outbox.stream
    content = path.read_bytes()
    assert content.count(word) == 1
    at = content.index(word) + 4
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 4]))
    async with opened(path) as outbox:
        assert outbox.stream != stream
        assert await outbox.catalog(7) == b"seven"
        assert [entry.gap for entry in await everything(outbox)] == [False, True]


async def test_appends_that_wait_share_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        blocks = [outbox_rig.block(outbox, 5, ahead) for ahead in range(50)]
        committed: list[int] = []
        save = outbox._contents._save

        async def counting(now: object) -> None:
            committed.append(1)
            await save(now)  # type: ignore[arg-type]

        outbox._contents._save = counting  # type: ignore[method-assign]
        await asyncio.gather(*(outbox.append(each, 1) for each in blocks))
        assert len(committed) <= 2
        assert [entry.sequence for entry in await everything(outbox)] == list(range(1, 51))


async def test_an_outbox_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        stream = outbox.stream
        await outbox.append(block(outbox), 1)
        await outbox.keep_catalog(1, b"one")
    db = connect(path)
    db.executescript("""
        DROP TABLE former;
        DROP TABLE mark;
        CREATE TABLE c (epoch INTEGER PRIMARY KEY, kept INTEGER NOT NULL, until INTEGER, body BLOB NOT NULL);
        INSERT INTO c SELECT epoch, kept, until, body FROM catalog; DROP TABLE catalog; ALTER TABLE c RENAME TO catalog;
        CREATE TABLE m (id INTEGER PRIMARY KEY CHECK (id = 1), stream BLOB NOT NULL, next_sequence INTEGER,
            confirmed INTEGER, sent INTEGER, entries INTEGER, readings INTEGER, bytes INTEGER,
            dropped_readings INTEGER, dropped_entries INTEGER);
        INSERT INTO m SELECT id, stream, next_sequence, confirmed, sent, entries, readings, bytes, dropped_readings,
            dropped_entries FROM meta;
        DROP TABLE meta; ALTER TABLE m RENAME TO meta; PRAGMA user_version = 1;
    """)
    db.close()
    async with opened(path) as outbox:
        assert (outbox.stream, outbox.next_sequence) == (stream, 2)
        assert await outbox.catalog(1) == b"one"
        assert len(await everything(outbox)) == 1
    db = connect(path)
    assert load(db)[0] == stream
    db.close()


@pytest.mark.parametrize(("options", "warned"), [("data=writeback", True), ("data=ordered", False)])
async def test_warns_where_a_power_cut_may_take_what_was_committed(
    tmp_path: Path, options: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with Disk(tmp_path, "ext4") as disk:
        disk.again(options)
        outbox: Outbox = await outbox_rig.opened(disk.place / "outbox.db")
        await outbox.close()
    assert bool([each for each in caplog.records if each.__dict__.get("event") == "disk_doubtful"]) is warned


@pytest.mark.parametrize("behind", [0, 1])
async def test_marks_are_saved_from_a_damaged_file_where_they_are_of_the_last_commit(memory: Path, behind: int) -> None:
    """Without them no collector goes on where it was; with old ones what is stored would be asked for again."""
    path = memory / "outbox.db"
    async with opened(path) as outbox:
        for place in range(1, 31):
            await outbox.append(block(outbox, 500), 1, {"press": b"%d" % place})
    with contextlib.closing(connect(path)) as db:
        [(page,)] = db.execute("SELECT max(pageno) FROM dbstat WHERE name = 'entry' AND pagetype = 'leaf'")
        stream, totals = load(db)
        if behind:  # its last commit is gone, and the lock's note knows of it
            save(db, stream, replace(totals, next_sequence=totals.next_sequence - 1))
    pages = bytearray(path.read_bytes())
    pages[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    path.write_bytes(pages)
    async with opened(path) as outbox:
        assert outbox.stream != stream
        assert await outbox.marks() == ({} if behind else {"press": b"30"})


@pytest.mark.parametrize("how", ["removed", "put back from a copy", "put back with a log"])
async def test_a_file_that_is_taken_away_from_a_running_agent_is_saved(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is open can still be read; but what is written to it would be gone with the process."""
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        await outbox.append(block(outbox), 1, {"press": b"1"})
        old = path.read_bytes(), path.with_name("outbox.db-wal").read_bytes()
        for place in range(2, 21):
            await outbox.append(block(outbox), 1, {"press": b"%d" % place})
        stream = outbox.stream
        await outbox.confirm(5)
        path.unlink()
        if how != "removed":
            path.with_name("copy").write_bytes(old[0])
            path.with_name("copy").rename(path)
        if how == "put back with a log":
            path.with_name("outbox.db-wal").unlink()
            path.with_name("outbox.db-wal").write_bytes(old[1])
        await outbox.append(block(outbox), 1, {"press": b"21"})
        await outbox.append(block(outbox), 1, {"press": b"22"})
    async with opened(path) as again:
        entries = await everything(again)
        assert again.stream == stream
        assert [(entry.sequence, entry.readings, entry.gap) for entry in entries] == [
            (place, 10, False) for place in range(6, 23)
        ]
        assert await again.marks() == {"press": b"22"}
    told = [record for record in caplog.records if record.__dict__.get("event") == "outbox_moved"]
    assert [(record.levelno, record.__dict__["lost"]) for record in told] == [(logging.ERROR, 0)]


async def test_an_outbox_whose_directory_is_removed_goes_on_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "agent" / "outbox.db"
    async with opened(path) as outbox:
        for _ in range(5):
            await outbox.append(block(outbox), 1)
        await asyncio.to_thread(shutil.rmtree, path.parent)
        for _ in range(5):
            with pytest.raises(OutboxFull, match="was removed"):
                await outbox.append(block(outbox), 1)
        assert len(await everything(outbox)) == 5
        path.parent.mkdir()
        await outbox.append(block(outbox), 1)
    async with opened(path) as again:
        assert [entry.sequence for entry in await everything(again) if not entry.gap] == [1, 2, 3, 4, 5, 6]
