"""Poison: blocks that arrive whole and can't be read. They must neither hold the others nor come again for ever."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from agent import _native, delivered
from agent.errors import OutboxFull
from agent.outbox import Outbox
from agent.wire import MOST_REJECTED, Receipt, Rejection
from headrace.query import fetch
from tests.datacenter_rig import DataCenter, Rig
from tests.datacenter_rig import block as sealed
from tests.peers.brokers import Mosquitto
from tests.test_outbox import MEBIBYTE, block, opened
from tests.test_outbox_command import CONFIG, EPOCH, catalog, run, stored
from tests.uplink_rig import TOPICS, Center, append, delivering, events, until, uplink

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

READINGS = 10


def poisoned(body: bytes) -> bytes:
    """With a directory that can't be, and the checksum of what it is now."""
    _native.decode(body)
    for at in range(len(body) - 5, 40, -1):
        made = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 : -4]
        made += _native.crc32c(made).to_bytes(4, "little")
        try:
            _native.header(made)
        except _native.BlockError:
            continue
        try:
            _native.decode(made)
        except _native.BlockError:
            return made
    raise AssertionError("every change of it can be read")


async def filled(path: Path, count: int, bad: set[int]) -> UUID:
    """An outbox with blocks of which some are poison. Returns its stream."""
    async with opened(path) as outbox:
        await outbox.keep_catalog(EPOCH, catalog())
        for _ in range(count):
            await outbox.append(block(outbox, READINGS, epoch=EPOCH), EPOCH)
        bodies = {entry.sequence: entry.body for entry in await outbox.peek(0, 1000, MEBIBYTE)}
        stream = outbox.stream
    with closing(sqlite3.connect(path)) as db:
        for place in bad:
            db.execute("UPDATE entry SET body = ? WHERE sequence = ?", (poisoned(bodies[place]), place))
        db.commit()
    return stream


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    await filled(tmp_path / "agent" / "outbox.db", 6, {3})
    async with opened(tmp_path / "agent" / "outbox.db") as found:
        yield found


