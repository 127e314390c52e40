"""Ingest: one thread takes what came from the broker, commits it, then acknowledges it and sends receipts."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from agent import _native
from agent.errors import BlockError
from agent.piece import MAGIC, Assembly
from agent.wire import MOST_BEYOND, CatalogWanted, Receipt, Rejection, State, Topics
from datacenter.corrections import is_correction
from datacenter.ledger import Ledger, Outcome
from datacenter.message import Message
from datacenter.quarantine import Quarantine, rejection
from datacenter.store import Broken, Store, Unwritable

log = logging.getLogger("headrace.ingest")

QUEUE_MESSAGES = 4096
QUEUE_BYTES = 128 * 1024 * 1024
BATCH_MESSAGES = 256
BATCH_BYTES = 32 * 1024 * 1024
ASK_AGAIN = 5.0
"""Seconds between two requests for the same catalog that blocks give reason to; six times that without new blocks."""
ALIVE = 60.0
"""Seconds for which an agent counts as there after it said so; agents say it every few seconds."""
GREETED_FOR_NS = 30 * 24 * 3600 * 10**9
"""Streams that stored a block within this time get a receipt whenever the broker is back."""


@dataclass(slots=True)
class Counters:
    """What happened since the start. Blocks, not readings."""

    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    refused: int = 0
    dropped: int = 0
    """Messages that found the queue full; they were not acknowledged and come again."""
    pieces: int = 0
    """Messages that were a part of a block only."""
    catalogs: int = 0
    commits: int = 0


class Ingest:
    """`offer` and `greet` may be called from any thread, before and after `start`."""

    def __init__(self, store: Store, root: str) -> None:
        self.counters = Counters()
        self.failure: BaseException | None = None
        self.writable = True
        self._store = store
        self._root = root
        self._publish: Callable[[str, bytes], None] = lambda *_: None
        self._ended: Callable[[], None] = lambda: None
        self._ledger = Ledger(store)
        self._quarantine = Quarantine(store.folder / "quarantine")
        self._assembly = Assembly()
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._stopping = threading.Event()
        self._greet = False
        self._asked: dict[int, float] = {}
        self._rejected: dict[UUID, list[Rejection]] = {}
        """What the transaction at hand could not read, until the receipts that say so."""
        self._writers: dict[UUID, tuple[str, float]] = {}
        """Stream -> the agent that said it writes it, and when (monotonic)."""
        self._copies: set[tuple[str, str]] = set()
        self._states: dict[str, str] = dict(store.rows("SELECT agent, state FROM agents"))
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self, publish: Callable[[str, bytes], None], ended: Callable[[], None]) -> None:
        """`publish(topic, payload)` must not block; `ended` is called, in the thread, when it ends for any reason."""
        self._publish, self._ended = publish, ended
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finishes the transaction at hand and ends. What waits stays unacknowledged, and comes again.

        Returns whether the thread ended within `timeout` seconds.
        """
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self.failure is None

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def parked(self) -> int:
        return len(self._ledger.parked)

    def offer(self, message: Message) -> bool:
        """Queues a message. False where there is no room: it was not taken, and must come again."""
        with self._wake:
            full = len(self._queue) >= QUEUE_MESSAGES or self._queued_bytes + len(message.payload) > QUEUE_BYTES
            if full and self._queue:
                self.counters.dropped += 1
                return False
            self._queue.append(message)
            self._queued_bytes += len(message.payload)
            self._wake.notify_all()
        return True

    def greet(self) -> None:
        """The broker is there (again): sends every recent stream its receipt."""
        with self._wake:
            self._greet = True
            self._wake.notify_all()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                batch = self._take()
                if batch:
                    self._settle(batch)
                if self._greet:
                    self._greet = False
                    self._send_greetings()
                self._ask_for_catalogs(ASK_AGAIN * 6)
        except BaseException as reason:
            self.failure = reason
            log.critical("ingest stopped: %s", reason, exc_info=True, extra={"event": "ingest_failed"})
        finally:
            self._ended()

    def _take(self) -> list[Message]:
        with self._wake:
            if not self._queue and not self._greet:
                self._wake.wait(1.0)
            batch: list[Message] = []
            size = 0
            while self._queue and len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
                message = self._queue.popleft()
                size += len(message.payload)
                batch.append(message)
            self._queued_bytes -= size
        return [whole for message in batch if (whole := self._whole(message)) is not None]

    def _whole(self, message: Message) -> Message | None:
        """The message itself, or the block that it completes. A piece is acknowledged when it is here: brokers let only
        a few messages wait for that, and where it is lost with us no receipt follows, and the block comes again."""
        if message.word != "data" or not message.payload.startswith(MAGIC):
            return message
        try:
            body = self._assembly.add(message.agent, message.payload)
        except ValueError as reason:
            self._set_aside(message.agent, message.payload, reason)
            self.counters.quarantined += 1
            body = None
        self.counters.pieces += 1
        if body is None:
            message.acknowledge()
            return None
        return replace(message, payload=body)

    def _settle(self, batch: list[Message]) -> None:
        """Commits a batch, however long the store takes to become writable; finds the one that can't be stored."""
        pause = 0.5
        while not self._stopping.is_set():
            try:
                receipts = self._commit(batch)
            except Broken:
                raise
            except Unwritable as reason:
                self._ledger.reload()
                if self.writable:
                    self.writable = False
                    self._say(f"nothing can be stored now: {reason}", "store_unwritable")
                self._stopping.wait(pause)
                pause = min(pause * 2, 30.0)
            except Exception as reason:
                self._ledger.reload()
                if len(batch) > 1:
                    for message in batch:
                        self._settle([message])
                else:
                    self._give_up(batch[0], reason)
                return
            else:
                if not self.writable:
                    self.writable = True
                    log.warning("the store takes readings again", extra={"event": "store_writable"})
                for message in batch:
                    message.acknowledge()
                self._send_receipts(receipts)
                self._ask_for_catalogs(ASK_AGAIN)
                return

    def _give_up(self, message: Message, reason: Exception) -> None:
        """One message that can't be stored, whatever is done: the agent is told, or it would send it for ever."""
        kept = self._set_aside(message.agent, message.payload, reason)
        self.counters.quarantined += 1
        if kept and message.word == "data" and (found := rejection(message.payload, reason)) is not None:
            stream, rejected = found
            self._rejected = {stream: [rejected]}
            self._send_receipts({stream: message.agent})
        message.acknowledge()

    def _commit(self, batch: list[Message]) -> dict[UUID, str]:
        """One transaction. Returns the streams that get a receipt, and their agents."""
        counted = Counters()
        self._rejected = {}
        receipts: dict[UUID, str] = {}
        states: dict[str, str] = {}
        now = time.time_ns()
        corrected = any(message.word == "data" and is_correction(message.payload) for message in batch)
        with self._store.transaction(changes=corrected):
            # Catalogs first: a block may be just behind its own.
            for message in (message for message in batch if message.word == "catalog" and message.payload):
                self._learn(message, now, counted, receipts)
            for message in (message for message in batch if message.word == "data"):
                self._add(message.agent, message.payload, now, counted, receipts)
            for message in (message for message in batch if message.word == "state" and message.payload):
                self._note_state(message, states, receipts)
            self._keep_states(states, now)
            self._ledger.close()
        self._states |= states
        self.counters.commits += 1
        for name in ("stored", "duplicates", "quarantined", "refused", "catalogs"):
            setattr(self.counters, name, getattr(self.counters, name) + getattr(counted, name))
        self._report_losses()
        return receipts

    def _learn(self, message: Message, now: int, counted: Counters, receipts: dict[UUID, str]) -> None:
        try:
            epoch = self._ledger.learn(message.payload, now)
        except ValueError as reason:
            self._say(f"{message.agent} sent a catalog that can't be used: {reason}", "catalog_refused")
            return
        if epoch is None:
            return
        counted.catalogs += 1
        self._asked.pop(epoch, None)
        for agent, body, received_ns in self._ledger.unpark(epoch):
            self._add(agent, body, received_ns, counted, receipts)

    def _add(self, agent: str, body: bytes, now: int, counted: Counters, receipts: dict[UUID, str]) -> None:
        if (writer := self._writer(agent, body)) is not None:
            counted.refused += 1
            if (agent, writer) not in self._copies:
                self._copies.add((agent, writer))
                text = f"{agent} sends blocks of a stream that {writer} writes, and none of them is taken"
                self._say(f"{text}: was its outbox copied? give {agent} an empty data_dir", "stream_of_another")
            return
        try:
            stream, outcome = self._ledger.add(agent, body, now)
        except BlockError as reason:
            counted.quarantined += 1
            self._set_aside(agent, body, reason)
            if (found := rejection(body, reason)) is not None:
                stream, rejected = found
                receipts[stream] = agent
                self._rejected.setdefault(stream, []).append(rejected)
            return
        if outcome is Outcome.REFUSED:
            counted.refused += 1
            log.error(
                "no room to keep a block of %s until its catalog comes; the agent has to send it again",
                agent,
                extra={"event": "block_refused", "agent": agent, "stream": str(stream), "lost": 0},
            )
        elif outcome is not Outcome.PARKED:
            receipts[stream] = agent
            counted.stored += outcome is Outcome.STORED
            counted.duplicates += outcome is Outcome.DUPLICATE

    def _writer(self, agent: str, body: bytes) -> str | None:
        """The other agent that writes a block's stream now. One that got another name is none: it is gone by then."""
        try:
            stream = UUID(bytes=_native.header(body).stream)
        except BlockError:
            return None
        writer, said = self._writers.get(stream, (agent, 0.0))
        return writer if writer != agent and time.monotonic() - said < ALIVE else None

    def _note_state(self, message: Message, states: dict[str, str], receipts: dict[UUID, str]) -> None:
        try:
            state = State.decode(message.payload)
            text = message.payload.decode()
        except ValueError as reason:
            log.warning(
                "%s sent a state that can't be read: %s",
                message.agent,
                reason,
                extra={"event": "state_refused", "agent": message.agent},
            )
            return
        self._note_writer(message, state)
        if state.online and state.stream is not None:
            receipts[state.stream] = message.agent
        # A retained state that is known already says nothing of now.
        if message.retained and self._states.get(message.agent) == text:
            return
        states[message.agent] = text

    def _note_writer(self, message: Message, state: State) -> None:
        if message.retained or state.stream is None:
            return
        writer, said = self._writers.get(state.stream, ("", 0.0))
        if not state.online:
            if writer == message.agent:
                del self._writers[state.stream]
        elif writer in ("", message.agent) or time.monotonic() - said >= ALIVE:
            self._writers[state.stream] = (message.agent, time.monotonic())

    def _keep_states(self, states: dict[str, str], now: int) -> None:
        """Of a whole batch at once: agents tell their state every few seconds, and a statement takes a millisecond."""
        if states:
            agents = list(states)
            self._store.write("DELETE FROM agents WHERE agent IN (SELECT unnest(?))", [agents])
            self._store.write(
                "INSERT INTO agents SELECT unnest(?), unnest(?), ?::BIGINT", [agents, list(states.values()), now]
            )

    @staticmethod
    def _say(text: str, event: str) -> None:
        """An error that loses nothing: what is not acknowledged or receipted comes again."""
        log.error(text, extra={"event": event, "lost": 0})

    def _set_aside(self, agent: str, body: bytes, reason: Exception) -> bool:
        """Whether there was room to keep it."""
        name = self._quarantine.put(body)
        log.error(
            "a block of %s can't be read, and %s: %s",
            agent,
            "is set aside" if name else "there is no room in quarantine/ to keep it",
            reason,
            extra={"event": "block_quarantined", "agent": agent, "stream": None, "file": name, "bytes": len(body)},
        )
        return bool(name)

    def _report_losses(self) -> None:
        losses, self._ledger.losses = self._ledger.losses, []
        for loss in losses:
            if loss.body:
                self._quarantine.put(loss.body)
            log.error(
                "%d readings of %s are missing: %s",
                loss.readings,
                loss.agent,
                loss.reason,
                extra={
                    "event": "readings_lost",
                    "agent": loss.agent,
                    "stream": str(loss.stream),
                    "lost": loss.readings,
                    "first": loss.first,
                    "last": loss.last,
                },
            )

    def _send_receipts(self, streams: dict[UUID, str]) -> None:
        for stream, agent in streams.items():
            beyond = self._ledger.beyond(stream, MOST_BEYOND)
            # Those that one receipt does not hold come again, and are rejected then.
            rejected = tuple(self._rejected.pop(stream, ()))
            receipt = Receipt(stream, self._ledger.committed(stream), beyond, rejected)
            self._publish(Topics(agent, self._root).receipts, receipt.encode())

    def _send_greetings(self) -> None:
        since = time.time_ns() - GREETED_FOR_NS
        recent = {s.stream: s.agent for s in self._ledger.streams.values() if s.stored_ns >= since}
        self._send_receipts(recent)
        self._ask_for_catalogs(ASK_AGAIN)

    def _ask_for_catalogs(self, pause: float) -> None:
        if not self._ledger.parked:
            return
        now = time.monotonic()
        for epoch, agent in {(epoch, agent) for epoch, agent, _ in self._ledger.parked.values()}:
            if now - self._asked.get(epoch, -pause) >= pause:
                self._asked[epoch] = now
                self._publish(Topics(agent, self._root).commands, CatalogWanted(epoch).encode())
