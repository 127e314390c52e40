"""The data center against real brokers: end to end, over broker restarts, and through kill -9 of itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.errors import HeadraceError
from agent.model import ValueType
from agent.wire import CatalogWanted, Receipt, State, Topics
from datacenter.run import AddressInUse, serve
from datacenter.store import StoreError
from tests.datacenter_rig import AGENT, EPOCH, TAGS, DataCenter, block, catalog, until
from tests.peers.brokers import Broker, Mosquitto, Nats

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

TOPICS = Topics(AGENT)


class Gateway:
    """An agent's side of the broker, as far as the data center sees it."""

    def __init__(self, port: int) -> None:
        self.receipts: dict[UUID, int] = {}
        self.wanted: list[int] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"gateway-{uuid4()}")
        self._client.on_connect = lambda client, *_: client.subscribe([(TOPICS.receipts, 1), (TOPICS.commands, 1)])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(30.0)

    def _take(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        if message.topic == TOPICS.receipts:
            receipt = Receipt.decode(bytes(message.payload))
            self.receipts[receipt.stream] = max(receipt.committed, self.receipts.get(receipt.stream, -1))
        else:
            self.wanted.append(CatalogWanted.decode(bytes(message.payload)).epoch)

    def send(self, body: bytes, topic: str = TOPICS.data, *, retain: bool = False) -> None:
        self._client.publish(topic, body, qos=1, retain=retain)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # Else the client is in a cycle, and its sockets wait for the garbage collector.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None


@pytest.fixture(params=[Nats, Mosquitto])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    with request.param(tmp_path / "broker") as broker:
        yield broker


@contextlib.asynccontextmanager
async def running(
    store: Path, broker: str, *, http: str = "127.0.0.1:0", mqtt: str = "auto"
) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A data center within this loop, subscribed; gives its URL and what stops it."""
    stop, up = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            store=store,
            broker=broker,
            http=http,
            root="headrace/v1",
            ca=None,
            mqtt=mqtt,
            stop=stop,
            ready=up.set_result,
        )
    )
    try:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield up.result()["url"], stop
        stop.set()
        async with asyncio.timeout(20.0):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def healthy(url: str, status: int = 200) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client, asyncio.timeout(40):
        while (await client.get("/healthz")).status_code != status:  # noqa: ASYNC110 - another program's condition
            await asyncio.sleep(0.02)


async def test_from_the_broker_to_the_answer(broker: Broker, tmp_path: Path) -> None:
    stream = uuid4()
    async with running(tmp_path / "store", broker.url) as (url, _):
        await healthy(url)
        gateway = await asyncio.to_thread(Gateway, broker.port)
        # A block first, so that the catalog is asked for.
        gateway.send(block(stream, 1))
        await asyncio.to_thread(until, lambda: set(gateway.wanted) == {EPOCH})
        gateway.send(catalog(), TOPICS.catalog, retain=True)
        # A broker may hand over what follows before the catalog, and a block that waits twice for it counts once.
        await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 1)
        for sequence in (2, 3, 3, 5, 4):
            gateway.send(block(stream, sequence))
        await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 5)
        gateway.send(State(True, other := uuid4()).encode(), TOPICS.state, retain=True)
        await asyncio.to_thread(until, lambda: gateway.receipts.get(other) == 0)
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
            answer = (await client.get("/v1/readings", params={"id": "88.1/press1.float64"})).json()
            assert [row[1] for row in answer["readings"]] == [s + at / 10 for s in range(1, 6) for at in range(3)]
            summary = (await client.get("/v1/summary")).json()
            assert (summary["readings"], summary["duplicate_blocks"], summary["parked"]) == (15, 1, 0)
            assert (await client.get("/v1/agents")).json()[0]["online"] is True
        gateway.close()


async def test_what_came_while_it_was_away_is_not_lost(broker: Broker, tmp_path: Path) -> None:
    stream = uuid4()
    async with running(tmp_path / "store", broker.url) as (url, _):
        await healthy(url)
    gateway = await asyncio.to_thread(Gateway, broker.port)
    gateway.send(catalog(), TOPICS.catalog, retain=True)
    for sequence in range(1, 21):
        gateway.send(block(stream, sequence))
    async with running(tmp_path / "store", broker.url) as (url, _):
        await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 20)
    gateway.receipts.clear()
    async with running(tmp_path / "store", broker.url) as (url, _):
        await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 20)
    gateway.close()


async def test_the_broker_may_come_later_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    nats = Nats(tmp_path / "broker")
    stream = uuid4()

    def events() -> list[str]:
        return [getattr(record, "event", "") for record in caplog.records if record.name == "headrace.subscription"]

    try:
        async with running(tmp_path / "store", nats.url) as (url, _):
            await healthy(url, 503)
            await asyncio.to_thread(until, lambda: events() == ["broker_lost"])
            await asyncio.to_thread(nats.start)
            await healthy(url)
            gateway = await asyncio.to_thread(Gateway, nats.port)
            gateway.send(catalog(), TOPICS.catalog, retain=True)
            gateway.send(block(stream, 1))
            await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 1)
            await asyncio.to_thread(nats.kill)
            await healthy(url, 503)
            await asyncio.to_thread(until, lambda: events()[2:] == ["broker_lost"])
            await asyncio.to_thread(nats.start)
            await healthy(url)
            gateway.send(block(stream, 2))
            await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 2)
            gateway.close()
    finally:
        nats.kill()
    assert events() == ["broker_lost", "broker_back", "broker_lost", "broker_back"]


@pytest.mark.parametrize("mqtt", ["5", "3.1.1"])
async def test_each_protocol_version(mosquitto: Mosquitto, tmp_path: Path, mqtt: str) -> None:
    stream = uuid4()
    async with running(tmp_path / "store", mosquitto.url, mqtt=mqtt) as (url, _):
        await healthy(url)
        gateway = await asyncio.to_thread(Gateway, mosquitto.port)
        gateway.send(catalog(), TOPICS.catalog, retain=True)
        gateway.send(block(stream, 1))
        await asyncio.to_thread(until, lambda: gateway.receipts.get(stream) == 1)
        gateway.close()


@pytest.mark.timeout(180)
def test_kill_9_in_the_middle_of_ingest(nats: Nats, tmp_path: Path) -> None:
    """Every block is stored exactly once, whenever the process dies; what it receipted before stays receipted."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stream, last = uuid4(), 1500
    gateway = Gateway(nats.port)
    gateway.send(catalog(), TOPICS.catalog, retain=True)
    over = threading.Event()
    until_killed = [last]
    """No block from here on is sent before the next kill: each comes in the middle."""

    def feed() -> None:
        """Sends a window of blocks above the last receipt again and again, as an agent does where receipts stay out."""
        sent = 0
        while not over.is_set():
            known = gateway.receipts.get(stream, 0)
            if sent >= min(known + 300, until_killed[0]):
                over.wait(0.2)
                if gateway.receipts.get(stream, 0) == known:
                    sent = known
                continue
            sent += 1
            gateway.send(block(stream, sent))
            time.sleep(0.001)

    with DataCenter(tmp_path / "datacenter", nats.url) as center:
        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        try:
            for round_ in range(4):
                target = round_ * 300 + chance.randrange(1, 250)
                until_killed[0] = (round_ + 1) * 300
                # NATS may wait for 30 s before it sends again what the killed one did not acknowledge.
                until(lambda target=target: gateway.receipts.get(stream, 0) >= target, 40.0)  # type: ignore[misc]
                time.sleep(chance.random() * 0.05)
                center.kill()
                promised = gateway.receipts[stream]
                assert promised < last, "it was killed in the middle"
                center.start()
                [account] = httpx.get(f"{center.url}/v1/streams", timeout=30.0).json()
                assert account["committed"] >= promised
            until_killed[0] = last
            until(lambda: gateway.receipts.get(stream) == last, 60.0)
        finally:
            over.set()
            feeder.join()
        asked = {"id": "88.1/press1.float64", "limit": "100000"}
        answer = httpx.get(f"{center.url}/v1/readings", params=asked, timeout=30.0).json()
        assert [row[1] for row in answer["readings"]] == [s + at / 10 for s in range(1, last + 1) for at in range(3)]
        [account] = httpx.get(f"{center.url}/v1/streams", timeout=30.0).json()
        assert (account["readings"], account["blocks"], account["holes"]) == (3 * last, last, [])
    gateway.close()


async def test_what_keeps_it_from_starting_is_said(tmp_path: Path) -> None:
    nowhere = "mqtt://127.0.0.1:1"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressInUse, match="http"):
        async with running(tmp_path, nowhere, http=f"127.0.0.1:{taken.getsockname()[1]}"):
            pass
    with pytest.raises(ValueError, match="host:port"):
        async with running(tmp_path, nowhere, http="8080"):
            pass
    with pytest.raises(ValueError, match="mqtt://"):
        async with running(tmp_path, "amqp://127.0.0.1"):
            pass
    (tmp_path / "headrace.duckdb").write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match="is not a store"):
        async with running(tmp_path, nowhere):
            pass
    assert issubclass(StoreError, HeadraceError)


async def test_every_type_is_in_the_catalog(tmp_path: Path) -> None:
    async with (
        running(tmp_path, "mqtt://127.0.0.1:1") as (url, _),
        httpx.AsyncClient(base_url=url, timeout=30.0) as client,
    ):
        assert (await client.get("/v1/catalog")).json() == []
        assert len(TAGS) == len(ValueType)