async def test_the_data_center_says_it_and_the_agent_goes_on(
    tmp_path: Path, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "agent" / "outbox.db"
    stream = await filled(path, 60, {1, 30, 60})
    with DataCenter(tmp_path, mosquitto.url) as center:
        async with opened(path) as outbox:
            bodies = {entry.sequence: entry.body for entry in await outbox.peek(0, 1000, MEBIBYTE)}
            async with delivering(uplink(mosquitto), outbox) as delivery:
                assert await delivery.drain(40.0)
                facts = delivery.facts()
            assert (facts["set_aside"], facts["not_taken"], facts["rejected"]) == (3, 0, 0)
            assert (outbox.facts()["dropped_readings"], outbox.facts()["dropped_entries"]) == (3 * READINGS, 3)
        found = await asyncio.to_thread(lambda: json.loads(fetch(center.url, "/v1/completeness")))
    (account,) = [each for each in found["streams"] if each["stream"] == str(stream)]
    gaps = sorted((gap["first"], gap["last"], gap["readings"]) for gap in account["gaps"])
    assert gaps == [(1, 1, READINGS), (30, 30, READINGS), (60, 60, READINGS)]
    assert all("the data center can't read it" in gap["reason"] for gap in account["gaps"])
    lost = events(caplog, "readings_lost")
    assert [(each.levelno, each.__dict__["lost"]) for each in lost] == 3 * [(logging.ERROR, READINGS)]
    kept = {int(each.stem.rpartition("-")[2]): each.read_bytes() for each in delivered.quarantine(path).iterdir()}
    assert kept == {place: bodies[place] for place in (1, 30, 60)}
    (tmp_path / "plant.toml").write_text(CONFIG)
    status = await run("status", tmp_path / "plant.toml")
    assert status["quarantine"]["blocks"] == 3
    assert status["quarantine"]["folder"] == str(delivered.quarantine(path))


async def test_an_older_data_center_is_asked_again_and_nothing_else_waits(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent.traffic.NOT_TAKEN", 2)
    with Center(mosquitto) as center:
        center.deaf_to.add(3)
        async with delivering(uplink(mosquitto), outbox, resend_after=0.5) as delivery:
            await until(lambda: delivery.facts()["not_taken"] == 1)
            assert set(center.readings) == {1, 2, 4, 5, 6}
            assert (delivery.facts()["set_aside"], outbox.facts()["confirmed"]) == (0, 2)
            (entry,) = await outbox.peek(2, 1, MEBIBYTE)
            crc = int.from_bytes(entry.body[-4:], "little")

            def say(place: int, crc: int, stream: UUID = outbox.stream) -> None:
                rejected = (Rejection(place, crc, "the columns make no sense"),)
                center.say(TOPICS.receipts, Receipt(stream, 2, center.beyond(), rejected).encode())

            # Of other bytes, of another stream, of places that are done or were never given out: nothing happens.
            say(3, crc ^ 1)
            say(3, crc, UUID(int=7))
            say(1, crc)
            say(1 << 40, crc)
            await until(lambda: delivery.facts()["mistaken"] == 1)
            await asyncio.sleep(0.3)
            assert delivery.facts()["set_aside"] == 0
            say(3, crc)
            await until(lambda: delivery.facts()["set_aside"] == 1)
            center.deaf_to.clear()  # sooner, and the block itself might come once more and be taken
            assert await delivery.drain(40.0)
            assert (delivery.facts()["set_aside"], delivery.facts()["not_taken"]) == (1, 0)
        assert center.gaps == {3: READINGS}
    (lost,) = events(caplog, "readings_lost")
    assert lost.__dict__["sequence"] == 3


async def test_poison_that_can_not_be_kept_stays(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivered, "MOST_ASIDE", 0)
    with Center(mosquitto) as center:
        center.deaf_to.add(3)
        async with delivering(uplink(mosquitto), outbox, resend_after=0.5) as delivery:
            await until(lambda: set(center.readings) == {1, 2, 4, 5, 6})
            (entry,) = await outbox.peek(2, 1, MEBIBYTE)
            rejected = (Rejection(3, int.from_bytes(entry.body[-4:], "little"), "no sense"),)
            center.say(TOPICS.receipts, Receipt(outbox.stream, 2, center.beyond(), rejected).encode())
            await until(lambda: delivery.facts()["rejected"] == 1)
            await append(outbox, 1)
            delivery.wake()
            await until(lambda: 7 in center.readings)  # and so whatever was sent before it
            unheard = center.unheard
            await asyncio.sleep(1.2)
            assert center.unheard == unheard, "what is known to be poison is not sent again"
        assert 3 in [each.sequence for each in await outbox.peek(0, 100, MEBIBYTE) if not each.gap]
    assert (len(events(caplog, "entry_stuck")), events(caplog, "readings_lost")) == (1, [])


async def test_a_disk_that_takes_nothing_does_not_end_the_delivery(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outbox says no to what receipts ask of it, as on a full disk; sending goes on, and later all is settled."""

    async def full(*_: object, **__: object) -> None:
        raise OutboxFull("the disk is full")

    async with opened(tmp_path / "outbox.db") as outbox:
        await append(outbox, 5)
        with Center(mosquitto) as center:
            center.deaf_to.add(2)
            with monkeypatch.context() as broken:
                broken.setattr(outbox, "mark_delivered", full)
                broken.setattr("agent.receipts.FREE_SECONDS", 0.0)
                async with delivering(uplink(mosquitto), outbox, resend_after=0.5) as delivery:
                    await until(lambda: center.has.count(3, 5) == 3)
                    await append(outbox, 5)
                    delivery.wake()
                    await until(lambda: center.has.count(3, 10) == 8)
                    broken.undo()
                    center.deaf_to.clear()
                    assert await delivery.drain(40.0)


def test_what_the_data_center_rejects(tmp_path: Path) -> None:
    stream = UUID(int=5)
    bad = poisoned(sealed(stream, 2))
    torn = bytearray(sealed(stream, 3))
    torn[len(torn) // 2] ^= 1
    later = bytearray(sealed(stream, 4))
    later[4] = 9
    later[-4:] = _native.crc32c(bytes(later[:-4])).to_bytes(4, "little")
    with Rig(tmp_path) as rig:
        from tests.datacenter_rig import catalog as tags

        rig.send(tags(), word="catalog")
        rig.send(sealed(stream, 1), bad, bytes(torn), bytes(later))
        said = [Receipt.decode(body) for topic, body in rig.published if topic.endswith("/receipts")]
        rejected = [(each.sequence, each.crc) for receipt in said for each in receipt.rejected]
        # What was damaged on its way, or is of a later version, is worth sending again.
        assert rejected == [(2, int.from_bytes(bad[-4:], "little"))]
        rig.published.clear()
        rig.send(sealed(stream, 5))
        assert not any(Receipt.decode(body).rejected for topic, body in rig.published if topic.endswith("/receipts"))
        rig.send(*[bad] * (MOST_REJECTED + 5))
        assert rig.stream(stream)["holes"] == [[2, 4]]


def test_rejections_on_the_wire() -> None:
    receipt = Receipt(UUID(int=1), 4, ((6, 7),), (Rejection(5, 2**32 - 1, "x" * 500),))
    again = Receipt.decode(receipt.encode())
    assert again.rejected == (Rejection(5, 2**32 - 1, "x" * 200),)
    assert b"rejected" not in Receipt(UUID(int=1), 4).encode()
    for wrong in ('"x"', "[[1]]", '[["a", 1, "x"]]', "[[1, -1, 3]]", json.dumps([[1, 1, "x"]] * (MOST_REJECTED + 1))):
        with pytest.raises(ValueError, match="receipt"):
            Receipt.decode(b'{"stream": "%s", "committed": 4, "rejected": %s}' % (str(UUID(int=1)).encode(), wrong.encode()))  # fmt: skip  # noqa: E501


async def test_a_block_of_the_quarantine_is_brought_by_hand(tmp_path: Path) -> None:
    """Once the data center can read it: from the quarantine into the place where the gap stands."""
    path = tmp_path / "agent" / "outbox.db"
    (tmp_path / "plant.toml").write_text(CONFIG)
    await filled(path, 3, set())
    async with opened(path) as outbox:
        kept = await outbox.set_aside(2, "the data center can't read it")
    await run("export", tmp_path / "plant.toml", tmp_path / "out.hdrx")
    assert kept is not None
    brought = await run("import", tmp_path / "out.hdrx", tmp_path / "plant.toml")
    assert brought["stored"] == 3
    brought = await run("import", kept, tmp_path / "plant.toml")
    assert (brought["stored"], brought["whole"]) == (1, True)
    assert stored(tmp_path) == [(place, READINGS) for place in (1, 2, 3)]
    async with opened(tmp_path / "other.db") as outbox:
        (tmp_path / "other.hdr").write_bytes(block(outbox, 1).data)
    assert "has nothing of its stream" in await run("import", tmp_path / "other.hdr", tmp_path / "plant.toml", code=1)
