"""The sealer: every moment it takes what was pushed, seals it, and stores it; what is missing it tells as gaps.

The blocks of the main lane and the collectors' marks are stored in one transaction: after a crash no collector goes on
from a place that lies before what is stored, or behind it. Where the lane of level 3 has a part in the moment, both
outboxes have it, or neither (`agent.moment`). A gap is told on every lane: each may have a data center of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

from agent import _native
from agent.clock import Clock, Look
from agent.doubts import MARK
from agent.errors import OutboxFull, TooLarge
from agent.intake import Intake
from agent.lanes import Lane, Lanes
from agent.ledgers import Ledgers
from agent.policy import Policy
from agent.split import Split

log = logging.getLogger("headrace.agent")

RETRY = 0.5
"""Seconds between attempts to store a block that the outbox has no room for."""
STOPPED = "collection stopped: the outbox is full"
REFUSED = "readings refused: the buffer was full"
TOO_LARGE = "a block too large for outbox.max_bytes"
FULL_AT_END = "the outbox was full when the agent stopped"


class Sealer:
    """`run` until halted; it seals once more then."""

    def __init__(self, intake: Intake, lanes: Lanes, ledgers: Ledgers, clock: Clock) -> None:
        self.corrections = 0
        self.looked = time.monotonic()
        """When it last went on; monotonic seconds."""
        self._intake = intake
        self._lanes = lanes
        self._ledgers = ledgers
        self._clock = clock
        self._asked: tuple[Split, Policy] | None = None
        self._told_waiting = False
        self._refused = 0
        self._stopped_ns = 0  # since when collectors wait for room, ns UTC; 0 where that was told
        self._sealed_ns = clock.now_ns()
        self._after = 0.0
        self._bytes = 0

    def ask(self, split: Split, policy: Policy) -> None:
        """What is sealed after the next block belongs to this split; what waits is judged by this policy."""
        self._asked = (split, policy)
        self._intake.ripe.set()

    async def run(self, halt: asyncio.Event, *, after: float, size: int) -> None:
        """Seals every `after` seconds, or at `size` bytes. Not to be cancelled: what it has in hand would be lost."""
        self._after, self._bytes = after, size
        while not halt.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._after):
                    await self._intake.ripe.wait()
            self._intake.ripe.clear()
            await self._seal(halt)
        await self._seal(halt)  # what came while the last one was written

    async def _seal(self, halt: asyncio.Event) -> None:
        self.looked = time.monotonic()
        # No await among these: whoever waits, the marks, the losses and the readings are of the same moment.
        waiting = self._intake.waiting()
        now = self._clock.now_ns()
        renewed = self._lanes.renewed()
        some, marks, losses = self._intake.cut(every_mark=bool(renewed))
        look = self._clock.look()  # from here on readings have its offset, and go to the next block
        # Gaps come before the mark that lies behind them: a crash in between may tell of one twice, but hides none.
        for loss in losses:
            facts = {"event": "readings_lost", "lost": loss.count, "from_ns": loss.from_ns, "to_ns": loss.to_ns}
            log.error("%s", loss.reason, extra=facts)
            await self._gap(loss.from_ns, loss.to_ns, max(0, loss.count), loss.reason, halt)
        whole = await self._store_all(await self._seal_all(now, look) if some else {}, marks, look, halt)
        if renewed and whole:
            with contextlib.suppress(OutboxFull):  # then after the next seal
                await self._lanes.refill(renewed)
        await self._report_refused(now, halt)
        for lane in self._lanes:
            if lane.doubts.any and self._clock.synchronized:
                await self._correct(lane, halt)
        if self._stopped_ns:
            stopped_ns, self._stopped_ns = self._stopped_ns, 0
            await self._own_gap(stopped_ns, self._clock.now_ns(), 0, STOPPED, halt)
        self._sealed_ns = now
        if self._intake.buffer.pending_bytes < self._bytes:
            self._intake.release()
        for each in waiting:
            if not each.done():
                each.set_result(None) if whole else each.cancel()
        if self._asked is not None:
            await self._switch()

    async def _switch(self) -> None:
        """Everything pushed so far is sealed under the old epoch; what comes from here on is the new one's."""
        asked = self._asked
        assert asked is not None
        split, policy = asked
        try:
            await self._lanes.switch(split, policy)
        except OutboxFull as reason:
            if not self._told_waiting:
                self._told_waiting = True
                text = "The new epoch begins when its catalog can be stored: %s. The new policy holds already."
                log.warning(text, reason, extra={"event": "epoch_waits"})
            return
        self._told_waiting = False
        if self._asked is asked:
            self._asked = None
        epochs = {lane.name: f"{lane.epoch:016x}" for lane in self._lanes}
        self._ledgers.configured("epoch", {"epochs": epochs, "tags": len(split.catalog.tags)})
        self._intake.buffer.regroup(split.groups)

    async def _seal_all(self, now: int, look: Look) -> dict[str, list[_native.Block]]:
        """Seals what was set aside, a block for each group. Returns those that go somewhere, by lane."""
        sealed: dict[str, list[_native.Block]] = {lane.name: [] for lane in self._lanes}
        for group in self._lanes.split.parts:
            lane = self._lanes.lane(group)
            outbox = (lane or self._lanes.main).outbox
            before = sealed[lane.name] if lane else []
            # Compression takes milliseconds and releases the GIL: the event loop goes on in the meantime.
            block = await asyncio.to_thread(
                self._intake.buffer.seal,
                stream=outbox.stream.bytes,
                sequence=outbox.next_sequence + len(before),
                epoch=lane.epoch if lane else 0,
                sealed_ns=now,
                synchronized=look.right,
                group=group.number,
            )
            if block is None:
                continue
            self._lanes.count(group, block.readings)
            self._ledgers.sealed(group, block)
            before.append(block)
        return sealed

    async def _store_all(
        self, sealed: Mapping[str, list[_native.Block]], marks: dict[str, bytes], look: Look, halt: asyncio.Event
    ) -> bool:
        """Stores what was sealed, and the marks, which say that all of it is safe. False where that can't be said."""
        parts = [lane for lane in self._lanes.others if sealed.get(lane.name)]
        tied = parts if marks else []  # without marks nothing comes twice
        for lane in parts:
            kept = self._lanes.tie(lane, sealed[lane.name]) if tied else {}
            await self._store(sealed[lane.name], lane, halt, kept | self._doubt(lane, sealed, look), held=bool(tied))
        main = self._lanes.main
        if tied:
            marks = marks | self._lanes.number()
        if sealed.get(main.name):
            whole = await self._store(sealed[main.name], main, halt, marks | self._doubt(main, sealed, look))
        else:
            whole = not marks or await self._keep(marks, halt)
        if whole and tied:
            self._lanes.finish(tied)
        elif tied:
            await self._take_back(tied, sealed)
        return whole

    @staticmethod
    def _doubt(lane: Lane, sealed: Mapping[str, list[_native.Block]], look: Look) -> dict[str, bytes]:
        if not look.doubted:
            return {}
        return lane.doubts.note(lane.outbox.stream.bytes, sealed[lane.name][0].sequence, look.offset_ns)

    async def _take_back(self, tied: Sequence[Lane], sealed: Mapping[str, list[_native.Block]]) -> None:
        """The marks can't be stored any more: the next run brings once more what its devices still have."""
        for lane in tied:
            try:
                if not await lane.take_back():
                    continue
            except OutboxFull:
                continue  # the next start takes it back
            await self._give_up(sealed[lane.name], lane, "its marks can't be stored")

    async def _keep(self, marks: dict[str, bytes], halt: asyncio.Event, lane: Lane | None = None) -> bool:
        """Returns whether they are stored."""
        lane = lane or self._lanes.main
        while True:
            self.looked = time.monotonic()
            try:
                await lane.outbox.keep_marks(marks)
            except OutboxFull:
                if halt.is_set():
                    return False  # whoever reads the older mark asks its device once more for what came since
                await self._pause(halt)
            else:
                return True

    async def _store(
        self,
        blocks: Sequence[_native.Block],
        lane: Lane,
        halt: asyncio.Event,
        marks: dict[str, bytes] | None = None,
        *,
        held: bool = False,
    ) -> bool:
        """Returns when the blocks are committed, or a gap in their place. While there is no room, collectors wait, and
        so do we. False where the marks are not stored."""
        waited = False
        while True:
            self.looked = time.monotonic()
            try:
                await lane.outbox.append_all(blocks, lane.epoch, marks, held=held)
                stored = True
                break
            except TooLarge as reason:
                if len(blocks) > 1:
                    for block in blocks:
                        # What holds goes with the first of them, what says that all are safe with the last.
                        kept = marks if held or block is blocks[-1] else None
                        stored = await self._store([block], lane, halt, kept, held=held)
                    return stored
                return await self._store([self._lost(blocks, lane, TOO_LARGE, reason)], lane, halt, marks, held=held)
            except OutboxFull as reason:
                if halt.is_set():
                    await self._give_up(blocks, lane, reason)
                    return False
                if not waited:
                    waited = True
                    self._stopped_ns = self._stopped_ns or self._clock.now_ns()
                    self._intake.hold()
                    log.warning("%s; collectors wait until there is room", reason, extra={"event": "outbox_full"})
                await self._pause(halt)
        lane.delivery.wake()
        if waited:
            log.info("the outbox has room again; collectors go on", extra={"event": "outbox_room"})
        return stored

    def _lost(self, blocks: Sequence[_native.Block], lane: Lane, why: str, reason: object) -> _native.Block:
        """The gap that stands for blocks that can't be stored."""
        lost = sum(block.readings for block in blocks)
        facts = {"event": "readings_lost", "lost": lost, "stream": str(lane.outbox.stream), "reason": why}
        log.error("%d readings are lost: %s (%s)", lost, why, reason, extra=facts)
        first, last = min(block.first_ns for block in blocks), max(block.last_ns for block in blocks)
        return self._gap_of(lane, first, last, lost, why)

    async def _give_up(self, blocks: Sequence[_native.Block], lane: Lane, reason: object) -> None:
        """The agent ends: a gap, for which room is kept; where even that is gone, only a line in the log."""
        with contextlib.suppress(OutboxFull):
            await lane.outbox.append(self._lost(blocks, lane, FULL_AT_END, reason), lane.epoch)
            lane.delivery.wake()

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

    async def _correct(self, lane: Lane, halt: asyncio.Event) -> None:
        """The clock is right by now: says in a lane's stream by how much earlier blocks were off."""
        outbox = lane.outbox
        for each in lane.doubts.settle(self._clock.offset_ns, outbox.next_sequence - 1):
            facts = {"first": each.first, "last": each.last, "offset_ns": each.offset_ns, "uplink": lane.name}
            if outbox.has_moved(each.stream):
                # At these places of that stream others have their blocks: no one's times are set by a guess.
                text = "times in blocks %d to %d (uplink %s) stay marked as of a wrong clock: they have moved"
                log.warning(text, each.first, each.last, lane.name, extra={"event": "times_uncorrected", **facts})
                continue
            text = "times in blocks %d to %d (uplink %s) were off by %+.3f s; the data center is told"
            off = each.offset_ns / 1e9
            log.info(text, each.first, each.last, lane.name, off, extra={"event": "times_corrected", **facts})
            block = _native.correction(
                stream=outbox.stream.bytes,
                sequence=outbox.next_sequence,
                epoch=lane.epoch,
                corrected=each.stream,
                first=each.first,
                last=each.last,
                offset_ns=each.offset_ns,
                sealed_ns=self._clock.now_ns(),
            )
            await self._store([block], lane, halt, {MARK: each.mark})
            self.corrections += 1
        await self._keep(lane.doubts.mark(), halt, lane)

    async def _own_gap(self, from_ns: int, to_ns: int, readings: int, reason: str, halt: asyncio.Event) -> None:
        """A gap whose bounds are of this gateway's clock."""
        await self._gap(from_ns, to_ns, readings, reason, halt, synchronized=bool(self._clock.synchronized))

    async def _gap(
        self, from_ns: int, to_ns: int, readings: int, reason: str, halt: asyncio.Event, *, synchronized: bool = True
    ) -> None:
        """Tells it on every lane. Nobody knows of which level the readings were: they count once, on the main one."""
        for lane in self._lanes:
            count = readings if lane is self._lanes.main else 0
            block = self._gap_of(lane, from_ns, to_ns, count, reason, synchronized=synchronized)
            await self._store([block], lane, halt)

    def _gap_of(
        self, lane: Lane, from_ns: int, to_ns: int, readings: int, reason: str, *, synchronized: bool = True
    ) -> _native.Block:
        place = lane.outbox.next_sequence
        return _native.gap(
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
