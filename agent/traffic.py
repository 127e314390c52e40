"""Traffic: which entries go over the line now, in which order, and which of them again.

What waits is sent in order while it is little. After an outage new blocks go first, and the rest behind them, on a
budget. A block that can't pass the broker whole goes in pieces, or is passed over.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from agent import piece
from agent.announced import Announced
from agent.backlog import Backlog
from agent.brokers import Brokers
from agent.entry import Entry
from agent.errors import Rejected
from agent.flight import Flight, Sent
from agent.outbox import Outbox
from agent.wire import Topics

log = logging.getLogger("headrace.uplink")

WINDOW = 256
"""Entries that may be on their way without a receipt."""
FLYING_BYTES = 8 * 1024 * 1024
PEEK_BYTES = 4 * 1024 * 1024
FEW = 32
"""So many entries are no backlog: they go in order, at once."""
KEPT_FREE = 8
"""Of the messages on their way, and of the window's entries, so many eighths are left to live blocks: 1 in 8."""
NOT_TAKEN = 8
"""So often a block is sent before it is worth an error that the data center does not take it."""


class Traffic:
    """`begin` with each connection; `send_more` whenever something may have changed."""

    def __init__(
        self,
        brokers: Brokers,
        topics: Topics,
        outbox: Outbox,
        flight: Flight,
        *,
        backlog: Backlog,
        announced: Announced,
        acknowledged: Callable[[Sent], None],
        wake: Callable[[], None],
        window: int = WINDOW,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`acknowledged` is called where the broker has all of an entry, `wake` after each of its answers."""
        self._brokers = brokers
        self._topic = topics.data
        self._outbox = outbox
        self._flight = flight
        self._backlog = backlog
        self._announced = announced
        self._acknowledged = acknowledged
        self._wake = wake
        self._window = window
        self._clock = clock
        self.heard = False
        """Whether the broker answered anything on this connection."""
        self.most_sent = 0
        """Bytes of the largest message that waits for the broker's answer."""
        self._head = 0  # places up to this one are no longer live
        self._outgoing: deque[tuple[bytes, Sent]] = deque()
        self._in_flight = 0
        self._unanswered: dict[Sent, int] = {}
        """How many messages of each entry the broker has not acknowledged; `_in_flight` is their sum."""
        self._held_back: set[int] = set()
        self._not_taken: set[int] = set()
        self._counts = dict.fromkeys(("sent", "resent", "bytes", "pieces", "refused"), 0)

    def begin(self) -> None:
        """A new connection: whatever has not arrived has to be sent again."""
        self._in_flight = self.most_sent = 0
        self.heard = False
        self._outgoing.clear()
        self._unanswered.clear()
        self._held_back.clear()
        self._flight.begin()
        self._brokers.suspicion.arrived(self._flight.has)
        # The newest few go first, and all that comes from now on.
        self._head = max(self._flight.has.last, self._outbox.last - FEW)
        self._backlog.begin()

    def end(self) -> None:
        self._in_flight = 0

    def facts(self) -> dict[str, Any]:
        """`in_flight`, `rejected` and `not_taken` are entries, `pieces` messages; the rest counts since the start."""
        return {
            "in_flight": self._in_flight,
            "unreceipted": len(self._flight.sent),
            "rejected": len(self._held_back),
            "not_taken": len(self._not_taken),
            **self._backlog.facts(),
            **self._counts,
        }

    async def send_more(self) -> float:
        """Sends what may be sent now. Returns how many seconds to wait at most before it looks again."""
        flight, outbox, last = self._flight, self._outbox, self._outbox.last
        before = outbox.facts()["confirmed"]
        while True:
            waiting = flight.waiting(before, last)
            self._backlog.note(outbox.facts(), draining=waiting > FEW)
            self._pump()
            room = self._room()
            if not waiting or room <= 0:
                return 1.0
            if waiting <= FEW:
                if not await self._send_span(flight.taken.free(before, last), room, live=True):
                    return 1.0
                continue
            if flight.waiting(self._head, last) > FEW:
                self._head = last - FEW
            if span := flight.taken.free(self._head, last):
                await self._send_span(span, room, live=True)
                continue
            pause = self._backlog.pause(flight.backlog)
            if pause > 0:
                return pause
            if not self._brokers.suspicion.careful:  # else one goes at a time, old or live
                kept = self._window // KEPT_FREE, self._brokers.current.inflight // KEPT_FREE
                room = min(
                    room - kept[1], self._window - kept[0] - len(flight.sent), int(flight.old_window) - flight.backlog
                )
            # A read for each single one that becomes possible would cost more than the sending.
            if room < min(self._brokers.current.inflight // 4, waiting) and flight.backlog:
                return 1.0
            if room <= 0 or not await self._send_span(flight.taken.free(before, self._head), room, live=False):
                return 1.0

    def send_again(self) -> None:
        """Takes up again what has no receipt after its time."""
        late = self._flight.overdue(self._clock())
        if not late:
            return
        self._let_go()
        live = [sent.first for sent in late if sent.live]
        self._head = min(self._head, *(first - 1 for first in live)) if live else self._head
        text = "No receipt in time for %d block%s; sending again. Is the data center running?"
        log.info(text, len(late), "s" * (len(late) != 1), extra={"event": "resend", "entries": len(late)})

    def settled(self) -> None:
        """There was news of what has arrived."""
        self._let_go()
        self._brokers.suspicion.arrived(self._flight.has)
        self._not_taken -= {place for place in self._not_taken if place in self._flight.has}

    def _let_go(self) -> None:
        """What has arrived, or is sent again, waits no more for a broker that lost its word."""
        for sent in [each for each in self._unanswered if self._flight.sent.get(each.first) is not each]:
            self._in_flight -= self._unanswered.pop(sent)

    def _room(self) -> int:
        """How many more entries may go now."""
        if self._brokers.suspicion.careful:
            return int(self.heard and not self._outgoing and not self._in_flight)
        if self._flight.bytes >= FLYING_BYTES:
            return 0
        waiting = len(self._outgoing) + self._in_flight
        return min(self._brokers.current.inflight - waiting, self._window - len(self._flight.sent))

    async def _send_span(self, span: tuple[int, int] | None, room: int, *, live: bool) -> bool:
        """Sends up to `room` entries whose places lie in `span`. Returns whether there was anything to do."""
        if span is None:
            return False
        first, last = span
        entries = await self._outbox.peek(first - 1, room, PEEK_BYTES if live else PEEK_BYTES // 4)
        if not entries and self._outbox.last >= last:
            if self._outbox.facts()["entries"]:
                return False  # the disk can't be read now
            self._flight.skip(first, last)
            return True
        for entry in entries:
            if entry.sequence > last:
                break
            if entry.sequence > first:
                self._flight.skip(first, entry.sequence - 1)  # a stream begins there, and stands for those before it
            await self._announced.announce(entry.epoch)
            self._send(entry, live=live)
            first = entry.last + 1
        else:
            return True
        if entries[0].sequence > last:
            self._flight.skip(first, last)
        return True

    def _send(self, entry: Entry, *, live: bool) -> None:
        room = self._brokers.current.room(self._topic)
        if (limit := self._brokers.suspicion.limit) is not None:
            room = min(room, limit)
        bodies = [entry.body]
        if len(entry.body) > room:
            try:
                bodies = piece.split(entry.body, self._outbox.streams.of(entry.sequence), entry.sequence, room)
            except Rejected as reason:
                self._hold_back(entry, reason)
                return
            self._counts["pieces"] += len(bodies)
        now = self._clock()
        sent = self._flight.launch(entry.sequence, entry.last, len(entry.body), now, live=live)
        sent.messages = len(bodies)
        if live:
            self._head = max(self._head, entry.last)
        else:
            self._backlog.spend(len(entry.body))
        self._counts["bytes"] += len(entry.body)
        self._counts["resent" if sent.tries else "sent"] += 1
        if sent.tries >= NOT_TAKEN and entry.sequence not in self._not_taken:
            self._report_not_taken(sent)
        self._outgoing.extend((body, sent) for body in bodies)
        self._pump()

    def _pump(self) -> None:
        most = 1 if self._brokers.suspicion.careful else self._brokers.current.inflight
        while self._outgoing and self._in_flight < most:
            body, sent = self._outgoing.popleft()
            self._brokers.current.send(self._topic, body, then=lambda refusal, sent=sent: self._puback(sent, refusal))  # type: ignore[misc]
            self._in_flight += 1
            self._unanswered[sent] = self._unanswered.get(sent, 0) + 1
            self.most_sent = max(self.most_sent, len(body))

    def _hold_back(self, entry: Entry, reason: Rejected) -> None:
        """Kept in the outbox, and passed over: sending it would only break the connection."""
        self._flight.skip(entry.sequence, entry.last)
        if not self._held_back:
            log.error(
                "Block %d can't be sent: %s. It stays in the outbox.",
                entry.sequence,
                reason,
                extra={"event": "entry_rejected", "sequence": entry.sequence, "bytes": len(entry.body), "lost": 0},
            )
        self._held_back.add(entry.sequence)

    def _report_not_taken(self, sent: Sent) -> None:
        self._not_taken.add(sent.first)
        log.error(
            "Block %d was sent %d times, and the data center has not taken it. The others go on.",
            sent.first,
            sent.tries + 1,
            extra={"event": "entry_not_taken", "sequence": sent.first, "lost": 0},
        )

    def _puback(self, sent: Sent, refusal: Rejected | None) -> None:
        self.heard = True
        if left := self._unanswered.pop(sent, 0):
            self._in_flight -= 1
            if left > 1:
                self._unanswered[sent] = left - 1
        self._flight.acknowledge(sent, self._clock(), refused=refusal is not None)
        if refusal is not None:
            self._counts["refused"] += 1
            if self._counts["refused"] == 1:
                log.error("The broker refused a block: %s.", refusal, extra={"event": "entry_refused", "lost": 0})
        elif sent.acknowledged:
            self._brokers.suspicion.acknowledged(sent.first)
            self._acknowledged(sent)
        if not self._in_flight:
            self.most_sent = 0
        self._wake()
