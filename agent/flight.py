"""The flight: which places of the outbox are on their way, which have arrived, and which must be sent again.

Pure: it is told the time, and touches neither the outbox nor the line. Everything is a matter of places (sequences of
the outbox, which go on over its streams); an entry is known by its first one.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.ranges import Ranges

QUIET_SECONDS = 2.0
"""So long after its last sign the data center's "no further than that" means that something was lost on the way."""
OVERTAKEN_SECONDS = 1.0
"""Where something that was sent so much later has arrived, what was sent before it was lost on the way."""
LONGEST_PATIENCE = 300.0
PROMPT_SECONDS = 0.6
"""So long old entries may take to their receipt, or twice as long as they take when the line is idle: with more of them
on their way, live entries would wait behind them in the broker and the data center."""
LEAST_OLD = 8


@dataclass(slots=True, eq=False)
class Sent:
    """An entry on its way. `messages` of it wait for their PUBACK; `tries` is how often it was sent before."""

    first: int
    last: int
    size: int
    at: float
    live: bool
    tries: int
    messages: int = 1
    refused: bool = False

    @property
    def acknowledged(self) -> bool:
        return self.messages == 0 and not self.refused


class Flight:
    """What was sent and what arrived."""

    def __init__(self, patience: float) -> None:
        """`patience` is how many seconds an entry may take; it doubles each time the entry is sent again."""
        self.sent: dict[int, Sent] = {}
        """By first place, in the order of sending."""
        self.has = Ranges()
        """Places that the other side has."""
        self.taken = Ranges()
        """Places that need not be sent now: the other side has them, or they are on their way."""
        self.bytes = 0
        self.backlog = 0
        """Entries on their way that are not live."""
        self.old_window = 32.0
        """How many entries that are not live may be on their way: found out from how long their receipts take."""
        self._fastest = PROMPT_SECONDS
        self._patience = patience
        self._tries: dict[int, int] = {}
        self._newest = -1.0  # when the latest of all that arrived was sent
        self._moved = 0.0  # when something last arrived, was acknowledged, or was sent after a silence
        self._asked = -1.0  # when the other side last said that it has nothing new

    def begin(self) -> None:
        """A new connection: whatever has not arrived has to be sent again."""
        for sent in self.sent.values():
            if sent.messages:  # that was the line's fault, and no reason for patience
                self._tries[sent.first] = sent.tries - 1
        self.sent.clear()
        self.bytes = self.backlog = 0
        self.taken = self.has.copy()
        self._newest = self._asked = -1.0

    def forget(self, through: int) -> None:
        """The other side has lost its memory: it has nothing but what is confirmed, up to `through`."""
        self.has = Ranges([(1, through)] if through else [])
        self.begin()
        self._tries.clear()

    def launch(self, first: int, last: int, size: int, now: float, *, live: bool) -> Sent:
        if not self.sent:
            self._moved = now
        sent = Sent(first, last, size, now, live, self._tries.get(first, -1) + 1)
        self._tries[first] = sent.tries
        self.sent[first] = sent
        self.taken.add(first, last)
        self.bytes += size
        self.backlog += not live
        return sent

    def skip(self, first: int, last: int) -> None:
        """Nothing is to be sent for these places on this connection."""
        self.taken.add(first, last)

    def recall(self, first: int, last: int) -> None:
        """Something else stands in these places now, and is to be sent."""
        for place in [place for place in self.sent if first <= place <= last]:
            self._land(self.sent[place])
        self._tries.pop(first, None)
        self.taken.discard(first, last)

    def acknowledge(self, sent: Sent, now: float, *, refused: bool) -> None:
        """The broker has one message of an entry, or refused it."""
        sent.messages = max(0, sent.messages - 1)
        sent.refused |= refused
        self._moved = now

    def arrive(self, first: int, last: int, now: float) -> int:
        """The other side has these places. Returns how many of them are news."""
        news = self.has.add(first, last)
        if not news:
            return 0
        self.taken.add(first, last)
        self._moved = now
        if len(self.sent) > last - first:
            arrived = [self.sent[place] for place in range(first, last + 1) if place in self.sent]
        else:
            arrived = [sent for sent in self.sent.values() if first <= sent.first <= last]
        arrived = [sent for sent in arrived if sent.last <= last]
        for sent in arrived:
            self._newest = max(self._newest, sent.at)
            self._land(sent)
        self._adapt([now - sent.at for sent in arrived if not sent.live])
        if len(self._tries) > 2 * len(self.sent) + 64:
            self._tries = {place: tries for place, tries in self._tries.items() if place not in self.has}
        return news

    def nothing_new(self, now: float) -> None:
        """The other side answered, and has nothing more than it had."""
        self._asked = now

    def overdue(self, now: float) -> list[Sent]:
        """Takes out the entries that have to be sent again, in the order in which they were sent."""
        silent = now - self._moved
        late = [sent for sent in self.sent.values() if self._is_late(sent, now, silent)]
        for sent in late:
            self._land(sent)
            self.taken.discard(sent.first, sent.last)
        if late:
            self._moved = now
        return late

    def waiting(self, after: int, last: int) -> int:
        """How many places above `after`, up to `last`, are neither there nor on their way."""
        return last - after - self.taken.count(after + 1, last) if last > after else 0

    def _adapt(self, took: list[float]) -> None:
        """More on their way where receipts are prompt, fewer where they are not."""
        if not took:
            return
        self._fastest = min(1.01 * self._fastest, *took)
        if max(took) > max(PROMPT_SECONDS, 2 * self._fastest):
            self.old_window = max(LEAST_OLD, 0.8 * self.old_window)
        elif self.backlog >= self.old_window / 2 or len(took) >= self.old_window / 4:
            self.old_window = min(4096.0, 1.1 * self.old_window + 1)

    def _is_late(self, sent: Sent, now: float, silent: float) -> bool:
        backoff = 2.0 ** min(sent.tries, 20)
        age = now - sent.at
        if age > min(self._patience * backoff, LONGEST_PATIENCE):
            return True
        if not sent.acknowledged:
            return False
        if self._newest - sent.at > OVERTAKEN_SECONDS * backoff:
            return True
        quiet = max(QUIET_SECONDS, self._patience / 10) * backoff
        return self._asked >= sent.at and min(silent, age) > quiet

    def _land(self, sent: Sent) -> None:
        del self.sent[sent.first]
        self.bytes -= sent.size
        self.backlog -= not sent.live
