"""The budget of a backlog: how much of the line old blocks may take while new ones go out at once.

Bytes a second (`"500 kB/s"`) are a bucket that holds one second. A share (`"50 %"`) is a share of the time: old blocks
go out in bursts, each until the broker has it all, and the line is left alone between them in proportion. So a share
needs no figure of what the line can carry, and keeps to it when that changes.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from agent import quantity

BURST_SECONDS = 0.25
LEAST_PAUSE = 0.01
MEASURED_SECONDS = 30.0
FIRST_ESTIMATE = 5.0
"""Seconds of draining before its end is estimated."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What the config says: `bytes` a second, or a `share` of the line (0 to 1, 1 is all of it)."""

    bytes: int | None = None
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Reads `"50 %"` or `"500 kB/s"`. Raises ValueError that reads "what is wrong; write what"."""
        shown = quantity.shown(text)
        wanted = 'write a share such as "50 %", or a rate such as "500 kB/s"'
        if percent := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%", text.strip()):
            share = float(percent[1]) / 100
            if not 0.01 <= share <= 1:
                raise ValueError(f'{shown} is out of range; write a share from "1 %" to "100 %"')
            return cls(share=share)
        if not text.strip().endswith("/s"):
            raise ValueError(f"{shown} is no budget; {wanted}")
        rate = quantity.byte_count(text.strip().removesuffix("/s"))
        if rate < 256:
            raise ValueError(f'{shown} is too little to end; write at least "256 B/s"')
        return cls(bytes=rate)

    def __str__(self) -> str:
        return f"{self.share:.0%} of the line" if self.bytes is None else f"{self.bytes} bytes/s"


class Budget:
    """Spends a limit. Times are seconds of any clock that never goes back."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._tokens = float(limit.bytes or 0)
        self._filled = 0.0
        self._began = 0.0
        self._busy = False
        self._rest_until = 0.0

    def pause(self, now: float, *, on_their_way: int) -> float:
        """Seconds until more may be sent: 0 for now. `on_their_way` is how much the broker has not acknowledged."""
        if self.limit.bytes is not None:
            self._fill(now)
            # A block may overdraw the bucket, however large it is; the next one waits until that is paid back.
            return max(LEAST_PAUSE, -self._tokens / self.limit.bytes) if self._tokens < 0 else 0.0
        if self.limit.share >= 1:
            return 0.0
        if self._busy and not on_their_way:
            self._busy = False
            self._rest_until = now + (now - self._began) * (1 / self.limit.share - 1)
        if self._busy:
            return 0.0 if now - self._began < BURST_SECONDS else BURST_SECONDS
        return max(LEAST_PAUSE, self._rest_until - now) if self._rest_until > now else 0.0

    def spend(self, size: int, now: float) -> None:
        """So many bytes were sent now."""
        if self.limit.bytes is not None:
            self._fill(now)
            self._tokens -= size
        elif not self._busy:
            self._busy, self._began = True, now

    def _fill(self, now: float) -> None:
        rate = self.limit.bytes or 0
        self._tokens = min(float(rate), self._tokens + rate * max(0.0, now - self._filled))
        self._filled = now


class Estimate:
    """When a backlog ends, from how fast it went down lately."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, waiting: int, now: float) -> None:
        """`waiting` is how many bytes wait now; to be told about once a second."""
        if self._samples and now - self._samples[-1][0] < 1.0:
            return
        self._samples.append((now, waiting))
        while now - self._samples[0][0] > MEASURED_SECONDS:
            self._samples.popleft()

    def clear(self) -> None:
        self._samples.clear()

    def seconds(self, waiting: int, now: float) -> float:
        """Seconds until nothing waits; -1 where nobody can know."""
        if len(self._samples) < 2 or now - self._samples[0][0] < FIRST_ESTIMATE:
            return -1.0
        (began, had), (ended, left) = self._samples[0], self._samples[-1]
        rate = (had - left) / (ended - began)
        return waiting / rate if rate > 0 else -1.0
