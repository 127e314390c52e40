"""One timer for everything that a line waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings at the latest at the earliest time that it was asked for. Too early costs less than a timer a request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._when = 0.0

    def by(self, when: float) -> None:
        """By the loop's clock, in seconds."""
        if self._timer is not None:
            if self._when <= when:
                return
            self._timer.cancel()
        self._timer, self._when = self._loop.call_at(when, self._rung), when

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self) -> None:
        self._timer = None
        self._ring()
