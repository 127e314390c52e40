"""Ranges: a set of whole numbers, kept as closed intervals. Pure, and small where its numbers lie together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Intervals (first, last), both included; in order, and never touching each other."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, found: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in found:
            self.add(first, last)

    @property
    def last(self) -> int:
        """The highest number; 0 where there is none."""
        return self._lasts[-1] if self._lasts else 0

    def add(self, first: int, last: int) -> int:
        """Puts `first` to `last` in; returns how many of them are new."""
        if first > last:
            return 0
        new = last - first + 1 - self.count(first, last)
        start = bisect_left(self._lasts, first - 1)
        stop = bisect_right(self._firsts, last + 1)
        if start < stop:
            first, last = min(first, self._firsts[start]), max(last, self._lasts[stop - 1])
        self._firsts[start:stop] = [first]
        self._lasts[start:stop] = [last]
        return new

    def discard(self, first: int, last: int) -> None:
        """Takes `first` to `last` out, as far as they are in."""
        start, stop = self._between(first, last)
        if start == stop or first > last:
            return
        before, after = self._firsts[start], self._lasts[stop - 1]
        left = [(before, first - 1)] if before < first else []
        right = [(last + 1, after)] if after > last else []
        self._firsts[start:stop] = [each for each, _ in left + right]
        self._lasts[start:stop] = [each for _, each in left + right]

    def count(self, first: int, last: int) -> int:
        """How many of `first` to `last` are in."""
        start, stop = self._between(first, last)
        spans = zip(self._firsts[start:stop], self._lasts[start:stop], strict=True)
        return sum(min(last, end) - max(first, begin) + 1 for begin, end in spans)

    def free(self, after: int, last: int) -> tuple[int, int] | None:
        """The first closed interval above `after`, up to `last`, of numbers that are not in."""
        at = bisect_left(self._lasts, after + 1)
        begin = after + 1
        if at < len(self._firsts) and self._firsts[at] <= begin:
            begin = self._lasts[at] + 1
            at += 1
        end = min(last, self._firsts[at] - 1) if at < len(self._firsts) else last
        return (begin, end) if begin <= end else None

    def copy(self) -> Ranges:
        made = Ranges()
        made._firsts, made._lasts = self._firsts.copy(), self._lasts.copy()
        return made

    def _between(self, first: int, last: int) -> tuple[int, int]:
        """The slice of the intervals that share a number with `first` to `last`."""
        start = bisect_left(self._lasts, first)
        return start, max(start, bisect_right(self._firsts, last))

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self._lasts, number)
        return at < len(self._firsts) and self._firsts[at] <= number

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def __len__(self) -> int:
        """How many intervals there are."""
        return len(self._firsts)
