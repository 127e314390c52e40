"""Back-off: how long to wait after failures in a row."""

from __future__ import annotations

import random


def pause(failures: int, first: float, most: float) -> float:
    """Seconds: `first`, doubled for each failure after that, `most` at most; with jitter, half of it to all of it, so
    that a thousand that failed together do not come back together."""
    longest: float = min(most, first * 2 ** min(max(failures - 1, 0), 20))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
