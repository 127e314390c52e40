"""The agent: the only place where its parts meet.

    collectors -> Intake (the core's buffer) -> seal -> Outbox -> Uplink

A reading is accepted when the core's buffer took it. It is safe when its block is committed in the outbox, at most
`seal.after` later. What a crash can lose is what was accepted and not yet sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent import _native, clock
from agent.clock import Look
from agent.collectors import collectors
from agent.collectors.base import Collector, DeviceState, Inlet, supervise
from agent.config import Config, Device
from agent.delivery import Delivery
from agent.doubts import MARK, Doubts
from agent.errors import OutboxFull
from agent.findings import uplinks
from agent.gate import Gate
from agent.intake import Intake
from agent.lanes import Deliver, Lane, Lanes
from agent.ledgers import Ledgers
from agent.lookup import Lookup
from agent.outbox import Outbox
from agent.policy import Policy
from agent.reload import changes, needs_restart
from agent.split import Group, Split

log = logging.getLogger("headrace.agent")

RETRY = 0.5
"""Seconds between attempts to store a block that the outbox has no room for."""
STOPPED = "collection stopped: the outbox is full"
REFUSED = "readings refused: the buffer was full"


class Pipeline:
    """One running agent. `run` is its life; `facts` may be asked at any time in between."""

    def __init__(
        self,
        config: Config,
        *,
        collect: Callable[[Sequence[Device], Inlet], list[Collector]] = collectors,
        open_outbox: Callable[..., Awaitable[Outbox]] = Gate.open,
        deliver: Deliver = Delivery.of,
    ) -> None:
        """`collect`, `open_outbox` and `deliver` make the parts: others are for simulations."""
        self._config = config
        self._intake = Intake(config.tags, config.seal.bytes)
        self._lanes = Lanes(config, open_outbox, deliver)
        self._ledgers = Ledgers()
        self._lookup = Lookup(config, self._ledgers.configured)
        self._stale = asyncio.Event()
        self._asked: tuple[Split, Policy] | None = None
        self._collectors: list[tuple[Collector, DeviceState]] = [
            (each, DeviceState(each.device.name, counters=each.counters))
            for each in collect(config.devices, self._intake)
        ]
        self._reloaded = False
        self._refused = 0
        self._clock = clock.GATEWAY
        self._clock.begin(trusted=config.agent.clock == "trusted")
        self._doubts = Doubts(clock.boot())
        self._corrections = 0
        self._sealed_ns = self._clock.now_ns()
        self._started = self._looked = time.monotonic()

    async def run(self, stop: asyncio.Event, *, drain: float = 1.5, ready: Callable[[], None] = lambda: None) -> None:
        """Collects until `stop` is set, then seals, stores, and delivers for up to `drain` seconds more.

        What is not delivered by then stays in the outbox for the next run. Raises what the outbox raises where it can't
        be opened, and any mistake of our own: then the service manager starts us again.
        """
        config = self._config
        await self._lookup.open(config)
        split = await self._split(self._lanes.policy)
        await self._lanes.open(config, split, self.facts)
        try:
            await self._ledgers.open(config)
            self._intake.buffer.regroup(split.groups)
            marks = await self._lanes.main.outbox.marks()
            self._intake.restore(marks)
            self._doubts.restore(marks.get(MARK))
            facts = {"event": "agent_started", "agent": config.agent.id, "stream": str(self._lanes.main.outbox.stream)}
            log.info("%s: %d tags on %d devices", config.agent.id, len(config.tags), len(config.devices), extra=facts)
            await self._work(stop, drain, ready)
        finally:
            await self._ledgers.close()
            await self._lanes.close()
            log.info("stopped", extra={"event": "agent_stopped"})

    async def _work(self, stop: asyncio.Event, drain: float, ready: Callable[[], None]) -> None:
        halt_sealing, halt_sending = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._lookup.run(halt_sealing, self._stale.set), name="lookup")
            binding = group.create_task(self._bind_loop(), name="binder")
            await self._lookup.settle()
            sending = [
                group.create_task(lane.delivery.run(halt_sending), name=f"uplink {lane.name}") for lane in self._lanes
            ]
            sealing = group.create_task(self._seal_loop(halt_sealing), name="sealer")
            reading = [
                group.create_task(supervise(each, self._intake, state), name=f"collector {state.name}")
                for each, state in self._collectors
            ]
            ready()
            await stop.wait()
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
            # Only now is everything pushed that will be: the last block is sealed, then its delivery is awaited.
            binding.cancel()
            halt_sealing.set()
            self._intake.ripe.set()
            await sealing
            await looking
            await asyncio.gather(*(lane.delivery.drain(drain) for lane in self._lanes))
            halt_sending.set()
            await asyncio.gather(*sending)

    async def _seal_loop(self, halt: asyncio.Event) -> None:
        while not halt.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.seal.after):
                    await self._intake.ripe.wait()
            self._intake.ripe.clear()
            await self._seal(halt)
        await self._seal(halt)  # what came while the last one was written

    async def _seal(self, halt: asyncio.Event) -> None:
        self._looked = time.monotonic()
        # No await among these: whoever waits, the marks, the losses and the readings are of the same moment.
        waiting = self._intake.waiting()
        now = self._clock.now_ns()
        some, marks, losses = self._intake.cut()
        look = self._clock.look()  # from here on readings have its offset, and go to the next block
        # Gaps come before the mark that lies behind them: a crash in between may tell of one twice, but hides none.
        for loss in losses:
            facts = {"event": "readings_lost", "lost": loss.count, "from_ns": loss.from_ns, "to_ns": loss.to_ns}
            log.error("%s", loss.reason, extra=facts)
            await self._gap(loss.from_ns, loss.to_ns, max(0, loss.count), loss.reason, halt)
        if some:
            *others, last = self._lanes.split.parts
            for group in others:
                await self._seal_group(group, now, look, halt)
            # The marks say that all of it is safe: they go with the last block, or after it.
            if await self._seal_group(last, now, look, halt, marks):
                marks = {}
        if marks:
            await self._keep(marks, halt)
        await self._report_refused(now, halt)
        if self._doubts.any and self._clock.synchronized:
            await self._correct(halt)
        self._sealed_ns = now
        if self._intake.buffer.pending_bytes < self._config.seal.bytes:
            self._intake.release()
        for each in waiting:
            if not each.done():
                each.set_result(None)
        if (asked := self._asked) is not None:
            # Everything pushed so far is sealed under the old epoch; what comes from here on is the new one's.
            split, policy = asked
            try:
                await self._lanes.switch(split, policy)
            except OutboxFull:
                return  # asked again with the next block
            if self._asked is asked:
                self._asked = None
            epochs = {lane.name: f"{lane.epoch:016x}" for lane in self._lanes}
            self._ledgers.configured("epoch", {"epochs": epochs, "tags": len(split.catalog.tags)})
            self._intake.buffer.regroup(split.groups)

    async def _seal_group(
        self, group: Group, now: int, look: Look, halt: asyncio.Event, marks: dict[str, bytes] | None = None
    ) -> bool:
        """Seals and stores what was set aside of a group. Returns whether the marks went with it: only `main` keeps
        any."""
        lane = self._lanes.lane(group)
        outbox = (lane or self._lanes.main).outbox
        # Compression takes milliseconds and releases the GIL: the event loop goes on in the meantime.
        block = await asyncio.to_thread(
            self._intake.buffer.seal,
            stream=outbox.stream.bytes,
            sequence=outbox.next_sequence,
            epoch=lane.epoch if lane else 0,
            sealed_ns=now,
            synchronized=look.right,
            group=group.number,
        )
        if block is None:
            return False
        self._lanes.count(group, block.readings)
        self._ledgers.sealed(group, block)
        if lane is None:
            return False
        kept: dict[str, bytes] = {}
        if lane is self._lanes.main:
            doubts = self._doubts.note(outbox.stream.bytes, block.sequence, look.offset_ns) if look.doubted else {}
            kept = {**(marks or {}), **doubts}
        if stopped_ns := await self._store(block, lane, halt, kept):
            await self._own_gap(stopped_ns, self._clock.now_ns(), 0, STOPPED, halt, lane=lane)
        return lane is self._lanes.main

    async def _keep(self, marks: dict[str, bytes], halt: asyncio.Event) -> None:
        while True:
            self._looked = time.monotonic()
            try:
                return await self._lanes.main.outbox.keep_marks(marks)
            except OutboxFull:
                if halt.is_set():
                    return None  # whoever reads the older mark asks its device once more for what came since
                await self._pause(halt)

    async def _store(
        self, block: _native.Block, lane: Lane, halt: asyncio.Event, marks: dict[str, bytes] | None = None
    ) -> int:
        """Returns when the block is committed. While there is no room, collectors wait, and so do we: then it returns
        since when (ns UTC), otherwise 0."""
        stopped_ns = 0
        while True:
            self._looked = time.monotonic()
            try:
                await lane.outbox.append(block, lane.epoch, marks)
                break
            except OutboxFull as reason:
                if halt.is_set():
                    lost = {"event": "readings_lost", "lost": block.readings}
                    log.error("stopping with a full outbox: %d readings are lost", block.readings, extra=lost)
                    return 0
                if not stopped_ns:
                    stopped_ns = self._clock.now_ns()
                    self._intake.hold()
                    log.warning("%s; collectors wait until there is room", reason, extra={"event": "outbox_full"})
                await self._pause(halt)
        lane.delivery.wake()
        if stopped_ns:
            log.info("the outbox has room again; collectors go on", extra={"event": "outbox_room"})
        return stopped_ns

    async def _pause(self, halt: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY):
                await halt.wait()

    async def _report_refused(self, now: int, halt: asyncio.Event) -> None:
        refused = self._intake.buffer.stats()["refused"] - self._refused
        if refused:
            self._refused += refused
            log.error("%s: %d", REFUSED, refused, extra={"event": "readings_lost", "lost": refused})
            await self._own_gap(self._sealed_ns, now, refused, REFUSED, halt)

    async def _correct(self, halt: asyncio.Event) -> None:
        """The clock is right by now: says in the stream by how much earlier blocks were off.

        Blocks of level 3 that have an uplink of their own stay marked.
        """
        main = self._lanes.main
        for each in self._doubts.settle(self._clock.offset_ns, main.outbox.next_sequence - 1):
            facts = {"event": "times_corrected", "first": each.first, "last": each.last, "offset_ns": each.offset_ns}
            text = "times in blocks %d to %d were off by %+.3f s; the data center is told"
            log.info(text, each.first, each.last, each.offset_ns / 1e9, extra=facts)
            block = _native.correction(
                stream=main.outbox.stream.bytes,
                sequence=main.outbox.next_sequence,
                epoch=main.epoch,
                corrected=each.stream,
                first=each.first,
                last=each.last,
                offset_ns=each.offset_ns,
                sealed_ns=self._clock.now_ns(),
            )
            await self._store(block, main, halt, {MARK: each.mark})
            self._corrections += 1
        await self._keep(self._doubts.mark(), halt)

    async def _own_gap(
        self, from_ns: int, to_ns: int, readings: int, reason: str, halt: asyncio.Event, *, lane: Lane | None = None
    ) -> None:
        """A gap whose bounds are of this gateway's clock."""
        right = bool(self._clock.synchronized)
        await self._gap(from_ns, to_ns, readings, reason, halt, synchronized=right, lane=lane)

    async def _gap(
        self,
        from_ns: int,
        to_ns: int,
        readings: int,
        reason: str,
        halt: asyncio.Event,
        *,
        synchronized: bool = True,
        lane: Lane | None = None,
    ) -> None:
        lane = lane or self._lanes.main
        place = lane.outbox.next_sequence
        block = _native.gap(
            stream=lane.outbox.stream.bytes,
            first=place,
            last=place,
            epoch=lane.epoch,
            from_ns=from_ns,
            to_ns=to_ns,
            readings=readings,
            reason=reason,
            sealed_ns=self._clock.now_ns(),
            synchronized=synchronized,
        )
        await self._store(block, lane, halt)

    def reload(self, config: Config) -> list[str]:
        """Takes a changed config from the next block on. Returns what in it needs a restart: then nothing is taken."""
        if wrong := needs_restart(self._config, config):
            self._ledgers.configured("refused", {"needs_restart": wrong})
            return wrong
        self._ledgers.reloaded(config, list(changes(self._config, config)))
        self._config = config
        self._reloaded = True
        self._stale.set()
        return []

    async def _bind_loop(self) -> None:
        """Asks for a new epoch where the config or the resolver has something new."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            reloaded, self._reloaded = self._reloaded, False
            if reloaded:
                await self._lookup.load(self._config)
            policy = Policy(self._config.egress, uplinks(self._config.egress, self._config.uplink))
            self._asked = await self._split(policy), policy
            self._intake.ripe.set()

    async def _split(self, policy: Policy) -> Split:
        # A hundred thousand tags take a second: the loop goes on in the meantime.
        return await asyncio.to_thread(lambda: Split.of(self._lookup.catalog(self._config.catalog()), policy))

    def facts(self) -> dict[str, Any]:
        """Counters of everything, for the status page, logs and `headrace run --json`."""
        stats = self._intake.buffer.stats()
        main, others = self._lanes.main, [lane for lane in self._lanes if lane is not self._lanes.main]
        return {
            "agent": self._config.agent.id,
            "stream": str(main.outbox.stream),
            "seconds": round(time.monotonic() - self._started, 1),
            "collecting": self._intake.is_open,
            "since_seal": round(time.monotonic() - self._looked, 1),
            **stats,
            "clock": {**self._clock.facts(), "corrections": self._corrections},
            "outbox": main.outbox.facts(),
            "uplink": main.delivery.facts(),
            **{lane.name: {"outbox": lane.outbox.facts(), "uplink": lane.delivery.facts()} for lane in others},
            "egress": self._lanes.facts(),
            "resolver": self._lookup.facts(),
            "audit": self._ledgers.facts(),
            "devices": {state.name: state.facts() for _, state in self._collectors},
        }
