from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from agent.errors import NotConnected, Rejected
from agent.outbox import MIN_BYTES, Outbox
from agent.ranges import Ranges
from agent.uplink import Uplink
from agent.wire import Broker, CatalogWanted, Receipt, State
from tests.peers.brokers import Broker as BrokerPeer
from tests.peers.brokers import Mosquitto, Nats
from tests.test_outbox import opened
from tests.uplink_rig import TOPICS, Center, append, delivering, events, until, uplink

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerPeer]:
    kind = {"mosquitto": Mosquitto, "nats": Nats}[request.param]
    with kind(tmp_path / "broker") as peer:
        yield peer


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with opened(tmp_path / "outbox.db") as found:
        await found.keep_catalog(7, b"catalog seven")
        yield found


def online(center: Center) -> list[bool]:
    """What was said of it, without the repetitions: it is said every 5 s."""
    return [each for each, _ in groupby(state.online for state, _ in center.states)]


async def test_delivers_everything_once_and_in_order(broker: BrokerPeer, outbox: Outbox) -> None:
    await append(outbox, 100)
    with Center(broker) as center:
        async with delivering(uplink(broker), outbox) as delivery:
            await append(outbox, 50)
            delivery.wake()
            assert await delivery.drain(40.0)
            facts = delivery.facts()
        # What is added meanwhile goes ahead of what is still waiting.
        assert sorted(center.places) == list(range(1, 151))
        assert sum(center.readings.values()) == facts["confirmed"] == 1500
        assert (facts["sent"], facts["resent"], facts["connects"]) == (150, 0, 1)
        assert facts["connected"]
        assert facts["protocol"] == ("5" if isinstance(broker, Mosquitto) else "3.1.1")
        assert center.catalogs[0] == (b"catalog seven", False)
        await until(lambda: online(center) == [True, False])
        assert center.states[0][0] == State(True, outbox.stream, 7, {"pid": 1})
    with Center(broker) as late:
        await until(lambda: late.catalogs and late.states)
        assert late.catalogs == [(b"catalog seven", True)]
        assert late.states == [(State(False, outbox.stream, 7), True)]


@pytest.mark.parametrize("mqtt", ["5", "3.1.1"])
async def test_speaks_both_versions(mosquitto: Mosquitto, outbox: Outbox, mqtt: Literal["5", "3.1.1"]) -> None:
    await append(outbox, 10)
    with Center(mosquitto) as center:
        async with delivering(uplink(mosquitto, mqtt=mqtt), outbox) as delivery:
            assert await delivery.drain(40.0)
            assert delivery.facts()["protocol"] == mqtt
        assert center.places == list(range(1, 11))


async def test_nats_refuses_version_5(nats: Nats) -> None:
    line = uplink(nats, mqtt="5")
    with pytest.raises(NotConnected, match="Unsupported protocol version"):
        await line.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)


