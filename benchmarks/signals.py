"""Scans of plants: the simulated one, and the real signals where they are on this machine."""

from __future__ import annotations

import csv
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.model import Reading, Tag, ValueType
from simulators.plant import Plant
from simulators.signals import mix

REAL = Path(__file__).parents[2] / "shared" / "data"
BEGIN = 1_750_000_000_000_000_000
MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND
SCANS = (10, 60, 300)

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
    """`rows[scan][tag]` is a value; `shared` and `own` the same scans as readings."""

    name: str
    tags: Sequence[Tag]
    rows: Sequence[Sequence[bool | int | float | str | None]]
    step_ns: int

    def shared(self, scans: int, first: int = 0) -> list[Reading]:
        """One time for a whole scan, as a poll has it."""
        chosen = enumerate(self.rows[first : first + scans], first)
        return [
            Reading(tag.index, BEGIN + scan * self.step_ns, row[tag.index]) for scan, row in chosen for tag in self.tags
        ]

    def own(self, scans: int, first: int = 0) -> list[Reading]:
        """A time for every reading, late by some ms (standard deviation 3) in steps of 1 ms, as in a subscription."""
        return [
            Reading(tag, time_ns + _late(time_ns, tag) * MILLISECOND, value)
            for tag, time_ns, value, _ in self.shared(scans, first)
        ]


def _late(time_ns: int, tag: int) -> int:
    """About 18 with a standard deviation of 3, and the same in each run."""
    return (mix(tag, time_ns) >> 28).bit_count()


def _tag(index: int, kind: ValueType, name: str) -> Tag:
    return Tag(index, "bench", name, f"hr:{index}", kind, f"88.118.8/bench.{name}", length=16)


@cache
def simulated(scans: int = 300) -> Signals:
    """52 tags of a press shop, once a second."""
    kinds = [kind for kind, count in _KINDS for _ in range(count)]
    tags = [_tag(index, kind, f"{_WORDS[index % len(_WORDS)]}_{index}") for index, kind in enumerate(kinds)]
    plant = Plant(tags, seed=1)
    rows = [[plant.value(tag, BEGIN + scan * SECOND) for tag in tags] for scan in range(scans)]
    return Signals("simulated plant", tags, rows, SECOND)


def _floats(name: str, rows: list[list[float]], step: int, kind: ValueType = ValueType.FLOAT64) -> Signals:
    tags = [_tag(index, kind, f"x{index}") for index in range(len(rows[0]))]
    return Signals(name, tags, rows, step * SECOND)


def single(value: float) -> float:
    """The nearest float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def real() -> list[Signals]:
    """The real signals that are there; none is needed."""
    found = []
    if (path := REAL / "tep_d00_te.dat").exists():
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
        found.append(_floats("Tennessee Eastman", rows, 180))
        found.append(
            _floats("Tennessee Eastman as float32", [[single(x) for x in row] for row in rows], 180, ValueType.FLOAT32)
        )
    if (path := REAL / "Steel_industry_data.csv").exists():
        found.append(_floats("steel meters", _numbers(path), 900))
    if (path := REAL / "nab_machine_temperature_system_failure.csv").exists():
        found.append(_floats("machine temperature", _numbers(path), 300))
    return found


def _numbers(path: Path, most: int = 3000) -> list[list[float]]:
    """The columns that are numbers in every line."""
    with path.open(newline="") as lines:
        rows = [row for _, row in zip(range(most + 1), csv.reader(lines), strict=False)][1:]
    columns = [column for column in zip(*rows, strict=True) if _is_number(column[0])]
    return [[float(cell) for cell in row] for row in zip(*columns, strict=True)]


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).lstrip("-").isdigit()
