"""What the tests of the line to the broker share: a small data center, and a delivery that runs for a while."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID, uuid4

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import _native
from agent.delivery import Delivery
from agent.outbox import Outbox
from agent.piece import MAGIC, Assembly
from agent.ranges import Ranges
from agent.uplink import Uplink
from agent.wire import Broker, Receipt, State, Topics
from tests.peers.brokers import Broker as BrokerPeer
from tests.test_outbox import block

TOPICS = Topics("press-shop-1")


class Center:
    """A plain MQTT subscriber that answers blocks with receipts, as a data center does."""

    def __init__(self, broker: BrokerPeer, *, answering: bool = True, selective: bool = True) -> None:
        self.answering = answering
        self.selective = selective
        self.places: list[int] = []
        self.readings: dict[int, int] = {}
        self.gaps: dict[int, int] = {}
        self.catalogs: list[tuple[bytes, bool]] = []
        self.states: list[tuple[State, bool]] = []
        self.committed = 0
        self.has = Ranges()
        self.deaf_to: set[int] = set()
        self.unheard = 0
        """Blocks that came and that it is deaf to."""
        self.pieces = 0
        self.assembly = Assembly()
        self.stream: UUID | None = None
        self._subscribed = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"center-{uuid4()}")
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe(f"{TOPICS.root}/+/#", 1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self._subscribed.wait(30.0)

    def __enter__(self) -> Center:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # Else the client is in a cycle, and its sockets wait for the garbage collector.
        self.client.on_connect = self.client.on_subscribe = self.client.on_message = None

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        payload = bytes(message.payload)
        match Topics.parse(message.topic)[1]:
            case "data":
                if payload.startswith(MAGIC):
                    self.pieces += 1
                    whole = self.assembly.add("a", payload)
                    if whole is None:
                        return
                    payload = whole
                header = _native.header(payload)
                if header.sequence in self.deaf_to:
                    self.unheard += 1
                    return
                self.stream = UUID(bytes=header.stream)
                self.places.append(header.sequence)
                (self.gaps if header.kind == "gap" else self.readings)[header.sequence] = header.readings
                self.has.add(header.sequence, header.last_sequence)
                (first, last), *_ = self.has
                self.committed = last if first == 1 else 0
                if self.answering:
                    self.receipt()
            case "catalog":
                self.catalogs.append((payload, message.retain))
            case "state":
                self.states.append((State.decode(payload), message.retain))

    def receipt(self) -> None:
        assert self.stream is not None
        self.say(TOPICS.receipts, Receipt(self.stream, self.committed, self.beyond()).encode())

    def beyond(self) -> tuple[tuple[int, int], ...]:
        return tuple(span for span in self.has if span[0] > self.committed) if self.selective else ()

    def say(self, topic: str, body: bytes) -> None:
        self.client.publish(topic, body, qos=1)


def uplink(broker: BrokerPeer, mqtt: Literal["auto", "5", "3.1.1"] = "auto") -> Uplink:
    return Uplink(broker=Broker.parse(broker.url), client_id="headrace-press-shop-1", mqtt=mqtt)


@asynccontextmanager
async def delivering(line: Uplink | list[Uplink], outbox: Outbox, **settings: Any) -> AsyncIterator[Delivery]:
    epoch = outbox.newest_epoch
    delivery = Delivery(line, TOPICS, outbox, lambda: State(True, outbox.stream, epoch, {"pid": 1}), **settings)
    stop = asyncio.Event()
    running = asyncio.create_task(delivery.run(stop))
    try:
        yield delivery
    finally:
        stop.set()
        began = time.monotonic()
        await running
        assert time.monotonic() - began < 15.0, "did not stop in time"  # 2 s, and what a busy machine adds


async def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        await asyncio.sleep(0.02)


async def append(outbox: Outbox, count: int, readings: int = 10, epoch: int = 7) -> None:
    for _ in range(count):
        await outbox.append(block(outbox, readings), epoch)


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.__dict__.get("event") == event]
