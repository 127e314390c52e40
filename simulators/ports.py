"""Ports of this machine for programs that are about to start."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from itertools import islice

PORTS = range(20_000, 32_768)
"""From 32,768 on Linux gives them to connections going out: to one of those, perhaps, before the program listens."""


def is_free(port: int) -> bool:
    """Whether nothing is at that TCP port of 127.0.0.1 now, and whoever asks may have it."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free(count: int, but: Collection[int] = ()) -> list[int]:
    """Different TCP ports of 127.0.0.1 where nothing is now, none of `but`. Raises OSError where that is too many."""
    some = random.SystemRandom().sample(PORTS, len(PORTS))
    found = list(islice((port for port in some if port not in but and is_free(port)), count))
    if len(found) < count:
        raise OSError(f"{count} ports are wanted, and {len(found)} of {PORTS.start} to {PORTS.stop - 1} are free")
    return found
