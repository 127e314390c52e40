"""How many bytes the readings of a config will be: an estimate, from measured blocks."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model import ValueType

DAY = 86400.0
BLOCK = 80.0
"""Bytes of a block beside its columns. This and what follows was measured with the simulated plant, 48 tags of one type
read at the same times, in blocks of 1 to 300 readings a tag. Real signals differ; filters only make it less."""
COLUMN = {"8": 3.0, "16": 4.0, "32": 4.5, "64": 9.0, "bool": 2.0, "float32": 5.5, "float64": 7.5, "string": 9.0}
READING = {"8": 0.4, "16": 1.1, "32": 1.2, "64": 1.2, "bool": 0.15, "float32": 1.0, "float64": 1.2, "string": 0.6}
"""Bytes of a tag in a block, and of each of its readings there, by the type or by the width of an integer."""
_MEMORY = {"bool": 9, "float32": 12, "string": 40}
"""Bytes that a reading takes until its block is sealed; 16 for every other type."""


def bytes_per_day(tags: Sequence[tuple[ValueType, float]], seal_after: float, seal_bytes: int) -> float:
    """Bytes of sealed blocks a day. `tags` has each tag's reading type and the seconds between its readings; a block is
    sealed after so many seconds, or bytes of memory, whichever comes first."""
    if not tags:
        return 0.0
    memory = sum(_MEMORY.get(kind.value, 16) / period for kind, period in tags)
    # A block waits for its first reading.
    lasts = max(min(seal_after, seal_bytes / memory), min(period for _, period in tags))
    total = BLOCK * DAY / lasts
    for kind, period in tags:
        word = _word(kind)
        each = max(1.0, lasts / period)
        total += DAY / (each * period) * (COLUMN.get(word, 9.0) + READING.get(word, 1.2) * each)
    return total


def _word(kind: ValueType) -> str:
    return kind.value if kind.value in COLUMN else kind.value.lstrip("uint")
