"""What many streams cost a data center: `python -m benchmarks.streams`. Each sends one block a second, as agents do.

Real Mosquitto, real `headrace datacenter`, real blocks and states; only the agents are one MQTT client that publishes
for all of them, so that a small machine has room for hundreds. Of each number of streams it prints one line of JSON:
CPU of the data center for each block, blocks in a commit, and how late receipts were; then of a backlog that comes all
at once: CPU, and seconds until everything is confirmed.

`--tree PATH` measures the data center of another checkout beside this one's, in the same run and with the same load
(its `agent._native` must be built). CPU for each block hardly depends on what else the machine does; delays do.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent import _native
from agent.model import Tag, ValueType
from agent.wire import Catalog, CatalogTag, Receipt, State, Topics, epoch_of
from benchmarks.fleet import ROOT, Json, ended
from benchmarks.modbus import cpu_seconds
from tests.datacenter_rig import until
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port

STATE_EVERY = 5
"""Seconds between two states of an agent."""
SCANS = 4
"""Times in a block: those of four devices."""


@dataclass(slots=True)
class Source:
    """One stream: what an agent with so many float32 tags sends."""

    agent: str
    buffer: _native.Buffer
    catalog: bytes
    tags: int
    stream: UUID = field(default_factory=uuid4)
    sequence: int = 0

    @classmethod
    def of(cls, number: int, tags: int) -> Source:
        agent = f"agent{number:05d}"
        made = [Tag(at, f"d{at % SCANS}", f"v{at}", f"hr:{2 * at}", ValueType.FLOAT32, f"88.1/{agent}.v{at}")
                for at in range(tags)]  # fmt: skip
        told = (CatalogTag(t.index, t.device, t.name, t.identifier, t.type.value) for t in made)
        return cls(agent, _native.Buffer(made), Catalog(agent, tuple(told)).encode(), tags)

    def block(self) -> tuple[int, bytes]:
        """The next one, and its place in the stream."""
        self.sequence += 1
        now = time.time_ns()
        self.buffer.push([(at, now + at % SCANS, random.random() * 100, 0) for at in range(self.tags)])
        made = self.buffer.seal(
            stream=self.stream.bytes, sequence=self.sequence, epoch=epoch_of(self.catalog), sealed_ns=now
        )
        assert made is not None
        return self.sequence, made.data

    def state(self) -> bytes:
        facts = {"accepted": self.sequence * self.tags, "outbox": {"entries": 1}}
        return State(True, self.stream, epoch_of(self.catalog), facts).encode()


class Center:
    """`headrace datacenter` of a checkout, for a topic root of its own."""

    def __init__(self, tree: Path, home: Path, broker: str, root: str, mqtt: str) -> None:
        home.mkdir(parents=True)
        self.tree, self.root = tree, root
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}"
        config = home / "center.toml"
        uplink = f'[uplink]\nurl = "{broker}"\nroot = "{root}"\nmqtt = "{mqtt}"\n'
        config.write_text(f'{uplink}[datacenter]\nstore = "{home / "store"}"\nhttp = "{address}"\n')
        command = [sys.executable, "-m", "headrace", "--log-level", "warning", "datacenter", str(config)]
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=tree, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/healthz", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def sample(self) -> Json:
        counted = httpx.get(f"{self._url}/v1/summary", timeout=60).json()
        return {"cpu": cpu_seconds(self.process.pid), "blocks": counted["stored_blocks"], "commits": counted["commits"]}


class Line:
    """The one connection of all agents, and when each block was sent and confirmed."""

    def __init__(self, port: int, roots: Sequence[str]) -> None:
        self.late: dict[str, list[float]] = {root: [] for root in roots}
        self._sent: dict[tuple[str, UUID], dict[int, float]] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_queued_messages_set(0)
        self._client.on_connect = lambda client, *_: client.subscribe([(f"{root}/+/receipts", 0) for root in roots])
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(self._client.is_connected)

    @property
    def waiting(self) -> int:
        return sum(map(len, list(self._sent.values())))

    def data(self, root: str, source: Source, sequence: int, body: bytes) -> None:
        self._sent.setdefault((root, source.stream), {})[sequence] = time.monotonic()
        self._client.publish(Topics(source.agent, root).data, body, qos=1)

    def catalog(self, root: str, source: Source) -> None:
        self._client.publish(Topics(source.agent, root).catalog, source.catalog, qos=1, retain=True)

    def state(self, root: str, source: Source) -> None:
        self._client.publish(Topics(source.agent, root).state, source.state(), qos=1, retain=True)

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        now = time.monotonic()
        root = message.topic.rsplit("/", 2)[0]
        receipt = Receipt.decode(bytes(message.payload))
        sent = self._sent.get((root, receipt.stream), {})
        for place in [place for place in list(sent) if place <= receipt.committed]:
            self.late[root].append(now - sent.pop(place))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def live(line: Line, centers: Sequence[Center], sources: Sequence[Source], seconds: float) -> Iterator[Json]:
    """A block of each stream a second, at a moment of its own."""
    chance = random.Random(7)
    due = sorted((chance.random(), number) for number in range(len(sources)))
    _second(line, centers, sources, due, 0)
    for late in line.late.values():
        late.clear()
    before = [center.sample() for center in centers]
    for second in range(1, 1 + round(seconds)):
        _second(line, centers, sources, due, second)
    until(lambda: not line.waiting, 60)
    for center, first in zip(centers, before, strict=True):
        late = sorted(line.late[center.root])
        found = _between(center, first, center.sample())
        delays = {f"receipt_ms_p{part}": round(1000 * late[len(late) * part // 100], 1) for part in (50, 99)}
        yield {"streams": len(sources), **found, **delays}


def _second(
    line: Line, centers: Sequence[Center], sources: Sequence[Source], due: Sequence[tuple[float, int]], second: int
) -> None:
    began = time.monotonic()
    for when, number in due:
        time.sleep(max(0.0, began + when - time.monotonic()))
        source = sources[number]
        block = source.block()
        for center in centers:
            line.data(center.root, source, *block)
            if (second + number) % STATE_EVERY == 0:
                line.state(center.root, source)
    time.sleep(max(0.0, began + 1.0 - time.monotonic()))


def backlog(line: Line, centers: Sequence[Center], sources: Sequence[Source], blocks: int) -> Iterator[Json]:
    """So many blocks of each stream at once, the same for one data center after the other."""
    bodies = [(source, *source.block()) for _ in range(blocks) for source in sources]
    for center in centers:
        before, began = center.sample(), time.monotonic()
        for source, sequence, body in bodies:
            line.data(center.root, source, sequence, body)
        until(lambda: not line.waiting, 300)
        took = time.monotonic() - began
        yield {"streams": len(sources), "backlog": len(bodies), **_between(center, before, center.sample()),
               "seconds": round(took, 2)}  # fmt: skip


def _between(center: Center, before: Json, after: Json) -> Json:
    blocks = after["blocks"] - before["blocks"]
    return {
        "tree": str(center.tree),
        "blocks": blocks,
        "cpu_ms_per_block": round((after["cpu"] - before["cpu"]) / max(1, blocks) * 1000, 2),
        "blocks_per_commit": round(blocks / max(1, after["commits"] - before["commits"]), 1),
    }


def measure(
    trees: Sequence[Path],
    streams: int,
    *,
    tags: int = 240,
    seconds: float = 20.0,
    waiting: int = 10,
    mqtt: str = "auto",
    window: int = 20,
) -> Iterator[Json]:
    """One number of streams. `waiting` are the blocks of each in the backlog, `window` Mosquitto's max_inflight."""
    with ExitStack() as parts:
        home = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="headrace-streams-", dir=ROOT / "target")))
        settings = (f"max_inflight_messages {window}", "max_queued_messages 0")
        broker = parts.enter_context(Mosquitto(home / "broker", persistence=False, settings=settings))
        centers = []
        for at, tree in enumerate(trees):
            centers.append(Center(tree, home / f"center{at}", broker.url, f"streams/v{at}", mqtt))
            parts.enter_context(ended(centers[-1].process))
        for center in centers:
            until(center.ready, 60)
        line = Line(broker.port, [center.root for center in centers])
        parts.callback(line.close)
        sources = [Source.of(number, tags) for number in range(streams)]
        for source in sources:
            block = source.block()
            for center in centers:
                line.catalog(center.root, source)
                line.data(center.root, source, *block)
        until(lambda: not line.waiting, 120)
        yield from live(line, centers, sources, seconds)
        if waiting:
            yield from backlog(line, centers, sources, waiting)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams")
    parser.add_argument("--streams", default="10,50,100", help="numbers of streams, each measured anew (%(default)s)")
    parser.add_argument("--tree", type=Path, action="append", default=[], help="another checkout, beside this one")
    parser.add_argument("--tags", type=int, default=240, help="readings in a block (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of live blocks (%(default)s)")
    parser.add_argument("--backlog", type=int, default=10, help="blocks of each stream at once (%(default)s)")
    parser.add_argument("--mqtt", default="auto", help="of the data center: auto, 5 or 3.1.1")
    parser.add_argument("--window", type=int, default=20, help="Mosquitto's max_inflight_messages (%(default)s)")
    asked = parser.parse_args()
    trees = [ROOT, *(tree.resolve() for tree in asked.tree)]
    for streams in map(int, asked.streams.split(",")):
        for found in measure(
            trees,
            streams,
            tags=asked.tags,
            seconds=asked.seconds,
            waiting=asked.backlog,
            mqtt=asked.mqtt,
            window=asked.window,
        ):
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
