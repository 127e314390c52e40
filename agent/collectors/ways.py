"""Which of a line's endpoints to connect to: the first, or its backup."""

from __future__ import annotations

from collections.abc import Iterator

HOLD = 60.0
LONGEST_HOLD = 3600.0
"""Seconds on the backup before the first endpoint is tried again: doubled each time that it was tried in vain."""


class Ways:
    """Pure: it is told what happened, with the time of a monotonic clock in seconds.

    A connection that never gave an answer counts as none: a gateway may accept what nobody behind it hears.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._at = 0
        self._answered = True
        self._hold = HOLD
        self._back_at = 0.0

    @property
    def at(self) -> int:
        """Which endpoint is used, or was last."""
        return self._at

    def order(self) -> Iterator[int]:
        """The endpoints to try, in this order."""
        first = self._at if self._answered else self._at + 1
        for step in range(self._count):
            yield (first + step) % self._count

    def opened(self, at: int, now: float) -> None:
        if at and not self._at:
            self._back_at = now + self._hold
        self._at, self._answered = at, False

    def answered(self) -> None:
        """The first valid answer on this connection."""
        self._answered = True
        if not self._at:
            self._hold = HOLD

    def due_back(self, now: float) -> bool:
        """Whether it is time to try the first endpoint again."""
        return self._at > 0 and now >= self._back_at

    def in_vain(self, now: float) -> None:
        """The first endpoint was tried again, and gave nothing: stay with the backup for longer."""
        self._hold = min(2 * self._hold, LONGEST_HOLD)
        self._at, self._answered = self._count - 1, True
        self._back_at = now + self._hold
