"""Places: which sequences of one stream are filled. Sequences start at 1; pure, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Places:
    """The filled sequences of a stream: everything up to `committed`, and the islands above it.

    An island is a closed interval (first, last); islands are ordered and never touch each other or `committed`.
    """

    __slots__ = ("_firsts", "_lasts", "committed")

    def __init__(self, committed: int = 0, filled: Iterable[tuple[int, int]] = ()) -> None:
        self.committed = committed
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in filled:
            self.fill(first, last)

    @property
    def last(self) -> int:
        """The highest filled sequence; 0 where there is none."""
        return self._lasts[-1] if self._lasts else self.committed

    @property
    def islands(self) -> list[tuple[int, int]]:
        return list(zip(self._firsts, self._lasts, strict=True))

    @property
    def holes(self) -> list[tuple[int, int]]:
        """The closed intervals below `last` that are not filled."""
        found, after = [], self.committed
        for first, last in self.islands:
            found.append((after + 1, first - 1))
            after = last
        return found

    def __contains__(self, sequence: int) -> bool:
        if sequence <= self.committed:
            return sequence > 0
        at = bisect_right(self._firsts, sequence) - 1
        return at >= 0 and sequence <= self._lasts[at]

    def fill(self, first: int, last: int) -> None:
        """Fills `first` to `last`, both included; what is filled already stays so. Raises ValueError below 1."""
        if not 1 <= first <= last:
            raise ValueError(f"{first} to {last} are no places of a stream")
        if first <= self.committed + 1:
            self.committed = max(self.committed, last)
            while self._firsts and self._firsts[0] <= self.committed + 1:
                self.committed = max(self.committed, self._lasts[0])
                del self._firsts[0], self._lasts[0]
            return
        start = bisect_right(self._firsts, first)
        if start and self._lasts[start - 1] >= first - 1:
            start -= 1
        stop = bisect_right(self._firsts, last + 1)
        if start < stop:
            first = min(first, self._firsts[start])
            last = max(last, self._lasts[stop - 1])
        self._firsts[start:stop] = [first]
        self._lasts[start:stop] = [last]

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """The closed intervals within `first` to `last` that are not filled."""
        found = []
        at = max(first, self.committed + 1)
        for start, stop in self.islands:
            if stop < at:
                continue
            if start > last:
                break
            if start > at:
                found.append((at, start - 1))
            at = stop + 1
        if at <= last:
            found.append((at, last))
        return found
