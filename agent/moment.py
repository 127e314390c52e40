"""Moments that are stored in two outboxes: after a crash both have all of it, or neither has any.

No transaction spans two files. So the outbox of level 3 is written first, and what it got is *held*: nobody is handed
it before the main outbox has its own part, the collectors' marks, and the moment's number. Where the process ends in
between, collectors go on from the marks before that moment and bring its readings once more. So the next start takes
back what was held; its places are free again, for they were never given out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import orjson

MARK = "moment"
"""In the main outbox: the number of the last moment that both have. In another: the Tie of the last that it has."""
UNTIED = {MARK: b""}
"""The mark of an outbox that has nothing of a moment."""


@dataclass(frozen=True, slots=True)
class Tie:
    """What an outbox has of moment `number`: the places `first` to `last` of `stream`. `main` is the stream of the main
    outbox at that time; both in hex."""

    number: int
    main: str
    stream: str
    first: int
    last: int

    def mark(self) -> dict[str, bytes]:
        return {MARK: orjson.dumps(astuple(self))}


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one of the two outboxes: its stream, its next place, and its marks."""

    stream: bytes
    next_sequence: int
    marks: Mapping[str, bytes]


def number(marks: Mapping[str, bytes]) -> int:
    """The number of the last moment that the main outbox has, from its marks; 0 where it has none."""
    return int(marks.get(MARK) or 0)


def numbered(number: int) -> dict[str, bytes]:
    """The mark of the main outbox."""
    return {MARK: b"%d" % number}


def unfinished(kept: Kept, main: Kept) -> int:
    """The first place of what an outbox has of a moment that the main one does not have; 0 where there is no such.

    Where one of the two was made anew since then, or anything was stored behind it, all of it stays: it may have been
    given out.
    """
    if not (mark := kept.marks.get(MARK)):
        return 0
    tie = Tie(*orjson.loads(mark))
    if (tie.main, tie.stream) != (main.stream.hex(), kept.stream.hex()) or kept.next_sequence > tie.last + 1:
        return 0
    return tie.first if tie.number == number(main.marks) + 1 else 0
