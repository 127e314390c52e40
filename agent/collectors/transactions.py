"""The transaction ids of one connection: the next one, and what became of the last ones."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection

from agent.collectors.frames import Discard

REMEMBERED = 64
"""Transactions whose answers may still come, or come twice. What is older counts as foreign."""
_LIKE_PDU = range(0x0100, 0x0500)
"""Ids that are never used: an answer's PDU may begin with these two bytes (function code, byte count), and a device
that sends header and PDU one after the other would seem to begin a new frame (`patched`)."""


class Transactions:
    """Ids count up from a random one: an answer to the agent before us, or over the last connection, is none to us."""

    def __init__(self) -> None:
        self._last = random.getrandbits(16)
        self._gone: deque[tuple[int, Discard]] = deque(maxlen=REMEMBERED)
        self._tails: list[bytes] = []
        """What came since each chunk that goes on with an unfinished frame began."""

    def next(self) -> int:
        self._last = (self._last + 1) & 0xFFFF
        if self._last in _LIKE_PDU:
            self._last = _LIKE_PDU.stop
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

    def patched(self, pdu: bytes, waiting: Collection[int]) -> bool:
        """Whether the frame that is now whole, with this PDU, may have its end from another.

        A device that does not finish its frames would have the next header taken for values, which have no checksum of
        their own. Values that look like a header by chance are asked for again: like that of a waiting transaction
        anywhere, or of one of the last ones right where a chunk began.
        """
        tails, self._tails = self._tails, []
        return any(each.to_bytes(2, "big") + b"\0\0" in pdu for each in waiting) or any(
            self._is_head(tail, waiting) for tail in tails
        )

    def _is_head(self, tail: bytes, waiting: Collection[int]) -> bool:
        if len(tail) < 2 or tail[2:4] != b"\0\0"[: len(tail) - 2]:
            return False
        if len(tail) > 8 and int.from_bytes(tail[4:6], "big") == len(tail) - 6:
            return True
        transaction = int.from_bytes(tail[:2], "big")
        return transaction in waiting or any(transaction == gone for gone, _ in self._gone)
