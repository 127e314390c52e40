"""Bindings: which tags an epoch's indexes stand for, kept in memory for the epochs that are in use."""

from __future__ import annotations

from datacenter import names
from datacenter.rows import Bound
from datacenter.store import Store

MOST = 4_000_000
"""Tag indexes of all epochs in memory, some bytes for each: 16,000 agents of 240 tags, which is more than a core takes.
Every agent has an epoch of its own, and to read one from the store costs more than to store a block."""


class Bindings:
    """Of the epochs that were asked for last. For the writer's transactions only."""

    def __init__(self, store: Store, most: int = MOST) -> None:
        self._store = store
        self._most = most
        self._kept: dict[int, Bound] = {}
        """The one asked for last is the last."""
        self._size = 0

    def of(self, epoch: int) -> Bound:
        """The tags of an epoch whose catalog is known."""
        bound = self._kept.pop(epoch, None)
        if bound is None:
            bound = names.bound(self._store, epoch)
            self._size += len(bound)
        self._kept[epoch] = bound
        while self._size > self._most and len(self._kept) > 1:
            self._size -= len(self._kept.pop(next(iter(self._kept))))
        return bound
