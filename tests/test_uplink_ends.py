"""How a connection to the broker ends: what the broker says last, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from agent.errors import NotConnected
from agent.outbox import Outbox
from agent.tls import Credentials
from agent.uplink import HungUp, TakenOver, Uplink
from agent.wire import Broker
from datacenter import subscription
from tests.peers.brokers import Mosquitto
from tests.test_outbox import opened
from tests.uplink_rig import delivering, events, until, uplink

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with opened(tmp_path / "outbox.db") as found:
        await found.keep_catalog(7, b"catalog seven")
        yield found


async def test_what_is_closed_leaves_nothing_to_the_garbage_collector(mosquitto: Mosquitto) -> None:
    """paho closes two of its sockets when its client dies, and there may be a connection a second."""
    line, wake = uplink(mosquitto), asyncio.Event()
    await line.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=wake.set)
    assert line._link is not None
    client = weakref.ref(line._link._client)
    gc.collect()
    gc.disable()
    try:
        mosquitto.kill()
        await wake.wait()
        with pytest.raises(NotConnected):
            line.check()
        with pytest.raises(NotConnected):
            line.send("a/b", b"")
        await line.close()
        await until(lambda: client() is None)
    finally:
        gc.enable()


async def test_second_agent_of_the_same_id_is_named(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Mosquitto 2.0.11 hangs up without a reason where another client takes the session over."""
    async with delivering(uplink(mosquitto), outbox) as delivery:
        for turn in range(1, 4):
            await until(lambda: delivery.facts()["connected"] and delivery.facts()["connects"] == turn)  # noqa: B023
            other = uplink(mosquitto)
            await other.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)
            await other.close()
        await until(lambda: events(caplog, "uplink_taken_over"))
    [record] = events(caplog, "uplink_taken_over")
    assert record.levelno == logging.ERROR
    assert "press-shop-1" in record.getMessage()


async def test_session_taken_over_in_so_many_words(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """What MQTT 5 says a broker does, byte by byte: none of the brokers here does it."""
    connects = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connects
        connects += 1
        assert (await reader.read(4096))[0] == 0x10  # CONNECT
        writer.write(b"\x20\x03\x00\x00\x00")
        subscribe = await reader.read(4096)
        writer.write(b"\x90\x05" + subscribe[2:4] + b"\x00\x01\x01" + b"\xe0\x01\x8e")
        await reader.read()  # closed with something unread, the line would be reset, and the word perhaps not read
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        line = Uplink(broker=Broker("127.0.0.1", server.sockets[0].getsockname()[1]), client_id="a")
        async with delivering(line, outbox):
            await until(lambda: events(caplog, "uplink_taken_over"))
            await asyncio.sleep(1.0)
            assert connects == 1  # it does not fight for the session
    assert "taken over" in events(caplog, "uplink_taken_over")[0].getMessage()


async def test_the_last_word_of_a_broker_is_heard_where_something_is_sent_meanwhile() -> None:
    """paho closes the socket, and only then says why. What is sent in between found no connection, and that was taken
    for a broker that hung up: so the agent came back at once, and took the session from whoever had it now."""
    last_word = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"\x20\x03\x00\x00\x00")
        subscribe = await reader.read(4096)
        writer.write(b"\x90\x05" + subscribe[2:4] + b"\x00\x01\x01")
        await last_word.wait()
        writer.write(b"\xe0\x01\x8e")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        line = Uplink(broker=Broker("127.0.0.1", server.sockets[0].getsockname()[1]), client_id="a")
        await line.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)
        assert line._link is not None
        client, closed, sent = line._link._client, threading.Event(), threading.Event()
        close: Callable[[], None] = client._sock_close

        def slowly() -> None:
            close()
            closed.set()
            sent.wait(20.0)

        client._sock_close = slowly  # type: ignore[method-assign]
        last_word.set()
        assert await asyncio.to_thread(closed.wait, 20.0)
        line.send("a/b", b"nobody is there")
        with pytest.raises(HungUp) as hung_up:
            line.check()
        telling = asyncio.create_task(line.last_word(hung_up.value))
        sent.set()
        assert isinstance(await telling, TakenOver)
        await line.close()
        del client._sock_close  # a cycle


class Late:
    """A broker's place, and links that come to it only when they were given up."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self._ended, self._dials = asyncio.Event(), threading.Event()

    def of(self, dial: Callable[..., None]) -> Callable[..., None]:
        def dial_late(*given: Any) -> None:
            self._dials.wait(20.0)
            dial(*given)

        return dial_late

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.said.append(await reader.read(4096))
        writer.close()
        self._ended.set()

    async def come(self) -> None:
        self._dials.set()
        async with asyncio.timeout(20.0):
            await self._ended.wait()


async def test_a_link_that_was_given_up_while_it_dialled_says_nothing_to_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its CONNECT would come when the next link is there, and take the session from that one."""
    late = Late()
    monkeypatch.setattr(Uplink, "dial", late.of(Uplink.dial))
    async with await asyncio.start_server(late.answer, "127.0.0.1", 0) as server:
        line = Uplink(broker=Broker("127.0.0.1", server.sockets[0].getsockname()[1]), client_id="a", timeout=0.2)
        with pytest.raises(NotConnected, match="no answer within"):
            await line.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)
        await late.come()
    assert late.said == [b""]


async def test_nor_does_one_of_the_data_center(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()
    monkeypatch.setattr(subscription._Link, "_dial", late.of(subscription._Link._dial))
    async with await asyncio.start_server(late.answer, "127.0.0.1", 0) as server:
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1])
        line = subscription._Link(broker, MQTTProtocolVersion.MQTTv5, "a", lambda _: True, "headrace")
        monkeypatch.setattr(subscription, "DEADLINE", 0.2)
        with pytest.raises(NotConnected):
            await line.open(Credentials())
        await line.close()
        await late.come()
    assert late.said == [b""]
