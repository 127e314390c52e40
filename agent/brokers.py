"""The brokers of an agent, in order of preference: which one is tried next, when, and what is said about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from agent import backoff
from agent.errors import NotConnected
from agent.suspicion import Suspicion
from agent.uplink import Renewed, TakenOver, Uplink

log = logging.getLogger("headrace.uplink")

LONGEST_PAUSE = 15.0
TAKEN_OVER_PAUSE = 60.0
SUSPICIOUS = 3
"""So many short connections in a row, with no failed attempt between them, are worth an error."""
SEARCHING = 20
"""So many, while it is being found out which block the broker hangs up on."""
SEARCHING_PAUSE = 2.0
SETTLED_SECONDS = 10.0
"""A connection that lasted so long ends a series of failures."""
RETURN_SECONDS = 30.0
LONGEST_RETURN = 600.0
"""Seconds between looks at whether the preferred broker is back: doubled each time it was and could not be kept."""


class BackAgain(NotConnected):
    """A broker that is preferred to this one takes connections again."""


class Brokers:
    """One is current. Whoever connects asks `current`, and tells `lost` how it ended."""

    def __init__(self, uplinks: Sequence[Uplink], agent: str, clock: Callable[[], float]) -> None:
        self._uplinks = list(uplinks)
        self._agent = agent
        self._clock = clock
        self._at = 0
        self._failures = 0
        self._short_lived = 0
        self._told_lost = self._told_taken = False
        self._return_pause = RETURN_SECONDS
        self._return_at = 0.0
        self._came_back = False
        self.switches = 0
        self.suspicions = [Suspicion() for _ in uplinks]

    @property
    def current(self) -> Uplink:
        return self._uplinks[self._at]

    def __iter__(self) -> Iterator[Uplink]:
        return iter(self._uplinks)

    @property
    def suspicion(self) -> Suspicion:
        return self.suspicions[self._at]

    @property
    def name(self) -> str:
        return f"{self.current.broker.host}:{self.current.broker.port}"

    def connected(self) -> None:
        """Says so, once a connection."""
        log.info(
            "Connected to the broker at %s with MQTT %s.",
            self.name,
            self.current.protocol,
            extra={"event": "uplink_connected", "broker": self.name, "protocol": self.current.protocol},
        )
        self._told_lost = False
        self._return_at = self._clock() + self._return_pause

    async def look_back(self) -> None:
        """Raises BackAgain where a preferred broker takes connections again. Takes a moment, twice a minute at most."""
        if not self._at or self._clock() < self._return_at:
            return
        self._return_at = self._clock() + self._return_pause
        for at in range(self._at):
            if await self._uplinks[at].answers():
                self._came_back = True
                raise BackAgain(f"{self._uplinks[at].broker.host}:{self._uplinks[at].broker.port} is there again")

    def lost(self, reason: NotConnected, *, lasted: float, was_connected: bool) -> float:
        """Says so once, and chooses the next broker. Returns how long to wait before it is tried, in seconds."""
        self._failures = 0 if lasted > SETTLED_SECONDS and was_connected else self._failures + 1
        before = self.name
        narrowed, self.suspicion.narrowed = self.suspicion.narrowed, False
        if isinstance(reason, BackAgain):
            self._failures = self._at = 0
            log.info("Going back to the broker at %s.", self.name, extra={"event": "uplink_back", "broker": self.name})
            return 0.0
        if isinstance(reason, Renewed):
            self._failures = 0
            log.info("%s; connecting anew.", reason, extra={"event": "uplink_renewed", "broker": before})
            return 0.0
        taken = self._judge(reason, lasted, was_connected)
        if self._came_back and self._at == 0:
            # It took the TCP connection and nothing more: it is asked less often from now on.
            self._came_back = False
            kept = was_connected and lasted > SETTLED_SECONDS
            self._return_pause = RETURN_SECONDS if kept else min(2 * self._return_pause, LONGEST_RETURN)
        if taken:
            return TAKEN_OVER_PAUSE
        if not self._told_lost:
            self._told_lost = True
            log.warning(
                "No connection to the broker at %s: %s. Readings wait in the outbox; trying again.",
                before,
                reason,
                extra={"event": "uplink_lost", "broker": before},
            )
        if len(self._uplinks) > 1 and not (was_connected and lasted > SETTLED_SECONDS):
            self._at = (self._at + 1) % len(self._uplinks)
            self.switches += 1
            if self._failures % len(self._uplinks):
                return 0.0  # each of them is tried before there is a pause
        if narrowed:
            return backoff.pause(1, 0.2, SEARCHING_PAUSE)  # 20 times at most: then it is the smallest size
        most = SEARCHING_PAUSE if self.suspicion.careful else LONGEST_PAUSE
        return backoff.pause(1 + self._failures // len(self._uplinks), 0.2, most)

    def _judge(self, reason: NotConnected, lasted: float, was_connected: bool) -> bool:
        """Says once that another agent seems to have our id. Returns whether the broker said so itself."""
        taken = isinstance(reason, TakenOver)
        # Not every broker says it: then it looks like one that hangs up again and again, and is there at once.
        short = was_connected and lasted < TAKEN_OVER_PAUSE
        self._short_lived = self._short_lived + 1 if short else 0
        if taken or self._short_lived >= (SEARCHING if self.suspicion.careful else SUSPICIOUS):
            if not self._told_taken:
                log.error(
                    "The broker at %s ends each connection soon (%s): do two agents share the id %r, "
                    "or does it not bear a block?",
                    self.name,
                    reason,
                    self._agent,
                    extra={"event": "uplink_taken_over", "broker": self.name, "lost": 0},
                )
            self._told_taken = True
        elif not short:
            self._told_taken = False
        return taken