@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_broker_that_goes_away_in_the_middle(
    broker: BrokerPeer, outbox: Outbox, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Center(broker) as center:
        async with delivering(uplink(broker), outbox, resend_after=1.0) as delivery:
            await append(outbox, 40)
            delivery.wake()
            await until(lambda: center.committed >= 5)
            await asyncio.to_thread(broker.kill if way == "kill" else broker.stop)
            await append(outbox, 40)
            await until(lambda: not delivery.facts()["connected"])
            await until(lambda: events(caplog, "uplink_lost"))
            await asyncio.to_thread(broker.start)
            assert await delivery.drain(40.0)
            assert delivery.facts()["connects"] == 2
        assert sorted(set(center.places)) == list(range(1, 81))
        assert center.committed == 80
    assert len(events(caplog, "uplink_lost")) == 1
    assert len(events(caplog, "uplink_connected")) == 2


async def test_sends_again_where_receipts_stay_away(mosquitto: Mosquitto, outbox: Outbox) -> None:
    await append(outbox, 30)
    with Center(mosquitto, answering=False) as center:
        async with delivering(uplink(mosquitto), outbox, resend_after=0.5, window=20) as delivery:
            await until(lambda: delivery.facts()["resent"] >= 40)
            assert outbox.facts()["entries"] == 30
            assert center.places[:40] == [*range(1, 21), *range(1, 21)]  # never past its window
            center.answering = True
            assert await delivery.drain(40.0)
        assert center.committed == 30


async def test_receipt_without_progress_brings_back_what_was_lost_on_the_way(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    await append(outbox, 5)
    with Center(mosquitto, answering=False) as center:
        began = time.monotonic()
        async with delivering(uplink(mosquitto), outbox, resend_after=20.0) as delivery:
            await until(lambda: center.committed == 5)
            center.committed, center.has = 0, Ranges()  # as if it had never seen them
            center.answering = True
            while not center.committed:
                center.receipt()
                await asyncio.sleep(0.1)
            assert await delivery.drain(40.0)
            assert 1.0 < time.monotonic() - began < 18.0, "no receipt at all would have taken 20 s"
            assert delivery.facts()["resent"] == 5


async def test_confirmed_by_the_broker(broker: BrokerPeer, outbox: Outbox) -> None:
    await append(outbox, 60)
    with Center(broker, answering=False) as center:
        async with delivering(uplink(broker), outbox, confirm="broker") as delivery:
            assert await delivery.drain(40.0)
            assert delivery.facts()["confirmed"] == 600
        await until(lambda: len(center.places) == 60)
        assert center.places == [*range(29, 61), *range(1, 29)]  # the newest few first


async def test_delivers_gaps(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with opened(tmp_path / "small.db", max_bytes=MIN_BYTES) as outbox:
        await append(outbox, 30, readings=1000)
        lost = outbox.facts()["dropped_readings"]
        assert lost > 0
        with Center(mosquitto) as center:
            async with delivering(uplink(mosquitto), outbox) as delivery:
                assert await delivery.drain(40.0)
                assert delivery.facts()["confirmed"] == 30_000 - lost
            assert center.gaps == {1: lost}
            assert center.committed == 30


async def test_commands_and_nonsense(mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    await outbox.keep_catalog(8, b"catalog eight")
    await append(outbox, 3)
    with Center(mosquitto, answering=False) as center:
        async with delivering(uplink(mosquitto), outbox) as delivery:
            await until(lambda: center.committed == 3)
            # The newest when connecting, then the one that the blocks need.
            assert [body for body, _ in center.catalogs] == [b"catalog eight", b"catalog seven"]
            center.say(TOPICS.commands, CatalogWanted(7).encode())
            await until(lambda: len(center.catalogs) == 3)
            assert center.catalogs[2][0] == b"catalog seven"
            nonsense = [
                b"",
                b"\xff\xfe",
                b"[]",
                b'{"command": "reboot"}',
                b'{"command": "catalog", "epoch": "-5"}',
                b'{"command": "catalog", "epoch": "1ffffffffffffffff"}',
            ]
            for body in nonsense:
                center.say(TOPICS.commands, body)
                center.say(TOPICS.receipts, body)
            center.say(TOPICS.receipts, bytes(100_000))
            await until(lambda: delivery.facts()["unreadable"] == 12)
            center.say(TOPICS.receipts, Receipt(uuid4(), 3).encode())
            stream = outbox.stream
            center.say(TOPICS.receipts, Receipt(stream, 99).encode())
            await until(lambda: outbox.stream != stream)
            # What was given out under places that others have already moves to the new stream.
            assert len(events(caplog, "receipt_ahead")) == 1
            assert outbox.facts()["entries"] == 4
            assert delivery.facts()["connects"] == 1
    assert len(events(caplog, "message_unreadable")) == 1
    with Center(mosquitto) as late:
        await until(lambda: late.catalogs)
        assert late.catalogs == [(b"catalog eight", True)]


@pytest.mark.timeout(120)  # a dozen connections end until the size is found, with pauses of up to 2 s in between
@pytest.mark.parametrize("mqtt", ["5", "3.1.1"])
async def test_block_too_large_for_the_broker_goes_in_pieces(
    tmp_path: Path, outbox: Outbox, mqtt: Literal["5", "3.1.1"]
) -> None:
    """A broker of version 5 says what it takes; the other hangs up, until the agent has found out what it takes."""
    with Mosquitto(tmp_path / "broker", settings=("max_packet_size 4000",)) as broker, Center(broker) as center:
        await append(outbox, 2)
        await append(outbox, 1, readings=2000)
        await append(outbox, 2)
        async with delivering(uplink(broker, mqtt), outbox, resend_after=5.0) as delivery:
            assert await delivery.drain(90.0)
            facts = delivery.facts()
        assert center.committed == 5
        assert center.readings[3] == 2000
        assert (facts["rejected"], facts["set_aside"], outbox.facts()["dropped_readings"]) == (0, 0, 0)
        if mqtt == "5":
            assert (facts["connects"], facts["pieces"], center.pieces) == (1, 4, 4)


async def test_a_block_that_is_too_large_is_found_while_no_receipts_come(tmp_path: Path, outbox: Outbox) -> None:
    """The blocks before it are sent, and acknowledged, on each connection anew."""
    with (
        Mosquitto(tmp_path / "broker", settings=("max_packet_size 4000",)) as broker,
        Center(broker, answering=False) as center,
    ):
        await append(outbox, 2)
        await append(outbox, 1, readings=2000)
        await append(outbox, 2)
        async with delivering(uplink(broker, "3.1.1"), outbox, resend_after=5.0):
            await until(lambda: center.committed == 5, 120.0)


async def test_uplink_says_what_it_can_not_send(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", settings=("max_packet_size 4000",)) as broker:
        line = uplink(broker)
        with pytest.raises(NotConnected):
            line.send("a/b", b"")
        await line.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)
        with pytest.raises(Rejected, match="4000"):
            line.send("a/b", bytes(4000))
        done = asyncio.Event()
        line.send("a/b", bytes(100), then=lambda refusal: done.set() if refusal is None else None)
        async with asyncio.timeout(30.0):
            await done.wait()
        await line.close()
        with pytest.raises(NotConnected):
            line.check()


async def test_broker_that_comes_later(tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    broker = Mosquitto(tmp_path / "broker")
    await append(outbox, 3)
    async with delivering(uplink(broker), outbox, confirm="broker") as delivery:
        await until(lambda: events(caplog, "uplink_lost"))
        assert not delivery.facts()["connected"]
        assert not await delivery.drain(0.1)
        with broker:
            assert await delivery.drain(40.0)
            # Now: when this broker ends as well, that is a loss of its own.
            assert len(events(caplog, "uplink_lost")) == 1


async def test_peer_that_takes_the_connection_and_says_nothing(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        broker = Broker("127.0.0.1", silent.getsockname()[1])
        line = Uplink(broker=broker, client_id="a", timeout=0.3)
        async with delivering(line, outbox):
            await until(lambda: events(caplog, "uplink_lost"))
        line = Uplink(broker=broker, client_id="a", timeout=30.0)
        async with delivering(line, outbox):
            await asyncio.sleep(0.2)  # stops in time although it still waits for an answer
    assert "no answer" in events(caplog, "uplink_lost")[0].getMessage()


AGENT = """
import asyncio, sys
from pathlib import Path
from agent.delivery import Delivery
from agent.outbox import Outbox
from agent.uplink import Uplink
from agent.wire import Broker, State, Topics

async def main():
    outbox = await Outbox.open(Path(sys.argv[1]), max_bytes=1 << 24, when_full="drop_oldest")
    line = Uplink(broker=Broker.parse(sys.argv[2]), client_id="headrace-press-shop-1")
    delivery = Delivery(line, Topics("press-shop-1"), outbox, lambda: State(True, outbox.stream))
    await delivery.run(asyncio.Event())

asyncio.run(main())
"""


async def test_last_will_of_a_killed_agent(broker: BrokerPeer, tmp_path: Path) -> None:
    with Center(broker) as center:
        agent = await asyncio.to_thread(
            lambda: subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path / "outbox.db"), broker.url])
        )
        try:
            await until(lambda: online(center) == [True])
        finally:
            agent.send_signal(signal.SIGKILL)
            agent.wait(30.0)
        await until(lambda: online(center) == [True, False])
        assert center.states[-1][0].stream == center.states[0][0].stream
    with Center(broker) as late:
        await until(lambda: late.states)
        assert (late.states[0][0].online, late.states[0][1]) == (False, True)
