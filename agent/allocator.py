"""How the C library keeps memory that was freed. Python's small objects are not concerned; the core's columns, blocks,
catalogs and messages are.

glibc gives every thread a pool of its own, and none of them memory of another. A gateway's threads seal, compress and
write by turns, so that each pool grows to what the largest of its jobs took once: 50 MB of 100,000 tags, measured.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3)."""
SETTINGS = {_ARENA_MAX: 1, _MMAP_THRESHOLD: 4 * 1024 * 1024, _TRIM_THRESHOLD: 8 * 1024 * 1024}
"""One pool. What is very large is a piece by itself, given back when it is freed, as is what is free at the pool's end.

What a value costs is the same with and without, as far as it could be measured.
"""


def share_one_pool() -> None:
    """To be called before there are threads. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in SETTINGS.items():
        mallopt(parameter, value)
