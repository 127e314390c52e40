"""The streams of one outbox. Numbers go on over all of them, so that a place names one entry whatever its stream.

A stream is followed by another where its own numbers can't be trusted to be new: the file was damaged, or an old copy
of it was put back. The first entry of the stream that follows is a gap that stands for all the numbers before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from uuid import UUID


class Streams:
    """(first place, stream) in order; the last is the current one."""

    def __init__(self, found: Iterable[tuple[int, UUID]]) -> None:
        self._found = sorted(found)
        self._firsts = [first for first, _ in self._found]

    @property
    def current(self) -> UUID:
        return self._found[-1][1]

    def of(self, place: int) -> UUID:
        """The stream of a place."""
        return self._found[max(0, bisect_right(self._firsts, place) - 1)][1]

    def begins(self, place: int) -> bool:
        """Whether a stream begins here: then its entry stands for the numbers before it as well."""
        return place in self._firsts

    def has(self, stream: UUID) -> bool:
        return any(each == stream for _, each in self._found)

    def spans(self, confirmed: int, last: int) -> list[tuple[UUID, int]]:
        """(stream, its last place so far) of those that have places above `confirmed`, in order."""
        ends = [first - 1 for first in self._firsts[1:]] + [last]
        return [(stream, end) for (_, stream), end in zip(self._found, ends, strict=True) if end > confirmed]

    def __iter__(self) -> Iterator[tuple[int, UUID]]:
        return iter(self._found)
