"""Scans of plants: the simulated one, and the real signals where they are on this machine."""

from __future__ import annotations

import csv
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from agent.model import Reading, Tag, Value, ValueType
from simulators.plant import Plant
from simulators.signals import mix

REAL = Path(os.environ.get("HEADRACE_SIGNALS") or Path(__file__).parents[2] / "shared" / "data")
BEGIN = 1_750_000_000_000_000_000
MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND
SIMULATED_SCANS = 1200

_WORDS = ("temp", "pressure", "position", "count", "state", "running", "setpoint", "flow")
_KINDS = (
    (ValueType.FLOAT32, 30),
    (ValueType.FLOAT64, 4),
    (ValueType.INT16, 6),
    (ValueType.UINT32, 4),
    (ValueType.BOOL, 7),
    (ValueType.STRING, 1),
)


@dataclass(frozen=True, slots=True)
class Signals:
    """`rows[scan][tag]` is a value, scanned at `times[scan]` (ns); `shared` and `own` are the scans as readings."""

    name: str
    tags: list[Tag]
    rows: list[list[Value]]
    times: list[int]

    def shared(self, scans: int, first: int = 0) -> list[Reading]:
        """One time for a whole scan, as a poll has it."""
        return [
            Reading(tag.index, self.times[scan], self.rows[scan][tag.index])
            for scan in range(first, first + scans)
            for tag in self.tags
        ]

    def own(self, scans: int, first: int = 0) -> list[Reading]:
        """A time for every reading, late by some ms (standard deviation 3) in steps of 1 ms, as in a subscription."""
        return [
            Reading(tag, time_ns + _late(time_ns, tag) * MILLISECOND, value)
            for tag, time_ns, value, _ in self.shared(scans, first)
        ]

    def starts(self, scans: int, most: int) -> list[int]:
        """First scans of up to `most` blocks that do not overlap, spread over all the scans."""
        whole = len(self.rows) // scans
        count = min(whole, most)
        return [turn * whole // count * scans for turn in range(count)]


def _late(time_ns: int, tag: int) -> int:
    """About 18 with a standard deviation of 3, and the same in each run."""
    return (mix(tag, time_ns) >> 28).bit_count()


def _tag(index: int, kind: ValueType, name: str) -> Tag:
    return Tag(index, "bench", name, f"hr:{index}", kind, f"88.118.8/bench.{name}", length=16)


@cache
def simulated() -> Signals:
    """52 tags of a press shop, once a second: 34 floats, 10 integers, 7 bools and a string."""
    kinds = [kind for kind, count in _KINDS for _ in range(count)]
    tags = [_tag(index, kind, f"{_WORDS[index % len(_WORDS)]}_{index}") for index, kind in enumerate(kinds)]
    plant = Plant(tags, seed=1)
    times = [BEGIN + scan * SECOND for scan in range(SIMULATED_SCANS)]
    return Signals("simulated plant", tags, [[plant.value(tag, time_ns) for tag in tags] for time_ns in times], times)


@cache
def eastman() -> Signals | None:
    """Tennessee Eastman, 52 tags every 3 min, as the decimals of the file (float64)."""
    path = REAL / "tep_d00_te.dat"
    if not path.exists():
        return None
    rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    return _floats("Tennessee Eastman, float64", rows, 180)


@cache
def eastman_real() -> Signals | None:
    """The same as a PLC's REAL has it: the float32 that is nearest to the decimal."""
    if (source := eastman()) is None:
        return None
    rows = [[single(value) for value in row if isinstance(value, float)] for row in source.rows]
    return _floats("Tennessee Eastman, float32", rows, 180, ValueType.FLOAT32)


@cache
def steel() -> Signals | None:
    """7 columns of energy meters every 15 min. The dates in the file are jumbled (reformatted twice), and not used."""
    path = REAL / "Steel_industry_data.csv"
    if not path.exists():
        return None
    rows = [[float(cell) for cell in row[1:8]] for row in _cells(path)]
    return _floats("steel meters", rows, 900)


@cache
def temperature() -> Signals | None:
    """One temperature every 5 min, with the file's own times and their one step back of 55 min."""
    path = REAL / "nab_machine_temperature_system_failure.csv"
    if not path.exists():
        return None
    lines = list(_cells(path))
    times = [int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * SECOND for day, _ in lines]
    return Signals("machine temperature", [_tag(0, ValueType.FLOAT64, "x0")], [[float(x)] for _, x in lines], times)


SETS: dict[str, Callable[[], Signals | None]] = {
    "plant": simulated,
    "tep": eastman,
    "tep32": eastman_real,
    "steel": steel,
    "nab": temperature,
}
"""By the short names of the command line; None where the files are not on this machine, and none is needed."""


def single(value: float) -> float:
    """The nearest float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def _floats(name: str, rows: list[list[float]], step: int, kind: ValueType = ValueType.FLOAT64) -> Signals:
    tags = [_tag(index, kind, f"x{index}") for index in range(len(rows[0]))]
    times = [BEGIN + scan * step * SECOND for scan in range(len(rows))]
    return Signals(name, tags, [list(row) for row in rows], times)


def _cells(path: Path) -> Iterator[list[str]]:
    """The lines of a CSV file but its head."""
    with path.open(newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        yield from reader
