"""How many bytes the readings of a config will be: an estimate, from measured blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent.model import ValueType

DAY = 86400.0
BLOCK = 80.0
"""Bytes of a block beside its columns. This and what follows was measured with the simulated plant, 48 tags of one type
read at the same times, in blocks of 1 to 300 readings a tag. Real signals differ; filters only make it less."""
COLUMN = {"8": 3.0, "16": 4.0, "32": 4.5, "64": 9.0, "bool": 2.0, "float32": 5.5, "float64": 7.5, "string": 9.0}
READING = {"8": 0.4, "16": 1.1, "32": 1.2, "64": 1.2, "bool": 0.15, "float32": 1.0, "float64": 1.2, "string": 0.6}
"""Bytes of a tag in a block, and of each of its readings there, by the type or by the width of an integer."""
OWN_TIME = 0.5
"""Bytes more for a reading with a time of its own: steps of 1 ms, late by some of them (docs/benchmarks.md)."""
_MEMORY = {"bool": 9, "float32": 12, "string": 40}
"""Bytes that a reading takes until its block is sealed; 16 for every other type."""


class Stream(NamedTuple):
    """A tag as far as its volume goes: the type of its readings and the seconds between them."""

    type: ValueType
    period: float
    own_times: bool = False
    """Whether its times are its own (OPC UA), and not those of all tags of a poll."""


def bytes_per_day(streams: Sequence[Stream], seal_after: float, seal_bytes: int) -> float:
    """Bytes of sealed blocks a day, where a block is sealed after so many seconds, or bytes of memory, whichever comes
    first."""
    if not streams:
        return 0.0
    memory = sum(_MEMORY.get(each.type.value, 16) / each.period for each in streams)
    # A block waits for its first reading.
    lasts = max(min(seal_after, seal_bytes / memory), min(each.period for each in streams))
    total = BLOCK * DAY / lasts
    for each in streams:
        word = _word(each.type)
        count = max(1.0, lasts / each.period)
        one = READING.get(word, 1.2) + OWN_TIME * each.own_times
        total += DAY / (count * each.period) * (COLUMN.get(word, 9.0) + one * count)
    return total


def _word(kind: ValueType) -> str:
    return kind.value if kind.value in COLUMN else kind.value.lstrip("uint")
