"""The backlog: old blocks behind live ones. How fast they may go, when they will be gone, and what is said about it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from agent.budget import Budget, Estimate, Limit

log = logging.getLogger("headrace.uplink")


class Backlog:
    """Told how much waits, each time that something may be sent."""

    def __init__(self, limit: Limit, clock: Callable[[], float]) -> None:
        self._budget = Budget(limit)
        self._estimate = Estimate()
        self._clock = clock
        self._bytes = 0
        self._began = 0.0
        self._most = 0
        self._told = False

    def begin(self) -> None:
        """A new connection: what was measured on the old one counts no more."""
        self._estimate.clear()

    def pause(self, on_their_way: int) -> float:
        """Seconds until more old blocks may be sent; `on_their_way` is how many have no receipt yet."""
        return self._budget.pause(self._clock(), on_their_way=on_their_way)

    def spend(self, size: int) -> None:
        """An old block of so many bytes was sent."""
        self._budget.spend(size, self._clock())

    def note(self, outbox: dict[str, int], *, draining: bool) -> None:
        """Takes note of what waits (the outbox's facts), and says once what to expect, and once that it is done."""
        now = self._clock()
        if not draining:
            if self._most and self._told:
                log.info(
                    "The backlog of %d bytes is sent, after %.0f s.",
                    self._most,
                    now - self._began,
                    extra={"event": "backlog_sent", "bytes": self._most, "seconds": round(now - self._began, 1)},
                )
            self._bytes = self._most = 0
            self._told = False
            self._estimate.clear()
            return
        if not self._most:
            self._began = now
        self._bytes = outbox["bytes"]
        self._most = max(self._most, self._bytes)
        self._estimate.note(self._bytes, now)
        seconds = self._estimate.seconds(self._bytes, now)
        if seconds >= 0 and not self._told:
            self._told = True
            log.info(
                "%d blocks (%d bytes) wait behind live ones, which go first; at %s they are gone in about %.0f s.",
                outbox["entries"],
                self._bytes,
                self._budget.limit,
                seconds,
                extra={
                    "event": "backlog_draining",
                    "entries": outbox["entries"],
                    "bytes": self._bytes,
                    "seconds": round(seconds, 1),
                },
            )

    def facts(self) -> dict[str, Any]:
        """`backlog_bytes`, and `backlog_seconds` until they are gone (-1: nobody can know)."""
        seconds = self._estimate.seconds(self._bytes, self._clock()) if self._bytes else 0.0
        return {"backlog_bytes": self._bytes, "backlog_seconds": round(seconds, 1)}
