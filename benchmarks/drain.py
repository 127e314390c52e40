"""How fast a backlog drains after an outage, through a real broker into a real data center, while live blocks go on.

One second of a plant at 1,000 readings/s is a block. The outage is compressed in time: its blocks are stored first,
then the broker is there, and from then on live blocks come once a second as they would. What counts is when a receipt
says that the data center has committed a block.
"""

from __future__ import annotations

import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent import _native
from agent.budget import Limit
from agent.delivery import Delivery
from agent.model import Tag, ValueType
from agent.outbox import Outbox
from agent.ranges import Ranges
from agent.uplink import Uplink
from agent.wire import Broker, Catalog, CatalogTag, Receipt, State, Topics, epoch_of
from benchmarks.result import Result, more
from tests.datacenter_rig import DataCenter
from tests.peers.brokers import Mosquitto

TOPICS = Topics("drain")
TAGS = [Tag(at, "press", f"t{at}", f"hr:{2 * at}", ValueType.FLOAT32, f"88.1/press.t{at}") for at in range(50)]
SCANS = 20
"""Of every tag in a second: 1,000 readings."""
RATE = SCANS * len(TAGS)
BEGIN = 1_750_000_000_000_000_000
QUOTA = 4 << 30


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain took. `late` are the seconds from a live block's append to its receipt."""

    outage: int
    seconds: float
    megabytes: float
    cpu_seconds: float
    late: tuple[float, ...]
    stored: int
    holes: int
    dropped: int

    @property
    def readings_per_second(self) -> float:
        return self.outage * RATE / self.seconds


class Plant:
    """Seals a second of readings at a time: random walks, as a PLC rounds them."""

    def __init__(self, outbox: Outbox, epoch: int) -> None:
        self._outbox, self._epoch = outbox, epoch
        self._buffer = _native.Buffer(TAGS)
        self._chance = random.Random(7)
        self._values = [20.0] * len(TAGS)
        self._second = 0

    def block(self, sequence: int) -> _native.Block:
        for scan in range(SCANS):
            at = BEGIN + self._second * 10**9 + scan * 10**9 // SCANS
            self._values = [round(value + self._chance.gauss(0, 0.05), 2) for value in self._values]
            self._buffer.push([(tag, at, value, 0) for tag, value in enumerate(self._values)])
        self._second += 1
        sealed = self._buffer.seal(stream=self._outbox.stream.bytes, sequence=sequence, epoch=self._epoch)
        assert sealed is not None
        return sealed

    async def store(self, seconds: int) -> None:
        """Stores so many seconds, a commit for every 64."""
        while seconds:
            group = min(64, seconds)
            first = self._outbox.next_sequence
            blocks = [self.block(first + at) for at in range(group)]
            await asyncio.gather(*(self._outbox.append(block, self._epoch) for block in blocks))
            seconds -= group


class Watch:
    """Hears the receipts, beside the agent."""

    def __init__(self, port: int) -> None:
        self.has = Ranges()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="watch")
        self._client.on_connect = lambda client, *_: client.subscribe(TOPICS.receipts, 1)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        receipt = Receipt.decode(bytes(message.payload))
        has = self.has.copy()
        has.add(1, receipt.committed)
        for first, last in receipt.beyond:
            has.add(first, last)
        self.has = has

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


async def drain(home: Path, outage: int, limit: Limit | None = None) -> Drained:
    """An outage of so many seconds at 1,000 readings/s, then the broker is there."""
    catalog = Catalog(TOPICS.agent, tuple(CatalogTag(t.index, t.device, t.name, t.identifier, "float32") for t in TAGS))
    epoch = epoch_of(catalog.encode())
    outbox = await Outbox.open(home / "outbox.db", max_bytes=QUOTA, when_full="drop_oldest")
    try:
        await outbox.keep_catalog(epoch, catalog.encode())
        plant = Plant(outbox, epoch)
        await plant.store(outage)
        held = outbox.facts()["bytes"]
        with Mosquitto(home / "broker") as broker, DataCenter(home / "center", broker.url) as center:
            watch = Watch(broker.port)
            uplink = Uplink(broker=Broker.parse(broker.url), client_id="headrace-drain")
            delivery = Delivery(
                uplink, TOPICS, outbox, lambda: State(True, outbox.stream, epoch), backlog=limit or Limit()
            )
            stop = asyncio.Event()
            cpu = _cpu()
            running = asyncio.create_task(delivery.run(stop))
            late, seconds = await _live(plant, outbox, delivery, watch, outage)
            cpu = _cpu() - cpu
            stop.set()
            await running
            watch.close()
            stored, holes = await asyncio.to_thread(_stored, center.url, outbox.stream)
        dropped = outbox.facts()["dropped_readings"]
    finally:
        await outbox.close()
    return Drained(outage, seconds, held / 1e6, cpu, tuple(late), stored, holes, dropped)


async def _live(
    plant: Plant, outbox: Outbox, delivery: Delivery, watch: Watch, outage: int
) -> tuple[list[float], float]:
    """A live block each second until the backlog is gone. Returns how late each was, and how long all of it took."""
    while not delivery.facts()["connected"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    began = due = time.monotonic()
    waiting: dict[int, float] = {}
    late: list[float] = []
    gone = 0.0
    while not gone or waiting:
        now = time.monotonic()
        if now >= due and not gone:
            due += 1.0
            await plant.store(1)
            delivery.wake()
            waiting[outbox.last] = now
        late += [now - waiting.pop(place) for place in list(waiting) if place in watch.has]
        if not gone and watch.has.count(1, outage) == outage:
            gone = now - began
        assert now - began < 120 + outage / 10, f"not drained: {delivery.facts()}"
        await asyncio.sleep(0.01)
    return late, gone


def _stored(url: str, stream: UUID) -> tuple[int, int]:
    """Readings and holes of the stream, as the data center says."""
    [found] = [each for each in httpx.get(f"{url}/v1/streams").json() if each["stream"] == str(stream)]
    return int(found["readings"]), len(found["holes"])


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def results(outage: int = 3600) -> Iterator[Result]:
    """Against the live rate that the plant has: how many times as fast the past is brought in."""
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(drain(Path(home), outage))
    name = f"drain of {outage / 3600:g} h at {RATE} readings/s"
    yield from more(name, found.readings_per_second, "readings/s", **{"the live rate": float(RATE)})
    rate = found.megabytes / found.seconds
    yield from more(f"{name}, bytes", rate, "MB/s", **{"what the plant makes": found.megabytes / outage})
    cost = found.cpu_seconds / (outage * RATE) * 1e9
    yield Result(
        f"{name}, CPU of the agent",
        float(f"{cost:.4g}"),
        "ns/reading",
        "the time a live reading has",
        1e9 / RATE / cost,
    )
    latest = max(found.late)
    yield Result(f"{name}, latest live block", float(f"{latest:.4g}"), "s", "2 s", float(f"{2 / latest:.4g}"))
