"""How fast a backlog drains after an outage, through a real broker into a real data center, while live blocks go on.

One second of a plant at 1,000 readings/s is a block. The outage is compressed in time: its blocks are stored first,
then the broker is there, and from then on live blocks come once a second as they would. What counts is when a receipt
says that the data center has committed a block.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent import disk
from agent.budget import Limit
from agent.delivery import Delivery
from agent.outbox import Outbox
from agent.ranges import Ranges
from agent.uplink import Uplink
from agent.wire import Broker, Catalog, CatalogTag, Receipt, State, Topics, epoch_of
from benchmarks import walk
from benchmarks.result import Result, more
from benchmarks.walk import GROUP, RATE, TAGS, Plant
from tests.datacenter_rig import DataCenter
from tests.peers.brokers import Mosquitto

TOPICS = Topics("drain")
QUOTA = 4 << 30
TOLD_SECONDS = 30.0


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
    uneven: int
    """Blocks that do not have their readings, each once, in the store."""
    alike: bool
    """Whether the store's sums of every tag are the plant's."""
    disk_bytes: int
    """What the outbox took on the disk when all of the outage waited."""

    @property
    def readings_per_second(self) -> float:
        return self.outage * RATE / self.seconds


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


async def drain(
    home: Path, outage: int, limit: Limit | None = None, quota: int = QUOTA, say: Callable[[str], None] | None = None
) -> Drained:
    """An outage of so many seconds at 1,000 readings/s, then the broker is there.

    `quota` is the outbox's, in bytes; `say` is told every half minute how far it is.
    """
    say = say or (lambda _: None)
    catalog = Catalog(TOPICS.agent, tuple(CatalogTag(t.index, t.device, t.name, t.identifier, "float32") for t in TAGS))
    epoch = epoch_of(catalog.encode())
    outbox = await Outbox.open(home / "outbox.db", max_bytes=quota, when_full="drop_oldest")
    try:
        await outbox.keep_catalog(epoch, catalog.encode())
        plant = Plant(outbox, epoch)
        await _past(plant, outage, say)
        held, disk_bytes = outbox.facts()["bytes"], disk.room(outbox.path).occupied
        say(f"{outage} s wait in the outbox: {held} bytes of blocks, {disk_bytes} on the disk, quota {quota}")
        with Mosquitto(home / "broker") as broker, DataCenter(home / "center", broker.url) as center:
            watch = Watch(broker.port)
            uplink = Uplink(broker=Broker.parse(broker.url), client_id="headrace-drain")
            delivery = Delivery(
                uplink, TOPICS, outbox, lambda: State(True, outbox.stream, epoch), backlog=limit or Limit()
            )
            stop = asyncio.Event()
            cpu = _cpu()
            running = asyncio.create_task(delivery.run(stop))
            late, seconds = await _live(plant, outbox, delivery, watch, outage, say=say)
            cpu = _cpu() - cpu
            stop.set()
            await running
            watch.close()
            stored, holes = await asyncio.to_thread(_stored, center.url, outbox.stream)
            await asyncio.to_thread(center.stop)
        say(f"drained in {seconds:.0f} s; the store is read through")
        found, held_readings = await asyncio.to_thread(walk.sums, home / "center" / "store")
        alike = found == plant.sums() and held_readings == stored
        uneven = await asyncio.to_thread(walk.uneven, home / "center" / "store")
        dropped = outbox.facts()["dropped_readings"]
    finally:
        await outbox.close()
    return Drained(outage, seconds, held / 1e6, cpu, tuple(late), stored, holes, dropped, uneven, alike, disk_bytes)


async def _past(plant: Plant, outage: int, say: Callable[[str], None]) -> None:
    told = time.monotonic()
    while plant.seconds < outage:
        await plant.store(min(GROUP, outage - plant.seconds))
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            say(f"{plant.seconds} of {outage} s are stored")


async def _live(
    plant: Plant, outbox: Outbox, delivery: Delivery, watch: Watch, outage: int, *, say: Callable[[str], None]
) -> tuple[list[float], float]:
    """A live block each second until the backlog is gone. Returns how late each was, and how long all of it took."""
    while not delivery.facts()["connected"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    began = due = told = time.monotonic()
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
        if now - told > TOLD_SECONDS:
            told = now
            say(f"{watch.has.count(1, outage)} of {outage} s are drained after {now - began:.0f} s; "
                f"live blocks were at most {max(late, default=0):.2f} s late")  # fmt: skip
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
