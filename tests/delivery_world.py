"""A world of one agent, one broker and one data center on virtual time, whose faults come from a seed.

Real are the intake and the core, the pipeline, the outbox with its SQLite file, and delivery. The line, the broker and
the data center are models of what they do at their worst: a broker that forgets, doubles and reorders, receipts that
are lost, a data center that goes away or loses its store. The oracle knows every reading that was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from agent import _native, config, tables, traffic
from agent.budget import Limit
from agent.collectors.base import Inlet
from agent.config import Config, Device
from agent.delivery import Delivery
from agent.errors import NotConnected, Rejected
from agent.gate import Gate
from agent.outbox import MIN_BYTES, Outbox
from agent.piece import MAGIC, Assembly
from agent.pipeline import Pipeline
from agent.uplink import HungUp, Then, Uplink
from agent.wire import MOST_BEYOND, Broker, Receipt, State, Topics
from datacenter.places import Places

TOPICS = Topics("sim")
TAGS = 4
BEGIN_NS = 1_750_000_000_000_000_000


class Crashed(BaseException):
    """The process of this outbox is gone."""


class Disk:
    """One connection to SQLite, called instead of asked, that a crash ends."""

    def __init__(self, path: Path, failing: Callable[[], bool]) -> None:
        self.alive = True
        self._failing = failing
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0, check_same_thread=False)

    @property
    def in_transaction(self) -> bool:
        return self.alive and self._db.in_transaction

    async def execute_fetchall(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        if not self.alive:
            raise Crashed
        if sql.startswith(("BEGIN", "COMMIT")) and self._failing():
            reason = sqlite3.OperationalError("disk I/O error")
            reason.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise reason
        return self._db.execute(sql, parameters).fetchall()

    async def close(self) -> None:
        self.alive = False
        self._db.close()

    def crash(self) -> None:
        if not self.alive:
            return
        self.alive = False
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.close()


class SimOutbox(Gate):
    """The outbox, on a disk that a crash can take away."""

    crashed = False
    disk: Disk | None = None
    failing = False
    """Whether its disk takes no writes now."""

    async def _connect(self) -> Any:
        if self.crashed:
            raise Crashed
        self.disk = Disk(self.path, lambda: self.failing)
        return self.disk

    def crash(self) -> None:
        self.crashed = True
        if self.disk is not None:
            self.disk.crash()
        self._contents.session.lock.release()


class Readings:
    """What was read: every reading has a value of its own."""

    def __init__(self) -> None:
        self.next = 0
        self.committed: set[int] = set()
        self.times: dict[int, int] = {}

    def take(self, count: int, now: int) -> list[tuple[int, int, float, int]]:
        """Rows as the intake takes them, from `now` on (ns)."""
        taken = range(self.next, self.next + count)
        self.next += count
        rows = [(number % TAGS, now + at, float(number), 0) for at, number in enumerate(taken)]
        self.times |= {int(value): time_ns for _, time_ns, value, _ in rows}
        return rows


class SimCollector:
    """Reads a few tags again and again; notes what is durable."""

    def __init__(self, world: World, device: Device, inlet: Inlet) -> None:
        self.device = device
        self.counters: dict[str, int] = {}
        self._world, self._inlet = world, inlet
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self) -> None:
        world = self._world
        await asyncio.sleep(world.poll)
        if world.quiet:
            return
        now = BEGIN_NS + int(asyncio.get_running_loop().time() * 1e9)
        rows = world.readings.take(world.burst, now)
        assert self._inlet.push(rows) == len(rows)
        taken = {int(value) for _, _, value, _ in rows}
        self._tasks = {task for task in self._tasks if not task.done()} | {asyncio.create_task(self._commit(taken))}

    async def _commit(self, taken: set[int]) -> None:
        await self._inlet.durable()
        self._world.readings.committed |= taken


class SimUplink(Uplink):
    """A line to the model broker. What is on its way when it breaks may or may not arrive."""

    def __init__(self, world: World) -> None:
        super().__init__(broker=Broker("broker", 1883), client_id="sim", inflight=world.inflight)
        self._world = world
        self.number = 0  # of the connection; 0 where there is none
        self._hear: Callable[[str, bytes], None] = lambda *_: None
        self._wake: Callable[[], None] = lambda: None
        self._free_at = 0.0

    @property
    def protocol(self) -> str:
        return "5" if self.number else ""

    async def connect(
        self,
        *,
        will: tuple[str, bytes],
        subscribe: list[str],
        hear: Callable[[str, bytes], None],
        wake: Callable[[], None],
    ) -> None:
        world = self._world
        await asyncio.sleep(world.latency())
        if not world.broker_up:
            raise NotConnected("nobody there")
        world.connections += 1
        self.number, self._hear, self._wake = world.connections, hear, wake
        self._free_at = asyncio.get_running_loop().time()

    def check(self) -> None:
        if not self.number:
            raise HungUp("the line is lost")

    async def check_credentials(self) -> None: ...

    async def last_word(self, reason: NotConnected) -> NotConnected:
        return reason

    async def answers(self) -> bool:
        return self._world.broker_up

    def room(self, topic: str) -> int:
        return self._world.room

    def send(self, topic: str, body: bytes, *, retain: bool = False, then: Then | None = None) -> None:
        if not self.number:
            raise NotConnected("there is no connection")
        if len(body) > self._world.room and topic == TOPICS.data:
            raise Rejected("too large")
        loop, world, number = asyncio.get_running_loop(), self._world, self.number
        # One after the other, at what the line carries.
        self._free_at = max(self._free_at, loop.time()) + len(body) / world.line_bytes
        loop.call_at(self._free_at + world.latency(), self._arrive, number, topic, body, then)

    def _arrive(self, number: int, topic: str, body: bytes, then: Then | None) -> None:
        world = self._world
        alive = number == self.number and world.broker_up
        if alive or (world.broker_up and world.chance(0.5)):
            world.publish(topic, body)
        if alive and world.chance(world.lost_pubacks):
            self.cut()  # nothing is lost on a line that goes on
        elif alive:
            asyncio.get_running_loop().call_later(world.latency(), self._puback, number, then)

    def _puback(self, number: int, then: Then | None) -> None:
        if number == self.number and then is not None:
            then(None)

    def hear(self, topic: str, body: bytes) -> None:
        if self.number:
            self._hear(topic, body)

    def cut(self) -> None:
        self.number = 0
        self._wake()

    async def close(self) -> None:
        self.number = 0


class Store:
    """What the data center has of one stream."""

    def __init__(self) -> None:
        self.places = Places()
        self.blocks: dict[int, bytes] = {}
        self.gaps: list[tuple[int, int, int, int, int, str]] = []

    def take(self, body: bytes) -> None:
        header = _native.header(body)
        first, last = header.sequence, header.last_sequence
        if header.kind == "gap":
            if self.places.missing(first, last):
                self.gaps.append((first, last, header.readings, header.first_ns, header.last_ns, header.reason))
                self.places.fill(first, last)
            return
        known = self.blocks.get(first)
        assert known is None or known == body, f"place {first} came with two meanings"
        self.blocks[first] = body
        self.places.fill(first, last)


class World:
    """Everything around the agent, and the agent."""

    def __init__(self, seed: int, home: Path) -> None:
        self.seed = seed
        self.random = chance = random.Random(seed)
        self.home = home
        self.readings = Readings()
        self.quiet = False
        self.poll = chance.choice([0.5, 1.0])
        self.burst = chance.choice([1, 3, 20])
        self.inflight = chance.choice([4, 32])
        self.window = chance.choice([16, 256])
        self.few = chance.choice([4, 32])
        self.room = chance.choice([150, 1 << 28, 1 << 28])
        self.line_bytes = chance.choice([2_000, 1_000_000])
        self.limit = chance.choice([Limit(), Limit(share=0.5), Limit(bytes=1000)])
        self.quota = chance.choice([MIN_BYTES, 16 << 20])
        self.lost_pubacks = chance.choice([0.0, 0.05])
        self.lost_messages = chance.choice([0.0, 0.0, 0.1])
        self.doubled = chance.choice([0.0, 0.1])
        self.broker_up = True
        self.center_up = True
        self.connections = 0
        self.queue: list[tuple[str, bytes]] = []
        self.stores: dict[UUID, Store] = {}
        self.given_up: set[int] = set()
        self.told: list[str] = []
        self._assembly = Assembly()
        self.uplink: SimUplink
        self.pipeline: Pipeline
        self.outbox: SimOutbox | None = None
        self.delivery: Delivery
        self._agent: asyncio.Task[None] | None = None
        self.config = self._config()

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def latency(self) -> float:
        return self.random.uniform(0.005, 0.2)

    def _config(self, description: str = "") -> Config:
        rows = [f"t{at},hr:{4 * at},float64,ABCD,{description}" for at in range(TAGS)]
        (self.home / "press.csv").write_text("\n".join(["name,address,type,order,description", *rows]) + "\n")
        path = self.home / "agent.toml"
        path.write_text(
            f'[agent]\nid = "sim"\ndata_dir = "./agent"\n[outbox]\nmax_bytes = {self.quota}\n[uplink]\n'
            '[[device]]\nname = "press"\nprotocol = "modbus"\nurl = "tcp://127.0.0.1:502"\ntags = "press.csv"\n'
        )
        return config.load(path)

    # The broker.

    def publish(self, topic: str, body: bytes) -> None:
        """The broker has taken a message: now it is supposed to keep it."""
        if self.chance(self.lost_messages):
            return
        at = len(self.queue)
        if self.queue and self.chance(self.doubled):
            at = self.random.randrange(len(self.queue))  # put in among older ones
        self.queue.insert(at, (topic, body))
        if self.chance(self.doubled):
            self.queue.append((topic, body))

    async def center(self) -> None:
        """The data center: takes what waits, commits it, says so."""
        while True:
            await asyncio.sleep(self.random.uniform(0.05, 0.4))
            if not (self.center_up and self.broker_up) or not self.queue:
                continue
            batch, self.queue = self.queue[:64], self.queue[64:]
            streams = {stream for topic, body in batch for stream in self._take(topic, body)}
            self.say(streams)

    def _take(self, topic: str, body: bytes) -> set[UUID]:
        word = Topics.parse(topic)[1]
        if word == "state":
            state = State.decode(body)
            return {state.stream} if state.online and state.stream else set()
        if word != "data":
            return set()
        if body.startswith(MAGIC):
            whole = self._assembly.add("sim", body)
            if whole is None:
                return set()
            body = whole
        stream = UUID(bytes=_native.header(body).stream)
        self.stores.setdefault(stream, Store()).take(body)
        return {stream}

    def say(self, streams: set[UUID]) -> None:
        for stream in sorted(streams):
            places = self.stores.setdefault(stream, Store()).places
            receipt = Receipt(stream, places.committed, tuple(places.islands[:MOST_BEYOND]))
            if self.broker_up and not self.chance(self.lost_messages):
                asyncio.get_running_loop().call_later(
                    self.latency(), self.uplink.hear, TOPICS.receipts, receipt.encode()
                )

    # Faults.

    def cut(self) -> None:
        self.uplink.cut()

    def broker_away(self) -> None:
        self.broker_up = False
        self.uplink.cut()

    def broker_back(self) -> None:
        self.broker_up = True

    def broker_forgets(self) -> None:
        self.queue.clear()
        self.uplink.cut()

    def session_ends(self) -> None:
        """The broker forgets what waits for the data center, and the agent is told nothing."""
        self.queue.clear()

    def center_away(self) -> None:
        self.center_up = False

    def center_back(self) -> None:
        if not self.center_up:
            self.center_up = True
            self.say(set(self.stores))

    def center_forgets(self) -> None:
        """Its store is gone. What it had is not the agent's to bring back, but it must be told that it is missing."""
        for store in self.stores.values():
            for body in store.blocks.values():
                self.given_up |= values(body)
        self.stores.clear()

    def disk_fails(self) -> None:
        """Nothing can be written; what was can still be read."""
        assert self.outbox is not None
        self.outbox.failing = True

    def disk_works(self) -> None:
        assert self.outbox is not None
        self.outbox.failing = False

    def tags_change(self) -> None:
        """A new catalog, and so a new epoch."""
        assert self.pipeline.reload(self._config(f"at {asyncio.get_running_loop().time():.3f}")) == []

    async def crash(self) -> None:
        """kill -9, and a new start after a while."""
        self.uplink.cut()
        assert self.outbox is not None
        self.outbox.crash()
        await self._end()
        await asyncio.sleep(self.random.uniform(0.0, 5.0))
        await self.start()

    async def start(self) -> None:
        self.uplink = SimUplink(self)
        self.pipeline = Pipeline(
            self.config,
            collect=lambda devices, inlet: [SimCollector(self, device, inlet) for device in devices],
            open_outbox=self._open,
            deliver=self._deliver,
        )
        ready = asyncio.Event()
        self._agent = asyncio.create_task(self.pipeline.run(asyncio.Event(), ready=ready.set))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([waiting, self._agent], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._agent.done():
            self._agent.result()

    async def _open(self, path: Path, **settings: Any) -> Outbox:
        self.outbox = cast("SimOutbox", await SimOutbox.open(path, **settings))
        return self.outbox

    def _deliver(
        self, found: Config, outbox: Outbox, state: Callable[[], State], table: tables.Uplink | None
    ) -> Delivery:
        del found, table
        loop = asyncio.get_running_loop()
        self.delivery = Delivery(
            self.uplink, TOPICS, outbox, state, backlog=self.limit, window=self.window, clock=loop.time
        )
        return self.delivery

    async def _end(self) -> None:
        assert self._agent is not None
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine and task not in self._kept]
        for task in others:
            task.cancel()
        with contextlib.suppress(Crashed):
            await asyncio.gather(*others, return_exceptions=True)

    async def live(self, seconds: float) -> None:
        """Faults for so long, then peace until everything is delivered, then judgement."""
        traffic.FEW = self.few
        center = asyncio.create_task(self.center())
        self._kept = {center}
        await self.start()
        loop = asyncio.get_running_loop()
        faults: list[tuple[float, Callable[[], Any]]] = [
            (6.0, self.cut),
            (3.0, self.broker_away),
            (4.0, self.broker_back),
            (2.0, self.broker_forgets),
            (2.0, self.session_ends),
            (2.0, self.center_away),
            (4.0, self.center_back),
            (0.4, self.center_forgets),
            (2.0, self.crash),
            (1.0, self.disk_fails),
            (2.0, self.disk_works),
            (1.0, self.tags_change),
        ]
        while loop.time() < seconds:
            await asyncio.sleep(self.random.choice([0.1, 1.0, 10.0, 30.0]) * self.random.random())
            [fault] = self.random.choices([each for _, each in faults], [weight for weight, _ in faults])
            self.told.append(f"{loop.time():.1f} {fault.__name__}")
            done = fault()
            if done is not None:
                await done
        self.broker_up = True
        self.center_back()
        self.disk_works()
        self.lost_messages = self.lost_pubacks = 0.0
        await asyncio.sleep(3.0)
        self.quiet = True
        await self._settle(loop.time() + 1200.0)
        center.cancel()
        self.judge()
        assert self.outbox is not None
        self.outbox.crash()
        self._kept = set()
        await self._end()

    async def relabelled(self) -> None:
        """A life without readings, in which the tags change while the disk takes no writes."""
        self.quiet, self._kept = True, set()
        await self.start()
        await asyncio.sleep(2.0)
        assert self.outbox is not None
        assert self._agent is not None
        before = self.outbox.newest_epoch
        self.disk_fails()
        self.tags_change()
        await asyncio.sleep(5.0)
        assert not self._agent.done(), "the agent ended"
        assert self.outbox.newest_epoch == before
        self.disk_works()
        await asyncio.sleep(5.0)
        assert self.outbox.newest_epoch != before
        self.outbox.crash()
        await self._end()

    async def _settle(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        outbox = self.outbox
        assert outbox is not None
        while outbox.facts()["entries"] or len(self.readings.committed) == 0:
            assert self._agent is not None
            if self._agent.done():
                self._agent.result()
            waits = outbox.facts(), self.delivery.facts()
            assert loop.time() < deadline, f"not delivered in time: {waits}"
            await asyncio.sleep(1.0)
        await asyncio.sleep(10.0)  # a data center that forgot what it had confirmed is told a moment later

    # The oracle.

    def judge(self) -> None:
        """Every committed reading is there exactly once, or a gap names it."""
        found: dict[int, int] = {}
        for store in self.stores.values():
            assert store.places.islands == [], f"places are missing: {store.places.holes}"
            for body in store.blocks.values():
                for value in values(body):
                    found[value] = found.get(value, 0) + 1
        doubled = sorted(value for value, times in found.items() if times > 1)
        assert not doubled, f"stored twice: {doubled[:10]}"
        missing = self.readings.committed - found.keys() - self.given_up
        named = sum(gap[2] for store in self.stores.values() for gap in store.gaps)
        assert len(missing) <= named, f"{len(missing)} are missing, {named} are named: {sorted(missing)[:10]}"
        spans = [(gap[3], gap[4]) for store in self.stores.values() for gap in store.gaps if gap[2]]
        for value in missing:
            at = self.readings.times[value]
            assert any(first <= at <= last for first, last in spans), f"no gap names reading {value}"


def values(body: bytes) -> set[int]:
    """The values of a block that stand for readings of ours."""
    return {int(value) for _, _, value, _ in _native.decode(body).rows() if isinstance(value, float)}
