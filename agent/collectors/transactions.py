"""The transaction ids of one connection: the next one, and what became of the last ones."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Container

from agent.collectors.frames import Discard

REMEMBERED = 64
"""Transactions whose answers may still come, or come twice. What is older counts as foreign."""


class Transactions:
    """Ids count up from a random one: an answer to the agent before us, or over the last connection, is none to us."""

    def __init__(self) -> None:
        self._last = random.getrandbits(16)
        self._gone: deque[tuple[int, Discard]] = deque(maxlen=REMEMBERED)
        self._tails: list[bytes] = []
        """What came since each chunk that goes on with an unfinished frame began."""

    def next(self) -> int:
        self._last = (self._last + 1) & 0xFFFF
        return self._last

    def forget(self) -> None:
        """A new connection brings no answer to what was asked on another."""
        self._gone.clear()
        self._tails = []

    def over(self, transaction: int, kind: Discard) -> None:
        """Nothing waits for it any more; `kind` is what its answer would be from now on."""
        self._gone.append((transaction, kind))

    def kind(self, transaction: int) -> Discard:
        """What an answer with an id that nothing waits for is."""
        return next((kind for gone, kind in reversed(self._gone) if gone == transaction), Discard.FOREIGN)

    def went_on(self, chunk: bytes) -> None:
        """A chunk came while a frame was unfinished."""
        self._tails = [*(tail + chunk for tail in self._tails), chunk]

    def patched(self, waiting: Container[int]) -> bool:
        """Whether the frame that is now whole may have its end from the head of another.

        A device that does not finish its frames would have the next header taken for values, which have no checksum of
        their own. Values that look like a header by chance, right where a chunk began, are asked for again.
        """
        tails, self._tails = self._tails, []
        return any(self._is_head(tail, waiting) for tail in tails)

    def _is_head(self, tail: bytes, waiting: Container[int]) -> bool:
        if len(tail) < 2 or tail[2:4] != b"\0\0"[: len(tail) - 2]:
            return False
        if len(tail) > 8 and int.from_bytes(tail[4:6], "big") == len(tail) - 6:
            return True
        transaction = int.from_bytes(tail[:2], "big")
        return transaction in waiting or any(transaction == gone for gone, _ in self._gone)
