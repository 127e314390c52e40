"""After an outage: live blocks first, the backlog behind them on its budget, and other brokers meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import brokers
from agent.budget import Limit
from agent.outbox import Outbox
from agent.wire import CatalogWanted
from tests.peers.brokers import Mosquitto, Nats
from tests.test_outbox import opened
from tests.uplink_rig import TOPICS, Center, append, delivering, events, until, uplink

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with opened(tmp_path / "outbox.db") as found:
        await found.keep_catalog(7, b"catalog seven")
        yield found


async def test_live_blocks_overtake_a_backlog(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await append(outbox, 400)
    total = outbox.facts()["bytes"]
    rate = total // 8
    with Center(mosquitto) as center:
        async with delivering(uplink(mosquitto), outbox, backlog=Limit(bytes=rate)) as delivery:
            began = time.monotonic()
            late = []
            while outbox.facts()["entries"]:
                await append(outbox, 1)
                place, sent = outbox.last, time.monotonic()
                delivery.wake()
                await until(lambda: place in center.readings, 20.0)  # noqa: B023
                late.append(time.monotonic() - sent)
                assert delivery.facts()["backlog_bytes"] <= total + 200 * len(late)  # and the blocks since
                await asyncio.sleep(0.2)
                if time.monotonic() - began > 6.0:
                    assert delivery.facts()["backlog_seconds"] < 20.0
            lasted = time.monotonic() - began
            facts = delivery.facts()
        # Whoever waits for the backlog waits for seconds each time; a busy machine does so now and then.
        assert sorted(late)[len(late) * 3 // 4] < 1.0
        assert 5.0 < lasted < 40.0
        assert center.committed == outbox.last
        assert (facts["resent"], facts["confirmed"]) == (0, 10 * outbox.last)
        assert outbox.facts()["dropped_readings"] == 0
    [record] = events(caplog, "backlog_draining")
    assert record.__dict__["entries"] > 32
    assert len(events(caplog, "backlog_sent")) == 1


async def test_what_was_received_out_of_order_leaves_the_outbox_and_is_not_sent_again(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with opened(tmp_path / "outbox.db") as outbox:
        await outbox.keep_catalog(7, b"catalog seven")
        await append(outbox, 300)
        with Center(mosquitto) as center:
            async with delivering(uplink(mosquitto), outbox, backlog=Limit(bytes=256)) as delivery:
                # The newest few are live: 32 of them arrive, and a few old ones.
                await until(lambda: 300 in center.readings and delivery.facts()["unreceipted"] == 0)
                live = {place for place in center.readings if place > 200}
                assert len(live) >= 32
            # They are freed every few seconds; a stop does not wait for that.
            assert outbox.facts()["entries"] <= 300 - len(live)
            await append(outbox, 1)
            async with delivering(uplink(mosquitto), outbox) as delivery:
                assert await delivery.drain(40.0)
        assert not [place for place in live if center.places.count(place) > 1]
        assert center.committed == 301


async def test_a_data_center_that_knows_no_selective_receipts(mosquitto: Mosquitto, outbox: Outbox) -> None:
    await append(outbox, 200)
    with Center(mosquitto, selective=False) as center:
        async with delivering(uplink(mosquitto), outbox, resend_after=2.0) as delivery:
            assert await delivery.drain(40.0)
        assert center.committed == 200


async def test_another_broker_while_the_first_is_away(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(brokers, "RETURN_SECONDS", 1.0)
    with (
        Nats(tmp_path / "first") as first,
        Mosquitto(tmp_path / "second") as second,
        Center(first) as here,
        Center(second) as there,
    ):
        async with delivering([uplink(first), uplink(second)], outbox) as delivery:
            await append(outbox, 10)
            assert await delivery.drain(40.0)
            await asyncio.to_thread(first.kill)
            await append(outbox, 10)
            assert await delivery.drain(40.0)
            assert delivery.facts()["broker"].endswith(str(second.port))
            await asyncio.to_thread(first.start)
            await until(lambda: delivery.facts()["broker"].endswith(str(first.port)))
            await until(lambda: delivery.facts()["connected"])
            await until(here.client.is_connected)
            await append(outbox, 10)
            delivery.wake()
            assert await delivery.drain(40.0)
        assert set(here.places) | set(there.places) == set(range(1, 31))
        assert set(there.places) >= set(range(11, 21))
    assert len(events(caplog, "uplink_back")) == 1


async def test_a_block_that_no_broker_bears_is_set_aside(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here every block of some size is poison: pieces of 512 bytes and the topic do not fit into 300."""
    monkeypatch.setattr(brokers, "SEARCHING_PAUSE", 0.3)
    with Mosquitto(tmp_path / "broker", settings=("max_packet_size 300",)) as broker, Center(broker) as center:
        await append(outbox, 2)
        await append(outbox, 1, readings=200)
        await append(outbox, 2)
        async with delivering(uplink(broker, "3.1.1"), outbox, resend_after=5.0) as delivery:
            assert await delivery.drain(50.0)
            assert delivery.facts()["set_aside"] == 1
        assert (center.committed, center.gaps) == (5, {3: 200})
    [lost] = events(caplog, "readings_lost")
    assert (lost.levelno, lost.__dict__["lost"], lost.__dict__["sequence"]) == (logging.ERROR, 200, 3)
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == [f"block-{outbox.stream.hex[:8]}-3.hdr"]


async def test_a_block_that_the_data_center_never_takes_holds_nothing(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent.traffic.NOT_TAKEN", 2)
    with Center(mosquitto) as center:
        center.deaf_to.add(3)
        async with delivering(uplink(mosquitto), outbox, resend_after=0.5) as delivery:
            await append(outbox, 3)
            for _ in range(20):
                await append(outbox, 1)
                delivery.wake()
                await asyncio.sleep(0.1)
            await until(lambda: delivery.facts()["not_taken"] == 1)
            assert outbox.facts()["confirmed"] == 2
            await until(lambda: set(range(1, 24)) - {3} <= set(center.readings))
            center.say(TOPICS.commands, CatalogWanted(7).encode())
            center.deaf_to.clear()
            assert await delivery.drain(40.0)
            assert delivery.facts()["not_taken"] == 0
    # On a busy machine receipts of others may be late as well.
    assert [each.__dict__["sequence"] for each in events(caplog, "entry_not_taken")].count(3) == 1
