"""What came from the broker, until it is settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an agent. `word` is the last word of its topic: data, catalog or state.

    `acknowledge` tells the broker that it need not come again; it may be called from any thread, at any time.
    """

    agent: str
    word: str
    payload: bytes
    retained: bool
    acknowledge: Callable[[], None]
