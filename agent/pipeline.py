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
from collections.abc import Callable
from typing import Any

from agent import _native, clock
from agent.collectors import collectors
from agent.collectors.base import Collector, DeviceState, supervise
from agent.config import Config
from agent.delivery import Delivery
from agent.doubts import MARK, Doubts
from agent.errors import OutboxFull
from agent.intake import Intake
from agent.outbox import Outbox
from agent.wire import State, epoch_of

log = logging.getLogger("headrace.agent")

RETRY = 0.5
"""Seconds between attempts to store a block that the outbox has no room for."""
STOPPED = "collection stopped: the outbox is full"
REFUSED = "readings refused: the buffer was full"


class Pipeline:
    """One running agent. `run` is its life; `facts` may be asked at any time in between."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._intake = Intake(config.tags, config.seal.bytes)
        self._catalog = config.catalog().encode()
        self._epoch = epoch_of(self._catalog)
        self._collectors: list[tuple[Collector, DeviceState]] = [
            (each, DeviceState(each.device.name, counters=each.counters))
            for each in collectors(config.devices, self._intake)
        ]
        self._outbox: Outbox
        self._delivery: Delivery
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
        data_dir = config.agent.data_dir
        self._outbox = await Outbox.open(
            data_dir / "outbox.db", max_bytes=config.outbox.max_bytes, when_full=config.outbox.when_full
        )
        try:
            await self._outbox.keep_catalog(self._epoch, self._catalog)
            marks = await self._outbox.marks()
            self._intake.restore(marks)
            self._doubts.restore(marks.get(MARK))
            self._delivery = Delivery.of(config, self._outbox, self._state)
            facts = {"event": "agent_started", "agent": config.agent.id, "stream": str(self._outbox.stream)}
            log.info("%s: %d tags on %d devices", config.agent.id, len(config.tags), len(config.devices), extra=facts)
            await self._work(stop, drain, ready)
        finally:
            await self._outbox.close()
            log.info("stopped", extra={"event": "agent_stopped"})

    async def _work(self, stop: asyncio.Event, drain: float, ready: Callable[[], None]) -> None:
        halt_sealing, halt_sending = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._delivery.run(halt_sending), name="uplink")
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
            halt_sealing.set()
            self._intake.ripe.set()
            await sealing
            await self._delivery.drain(drain)
            halt_sending.set()
            await sending

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
            if look.doubted:
                marks |= self._doubts.note(self._outbox.stream.bytes, self._outbox.next_sequence, look.offset_ns)
            # Compression takes milliseconds and releases the GIL: the event loop goes on in the meantime.
            block = await asyncio.to_thread(
                self._intake.buffer.seal,
                stream=self._outbox.stream.bytes,
                sequence=self._outbox.next_sequence,
                epoch=self._epoch,
                sealed_ns=now,
                synchronized=look.right,
            )
            if block is not None and (stopped_ns := await self._store(block, halt, marks)):
                await self._own_gap(stopped_ns, self._clock.now_ns(), 0, STOPPED, halt)
        elif marks:
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

    async def _keep(self, marks: dict[str, bytes], halt: asyncio.Event) -> None:
        while True:
            self._looked = time.monotonic()
            try:
                return await self._outbox.keep_marks(marks)
            except OutboxFull:
                if halt.is_set():
                    return None  # whoever reads the older mark asks its device once more for what came since
                await self._pause(halt)

    async def _store(self, block: _native.Block, halt: asyncio.Event, marks: dict[str, bytes] | None = None) -> int:
        """Returns when the block is committed. While there is no room, collectors wait, and so do we: then it returns
        since when (ns UTC), otherwise 0."""
        stopped_ns = 0
        while True:
            self._looked = time.monotonic()
            try:
                await self._outbox.append(block, self._epoch, marks)
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
        self._delivery.wake()
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
        """The clock is right by now: says in the stream by how much earlier blocks were off."""
        for each in self._doubts.settle(self._clock.offset_ns, self._outbox.next_sequence - 1):
            facts = {"event": "times_corrected", "first": each.first, "last": each.last, "offset_ns": each.offset_ns}
            text = "times in blocks %d to %d were off by %+.3f s; the data center is told"
            log.info(text, each.first, each.last, each.offset_ns / 1e9, extra=facts)
            block = _native.correction(
                stream=self._outbox.stream.bytes,
                sequence=self._outbox.next_sequence,
                epoch=self._epoch,
                corrected=each.stream,
                first=each.first,
                last=each.last,
                offset_ns=each.offset_ns,
                sealed_ns=self._clock.now_ns(),
            )
            await self._store(block, halt, {MARK: each.mark})
            self._corrections += 1
        await self._keep(self._doubts.mark(), halt)

    async def _own_gap(self, from_ns: int, to_ns: int, readings: int, reason: str, halt: asyncio.Event) -> None:
        """A gap whose bounds are of this gateway's clock."""
        right = bool(self._clock.synchronized)
        await self._gap(from_ns, to_ns, readings, reason, halt, synchronized=right)

    async def _gap(
        self,
        from_ns: int,
        to_ns: int,
        readings: int,
        reason: str,
        halt: asyncio.Event,
        *,
        synchronized: bool = True,
    ) -> None:
        place = self._outbox.next_sequence
        block = _native.gap(
            stream=self._outbox.stream.bytes,
            first=place,
            last=place,
            epoch=self._epoch,
            from_ns=from_ns,
            to_ns=to_ns,
            readings=readings,
            reason=reason,
            sealed_ns=self._clock.now_ns(),
            synchronized=synchronized,
        )
        await self._store(block, halt)

    def _state(self) -> State:
        return State(True, self._outbox.stream, self._epoch, self.facts())

    def facts(self) -> dict[str, Any]:
        """Counters of everything, for the status page, logs and `headrace run --json`."""
        stats = self._intake.buffer.stats()
        return {
            "agent": self._config.agent.id,
            "stream": str(self._outbox.stream),
            "seconds": round(time.monotonic() - self._started, 1),
            "collecting": self._intake.is_open,
            "since_seal": round(time.monotonic() - self._looked, 1),
            **stats,
            "clock": {**self._clock.facts(), "corrections": self._corrections},
            "outbox": self._outbox.facts(),
            "uplink": self._delivery.facts(),
            "devices": {state.name: state.facts() for _, state in self._collectors},
        }
